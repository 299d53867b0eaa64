import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, Dataset


class NoisyRows(Dataset):
    """Digits as sequences of rows, with a little jitter on every draw."""

    def __init__(self, x, y, noise):
        self.x, self.y, self.noise = x, y, noise

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        x = self.x[i]
        if self.noise > 0:
            x = x + self.noise * torch.randn_like(x)
        return x, self.y[i]


class GRUClassifier(nn.Module):
    def __init__(self, hidden=48):
        super().__init__()
        self.gru = nn.GRU(8, hidden, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(2 * hidden, 10)

    def forward(self, x):
        states, _ = self.gru(x)
        return self.fc(states.mean(dim=1))


torch.manual_seed(12)
x, y = load_digits(return_X_y=True)
x = torch.tensor(x, dtype=torch.float32).view(-1, 8, 8)
x = (x - x.mean()) / x.std()
y = torch.tensor(y)
xa, xb, ya, yb = train_test_split(x, y, test_size=0.25, random_state=1)
loader = DataLoader(NoisyRows(xa, ya, noise=0.1), batch_size=32, shuffle=True)

model = GRUClassifier()
opt = torch.optim.Adam(model.parameters(), lr=3e-3)
for epoch in range(16):
    model.train()
    total = 0.0
    for data, target in loader:
        opt.zero_grad()
        loss = F.cross_entropy(model(data), target)
        loss.backward()
        opt.step()
        total += loss.item()
    if (epoch + 1) % 2 == 0:
        model.eval()
        with torch.no_grad():
            out = model(xb)
        print(f"epoch {epoch + 1}: train {total / len(loader):.4f}, "
              f"val {F.cross_entropy(out, yb).item():.4f}, val acc {(out.argmax(1) == yb).float().mean().item():.3f}")
