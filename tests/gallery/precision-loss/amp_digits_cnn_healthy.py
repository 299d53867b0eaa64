import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, TensorDataset

torch.set_num_threads(1)
torch.manual_seed(6)

SCALER = dict(init_scale=2.0 ** 14, growth_factor=2.0, backoff_factor=0.5, growth_interval=200)


class SmallCNN(nn.Module):
    def __init__(self, ch=12):
        super().__init__()
        self.c1 = nn.Conv2d(1, ch, 3, padding=1)
        self.c2 = nn.Conv2d(ch, 2 * ch, 3, stride=2, padding=1)
        self.c3 = nn.Conv2d(2 * ch, 2 * ch, 3, padding=1)
        self.drop = nn.Dropout(0.2)
        self.fc = nn.Linear(2 * ch * 4, 10)

    def forward(self, x):
        x = F.gelu(self.c1(x))
        x = F.gelu(self.c2(x))
        x = F.max_pool2d(F.gelu(self.c3(x)), 2)
        return self.fc(self.drop(x.flatten(1)))


def get_loaders(batch):
    digits = load_digits()
    x = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1)
    x = (x - 4.88) / 6.02
    y = torch.tensor(digits.target)
    tr, va = train_test_split(range(len(y)), test_size=0.25, random_state=7, stratify=digits.target)
    return (DataLoader(TensorDataset(x[tr], y[tr]), batch_size=batch, shuffle=True),
            DataLoader(TensorDataset(x[va], y[va]), batch_size=256))


@torch.no_grad()
def validate(model, loader):
    model.eval()
    loss = correct = n = 0
    for x, y in loader:
        with torch.autocast("cpu", dtype=torch.float16):
            out = model(x)
        loss += F.cross_entropy(out.float(), y, reduction="sum").item()
        correct += (out.argmax(1) == y).sum().item()
        n += len(y)
    return loss / n, correct / n


train_loader, val_loader = get_loaders(batch=48)
model = SmallCNN()
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-3)
scaler = torch.amp.GradScaler("cpu", **SCALER)

for epoch in range(12):
    model.train()
    total = 0.0
    for x, y in train_loader:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.float16):
            loss = F.cross_entropy(model(x), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        total += loss.item()
    val_loss, acc = validate(model, val_loader)
    print(f"epoch {epoch + 1:2d}  train {total / len(train_loader):.3f}  val {val_loss:.3f}  acc {acc:.3f}  scale {scaler.get_scale():.3g}")
