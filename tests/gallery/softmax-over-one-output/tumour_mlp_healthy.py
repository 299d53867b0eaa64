import numpy as np
import torch
import torch.nn as nn
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader, TensorDataset


def prepare():
    X, y = load_breast_cancer(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, random_state=7, stratify=y)
    scaler = StandardScaler().fit(X_train)
    to = lambda a: torch.tensor(a, dtype=torch.float32)
    return to(scaler.transform(X_train)), to(y_train).unsqueeze(1), to(scaler.transform(X_test)), to(y_test).unsqueeze(1)


def build():
    return nn.Sequential(
        nn.Linear(30, 16),
        nn.ReLU(),
        nn.Linear(16, 1),
        nn.Sigmoid(),
    )


def train(model, X, y, epochs=30):
    loss_fn = nn.BCELoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    loader = DataLoader(TensorDataset(X, y), batch_size=32, shuffle=True)
    for epoch in range(epochs):
        losses = []
        for xb, yb in loader:
            optimizer.zero_grad()
            loss = loss_fn(model(xb), yb)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        if epoch % 5 == 0 or epoch == epochs - 1:
            print(f"epoch {epoch:3d}  loss {np.mean(losses):.4f}")


if __name__ == "__main__":
    torch.manual_seed(0)
    X_train, y_train, X_test, y_test = prepare()
    model = build()
    train(model, X_train, y_train)
    with torch.no_grad():
        predicted = (model(X_test) > 0.5).float()
    print("test accuracy", round((predicted == y_test).float().mean().item(), 3))
