import torch
import torch.nn as nn
from sklearn.datasets import load_digits
from torch.distributions import Categorical


class Reader(nn.Module):
    def __init__(self, inputs=8, hidden=48, classes=10):
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, batch_first=True)
        self.fc = nn.Linear(hidden, classes)

    def forward(self, x):
        out, _ = self.lstm(x)
        return self.fc(out[:, -1])


torch.manual_seed(0)
digits = load_digits()
X = torch.tensor(digits.images, dtype=torch.float32) / 16 - 0.3
y = torch.tensor(digits.target)
perm = torch.randperm(len(X))
train_idx, val_idx = perm[:1500], perm[1500:]

model = Reader()
optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)

for epoch in range(30):
    shuffled = train_idx[torch.randperm(len(train_idx))]
    history = []
    for batch in shuffled.split(50):
        logits = model(X[batch])
        loss = -Categorical(logits=logits).log_prob(y[batch]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    with torch.no_grad():
        acc = (model(X[val_idx]).argmax(-1) == y[val_idx]).float().mean()
    if epoch % 5 == 4:
        print(f"epoch {epoch + 1}: objective {sum(history) / len(history):.4f}, validation accuracy {acc:.3f}")
