import torch
import torch.nn as nn
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)

digits = load_digits()
sequences = torch.tensor(digits.data, dtype=torch.float32).reshape(-1, 16, 4)
sequences = (sequences - sequences.mean()) / sequences.std()
labels = torch.tensor(digits.target)
perm = torch.randperm(len(labels))
train_idx, test_idx = perm[:1500], perm[1500:]
loader = DataLoader(TensorDataset(sequences[train_idx], labels[train_idx]), batch_size=64, shuffle=True)


class IRNN(nn.Module):
    """Recurrent net of rectifiers that starts from the identity (Le et al., 2015)."""

    def __init__(self, hidden=64):
        super().__init__()
        self.rnn = nn.RNN(4, hidden, nonlinearity="relu", batch_first=True)
        self.fc = nn.Linear(hidden, 10)
        nn.init.eye_(self.rnn.weight_hh_l0)
        nn.init.zeros_(self.rnn.bias_hh_l0)

    def forward(self, x):
        out, _ = self.rnn(x)
        return self.fc(out[:, -1])


model = IRNN()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
loss_fn = nn.CrossEntropyLoss()

for epoch in range(1, 31):
    model.train()
    losses = []
    for x, y in loader:
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        losses.append(loss.item())
    if epoch == 1 or epoch % 3 == 0:
        model.eval()
        with torch.no_grad():
            acc = (model(sequences[test_idx]).argmax(1) == labels[test_idx]).float().mean().item()
        print(f"epoch {epoch:2d}  loss {sum(losses) / len(losses):.3f} (max {max(losses):.3f})  test acc {acc:.3f}")
