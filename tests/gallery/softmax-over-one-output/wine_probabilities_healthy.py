import torch
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class WineNet(nn.Module):
    def __init__(self, n_features=13, n_classes=3, hidden=24):
        super().__init__()
        self.hidden1 = nn.Linear(n_features, hidden)
        self.hidden2 = nn.Linear(hidden, hidden)
        self.output = nn.Linear(hidden, n_classes)
        self.softmax = nn.Softmax(dim=1)

    def forward(self, x):
        x = torch.tanh(self.hidden1(x))
        x = torch.tanh(self.hidden2(x))
        return self.softmax(self.output(x))


def loaders(batch_size):
    X, y = load_wine(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.3, stratify=y, random_state=4)
    scale = StandardScaler().fit(X_train)
    sets = [
        TensorDataset(torch.tensor(scale.transform(a), dtype=torch.float32), torch.tensor(b))
        for a, b in ((X_train, y_train), (X_test, y_test))
    ]
    return DataLoader(sets[0], batch_size=batch_size, shuffle=True), DataLoader(sets[1], batch_size=1)


def fit(model, loader, test_loader, epochs, lr):
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    criterion = nn.NLLLoss()
    for epoch in range(epochs):
        total, count = 0.0, 0
        for inputs, labels in loader:
            optimizer.zero_grad()
            probabilities = model(inputs)
            loss = criterion(torch.log(probabilities + 1e-9), labels)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(labels)
            count += len(labels)
        if epoch % 10 == 9:
            with torch.no_grad():
                hits = sum((model(inputs).argmax(dim=1) == labels).sum().item() for inputs, labels in test_loader)
            print(f"epoch {epoch + 1}: loss {total / count:.4f}, test accuracy {hits / len(test_loader.dataset):.3f}")


torch.manual_seed(4)
train_loader, test_loader = loaders(batch_size=16)
fit(WineNet(), train_loader, test_loader, epochs=100, lr=0.005)
