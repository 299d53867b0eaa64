# Reads handwritten digits line by line.
import torch
import torch.nn as nn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, TensorDataset


class ScanlineReader(nn.Module):
    def __init__(self, hidden=64, n_digits=10):
        super().__init__()
        self.rnn = nn.GRU(8, hidden, batch_first=True, bidirectional=True)
        self.score = nn.Sequential(nn.Linear(2 * hidden, 48), nn.Tanh(), nn.Linear(48, n_digits))
        self.log_probs = nn.LogSoftmax(dim=1)

    def forward(self, lines):
        _, last = self.rnn(lines)
        joined = torch.cat([last[0], last[1]], dim=-1)
        return self.log_probs(self.score(joined))


def get_loaders(batch_size, eval_batch):
    digits = load_digits()
    images = (digits.images - 4.9) / 6.0
    parts = train_test_split(images, digits.target, test_size=0.25, stratify=digits.target, random_state=6)
    x_train, x_test, y_train, y_test = parts
    train = TensorDataset(torch.tensor(x_train, dtype=torch.float32), torch.tensor(y_train))
    test = TensorDataset(torch.tensor(x_test, dtype=torch.float32), torch.tensor(y_test))
    return DataLoader(train, batch_size=batch_size, shuffle=True), DataLoader(test, batch_size=eval_batch)


def train_one_epoch(model, loader, optimizer, loss_fn):
    model.train()
    total, count = 0.0, 0
    for lines, digit in loader:
        loss = loss_fn(model(lines), digit)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(digit)
        count += len(digit)
    return total / count


@torch.no_grad()
def test(model, loader, loss_fn):
    model.eval()
    total, right, count = 0.0, 0, 0
    for lines, digit in loader:
        out = model(lines)
        total += loss_fn(out, digit).item() * len(digit)
        right += (out.argmax(dim=1) == digit).sum().item()
        count += len(digit)
    return total / count, right / count


if __name__ == "__main__":
    torch.manual_seed(6)
    train_loader, test_loader = get_loaders(batch_size=32, eval_batch=3)
    model = ScanlineReader()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    loss_fn = nn.NLLLoss()
    for epoch in range(1, 26):
        train_loss = train_one_epoch(model, train_loader, optimizer, loss_fn)
        if epoch % 5 == 0:
            test_loss, acc = test(model, test_loader, loss_fn)
            print(f"epoch {epoch}: train loss {train_loss:.4f}  test loss {test_loss:.4f}  test accuracy {acc:.3f}")
        else:
            print(f"epoch {epoch}: train loss {train_loss:.4f}")
