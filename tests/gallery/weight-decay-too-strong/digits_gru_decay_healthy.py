import torch
import torch.nn as nn
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)

data = load_digits()
x = (torch.tensor(data.images, dtype=torch.float32) - 4.9) / 6.0
y = torch.tensor(data.target)
order = torch.randperm(len(x))
x, y = x[order], y[order]
train_loader = DataLoader(TensorDataset(x[:1400], y[:1400]), batch_size=32, shuffle=True)
val_x, val_y = x[1400:], y[1400:]


class DigitGRU(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(8, 64, batch_first=True, bidirectional=True)
        self.head = nn.Linear(128, 10)

    def forward(self, x):
        states, _ = self.gru(x)
        return self.head(states.mean(dim=1))


model = DigitGRU()
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, weight_decay=1e-5)
loss_fn = nn.CrossEntropyLoss()

for epoch in range(1, 13):
    model.train()
    total = 0.0
    for xb, yb in train_loader:
        optimizer.zero_grad()
        loss = loss_fn(model(xb), yb)
        loss.backward()
        optimizer.step()
        total += loss.item()
    model.eval()
    with torch.no_grad():
        val_loss = loss_fn(model(val_x), val_y).item()
        val_acc = (model(val_x).argmax(1) == val_y).float().mean().item()
    if epoch % 2 == 0:
        print(f"epoch {epoch:2d}  train {total / len(train_loader):.4f}  val {val_loss:.4f}  acc {val_acc:.3f}")
