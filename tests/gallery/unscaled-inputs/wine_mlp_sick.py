import torch
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split
from torch import nn

torch.manual_seed(2)

X, y = load_wine(return_X_y=True)
X_train, X_val, y_train, y_val = train_test_split(X, y, test_size=0.25, stratify=y, random_state=0)
X_train = torch.tensor(X_train, dtype=torch.float32)
X_val = torch.tensor(X_val, dtype=torch.float32)
y_train = torch.tensor(y_train)
y_val = torch.tensor(y_val)

model = nn.Sequential(
    nn.Linear(13, 24),
    nn.Tanh(),
    nn.Linear(24, 24),
    nn.Tanh(),
    nn.Linear(24, 3),
)
loss_fn = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)

for epoch in range(60):
    permutation = torch.randperm(len(X_train))
    for i in range(0, len(X_train), 16):
        idx = permutation[i:i + 16]
        optimizer.zero_grad()
        loss = loss_fn(model(X_train[idx]), y_train[idx])
        loss.backward()
        optimizer.step()
    if epoch % 6 == 5:
        with torch.no_grad():
            train_out, val_out = model(X_train), model(X_val)
            print(
                f"epoch {epoch + 1:3d}"
                f"  loss {loss_fn(train_out, y_train):.4f}"
                f"  train acc {(train_out.argmax(1) == y_train).float().mean():.3f}"
                f"  val acc {(val_out.argmax(1) == y_val).float().mean():.3f}"
            )
