import torch
import torch.nn as nn
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, TensorDataset


def load(seed=3):
    X, y = load_diabetes(return_X_y=True, scaled=False)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, random_state=seed)
    mu, sd = X_train.mean(0), X_train.std(0)
    X_train, X_test = (X_train - mu) / sd, (X_test - mu) / sd
    center, spread = y_train.mean(), y_train.std()
    y_train, y_test = (y_train - center) / spread, (y_test - center) / spread
    tensors = [torch.tensor(a, dtype=torch.float32) for a in (X_train, y_train[:, None], X_test, y_test[:, None])]
    return tensors


class Regressor(nn.Module):
    def __init__(self, features, hidden=24):
        super().__init__()
        self.hidden = nn.Linear(features, hidden)
        self.out = nn.Linear(hidden, 1)

    def forward(self, x):
        return self.out(torch.tanh(self.hidden(x)))


def score(model, X, y):
    with torch.no_grad():
        return (1 - (model(X) - y).pow(2).mean() / y.var()).item()


def main(epochs=40):
    torch.manual_seed(0)
    X_train, y_train, X_test, y_test = load()
    model = Regressor(X_train.shape[1])
    loader = DataLoader(TensorDataset(X_train, y_train), batch_size=24, shuffle=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-3)
    criterion = nn.MSELoss()
    for epoch in range(epochs):
        total = 0.0
        for X, y in loader:
            loss = criterion(model(X), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1} loss {total / len(loader):.4f} R2 {score(model, X_train, y_train):.3f} / {score(model, X_test, y_test):.3f}")


if __name__ == "__main__":
    main()
