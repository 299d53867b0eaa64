import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn


class TemporalNet(nn.Module):
    """Treats the 8 rows of a digit as 8 time steps with 8 channels."""

    def __init__(self, width=32, depth=12, classes=10):
        super().__init__()
        self.stem = nn.Conv1d(8, width, 1)
        self.convs = nn.ModuleList(nn.Conv1d(width, width, 3, padding=1, bias=False) for _ in range(depth))
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(depth))
        self.head = nn.Linear(width * 8, classes)

    def forward(self, x):
        x = self.stem(x)
        for conv, norm in zip(self.convs, self.norms):
            x = torch.relu(norm(conv(x)))
        return self.head(x.flatten(1))


def accuracy(model, x, y):
    with torch.no_grad():
        return (model(x).argmax(dim=1) == y).float().mean().item()


torch.manual_seed(10)
x, y = load_digits(return_X_y=True)
x = torch.tensor(x.reshape(-1, 8, 8) / 16, dtype=torch.float32)
x = (x - x.mean()) / x.std()
y = torch.tensor(y)
x_train, x_val, y_train, y_val = train_test_split(x, y, test_size=0.25, random_state=0)

model = TemporalNet()
print("parameters:", sum(p.numel() for p in model.parameters()))
model.eval()
print("accuracy before training:", round(accuracy(model, x_val, y_val), 3))

optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 12)
loss_fn = nn.CrossEntropyLoss()
for epoch in range(12):
    model.train()
    history = []
    for idx in np.array_split(np.random.default_rng(epoch).permutation(len(x_train)), 40):
        loss = loss_fn(model(x_train[idx]), y_train[idx])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    scheduler.step()
    model.eval()
    print(f"{epoch:2d} loss {np.mean(history):.4f} val {accuracy(model, x_val, y_val):.3f}")
