import torch
import torch.nn as nn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, TensorDataset

torch.set_num_threads(1)
torch.manual_seed(0)


class PixelRNN(nn.Module):
    """Reads the digit two pixels at a time, 32 steps."""

    def __init__(self, hidden=64, classes=10):
        super().__init__()
        self.hidden = hidden
        self.inp = nn.Linear(2, hidden)
        self.rec = nn.Linear(hidden, hidden, bias=False)
        self.out = nn.Linear(hidden, classes)
        nn.init.orthogonal_(self.rec.weight, gain=1.0)

    def forward(self, x):
        h = torch.zeros(x.size(0), self.hidden)
        for t in range(0, x.size(1), 2):
            h = torch.tanh(self.inp(x[:, t:t + 2]) + self.rec(h))
        return self.out(h)


def load():
    X, y = load_digits(return_X_y=True)
    X = (X / 16.0).astype("float32")
    Xa, Xb, ya, yb = train_test_split(X, y, test_size=360, random_state=1, stratify=y)
    to = lambda a, b: TensorDataset(torch.tensor(a), torch.tensor(b))
    return to(Xa, ya), to(Xb, yb)


def main():
    train, test = load()
    loader = DataLoader(train, batch_size=48, shuffle=True, drop_last=True)
    model = PixelRNN()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for epoch in range(40):
        running = 0.0
        for xb, yb in loader:
            optimizer.zero_grad()
            loss = criterion(model(xb), yb)
            loss.backward()
            optimizer.step()
            running += loss.item()
        if epoch % 5 == 4:
            with torch.no_grad():
                logits = model(test.tensors[0])
                vloss = criterion(logits, test.tensors[1]).item()
                acc = (logits.argmax(1) == test.tensors[1]).float().mean().item()
            print(f"{epoch + 1:3d}  loss {running / len(loader):.4f}  val {vloss:.4f}  acc {acc:.3f}")


if __name__ == "__main__":
    main()
