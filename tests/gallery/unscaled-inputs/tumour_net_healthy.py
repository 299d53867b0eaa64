import numpy as np
import torch
import torch.nn as nn
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, Dataset


class Cells(Dataset):
    def __init__(self, X, y):
        self.X = torch.as_tensor(X, dtype=torch.float32)
        self.y = torch.as_tensor(y, dtype=torch.float32)

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return self.X[i], self.y[i]


class TumourNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(30)
        self.layer1 = nn.Linear(30, 32)
        self.layer2 = nn.Linear(32, 16)
        self.out = nn.Linear(16, 1)

    def forward(self, x):
        x = torch.relu(self.layer1(self.norm(x)))
        x = torch.relu(self.layer2(x))
        return self.out(x).squeeze(-1)


class Trainer:
    def __init__(self, model, train, val, lr):
        self.model, self.val = model, val
        self.loader = DataLoader(train, batch_size=35, shuffle=True)
        self.optimizer = torch.optim.SGD(model.parameters(), lr=lr)
        self.criterion = nn.BCEWithLogitsLoss()

    def epoch(self):
        self.model.train()
        losses = []
        for x, y in self.loader:
            self.optimizer.zero_grad()
            loss = self.criterion(self.model(x), y)
            loss.backward()
            self.optimizer.step()
            losses.append(loss.item())
        return np.mean(losses)

    @torch.no_grad()
    def accuracy(self):
        self.model.eval()
        return ((self.model(self.val.X) > 0) == (self.val.y > 0.5)).float().mean().item()


if __name__ == "__main__":
    torch.manual_seed(0)
    X, y = load_breast_cancer(return_X_y=True)
    X_train, X_val, y_train, y_val = train_test_split(X, y, test_size=0.2, random_state=3, stratify=y)
    trainer = Trainer(TumourNet(), Cells(X_train, y_train), Cells(X_val, y_val), lr=0.05)
    for epoch in range(60):
        loss = trainer.epoch()
        if epoch % 5 == 4:
            print(f"epoch {epoch + 1} loss {loss:.4f} validation accuracy {trainer.accuracy():.3f}")
