import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

torch.manual_seed(0)

digits = load_digits()
features = torch.tensor(digits.data, dtype=torch.float32)
features = (features - features.mean()) / features.std()
dataset = TensorDataset(features, torch.tensor(digits.target))
train_set, val_set = random_split(dataset, [1400, len(dataset) - 1400])
train_loader = DataLoader(train_set, batch_size=32, shuffle=True)
val_loader = DataLoader(val_set, batch_size=256)


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden1 = nn.Linear(64, 96)
        self.hidden2 = nn.Linear(96, 48)
        self.output = nn.Linear(48, 10)
        self.reset()

    def reset(self):
        for layer in (self.hidden1, self.hidden2, self.output):
            nn.init.constant_(layer.weight, 0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, x):
        x = torch.tanh(self.hidden1(x))
        x = torch.tanh(self.hidden2(x))
        return self.output(x)


model = Classifier()
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
criterion = nn.CrossEntropyLoss()

for epoch in range(1, 16):
    model.train()
    running = 0.0
    for x, y in train_loader:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        running += loss.item()
    model.eval()
    correct = 0
    with torch.no_grad():
        for x, y in val_loader:
            correct += (model(x).argmax(1) == y).sum().item()
    if epoch % 3 == 0:
        print(f"epoch {epoch}: loss {running / len(train_loader):.4f} val acc {correct / len(val_set):.3f}")
