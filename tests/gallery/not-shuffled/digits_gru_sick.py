"""Handwritten digits read row by row with a GRU."""
import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

torch.manual_seed(1)

x, y = load_digits(return_X_y=True)
x = (x / 16.0).reshape(-1, 8, 8).astype(np.float32)
x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=0.2, random_state=1, stratify=y)

order = np.argsort(y_train, kind="stable")
x_train, y_train = x_train[order], y_train[order]

x_train, y_train = torch.tensor(x_train), torch.tensor(y_train)
x_test, y_test = torch.tensor(x_test), torch.tensor(y_test)


class RowReader(nn.Module):
    def __init__(self, hidden=64):
        super().__init__()
        self.rnn = nn.GRU(8, hidden, batch_first=True)
        self.out = nn.Linear(hidden, 10)

    def forward(self, seq):
        _, last = self.rnn(seq)
        return self.out(last[-1])


model = RowReader()
criterion = nn.CrossEntropyLoss()
opt = torch.optim.Adam(model.parameters(), lr=2e-3)

batch = 16
for epoch in range(14):
    losses = []
    for start in range(0, len(x_train), batch):
        xb = x_train[start:start + batch]
        yb = y_train[start:start + batch]
        loss = criterion(model(xb), yb)
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
    if epoch % 2 == 1:
        with torch.no_grad():
            acc = (model(x_test).argmax(1) == y_test).float().mean()
        print("epoch", epoch + 1, "loss", round(float(np.mean(losses)), 4), "test acc", round(acc.item(), 3))

with torch.no_grad():
    print("accuracy on the training set:", (model(x_train).argmax(1) == y_train).float().mean().item())
