import torch
import torch.nn as nn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

torch.manual_seed(3)

x, y = load_digits(return_X_y=True)
x = (x - x.mean()) / x.std()
x_train, x_val, y_train, y_val = train_test_split(x, y, test_size=0.2, random_state=3)
x_train = torch.tensor(x_train, dtype=torch.float32)
x_val = torch.tensor(x_val, dtype=torch.float32)
y_train = torch.tensor(y_train)
y_val = torch.tensor(y_val)

model = nn.Sequential(nn.Linear(64, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, 10))
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

batch_size = 1
for epoch in range(8):
    permutation = torch.randperm(len(x_train))
    epoch_loss = 0.0
    for i in range(0, len(x_train), batch_size):
        idx = permutation[i:i + batch_size]
        optimizer.zero_grad()
        loss = criterion(model(x_train[idx]), y_train[idx])
        loss.backward()
        optimizer.step()
        epoch_loss += loss.item() * len(idx)
    with torch.no_grad():
        val_acc = (model(x_val).argmax(dim=1) == y_val).float().mean()
    print(f"Epoch {epoch + 1}/8 - loss: {epoch_loss / len(x_train):.4f} - val_acc: {val_acc:.4f}")
