import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(2)
digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32)[:, None]
images = (images - images.mean()) / images.std()
labels = torch.tensor(digits.target)
a, b = train_test_split(list(range(len(labels))), test_size=0.2, random_state=2, stratify=digits.target)
train_loader = DataLoader(TensorDataset(images[a], labels[a]), batch_size=32, shuffle=True)

net = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(),
    nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(),
    nn.Linear(128, 10),
)

biases = [p for name, p in net.named_parameters() if name.endswith("bias")]
weights = [p for name, p in net.named_parameters() if not name.endswith("bias")]
optimizer = torch.optim.AdamW([
    {"params": weights, "weight_decay": 1e-2},
    {"params": biases, "weight_decay": 0.0},
], lr=1e-3)
loss_function = nn.CrossEntropyLoss()

for epoch in range(1, 16):
    net.train()
    total = 0.0
    for x, y in train_loader:
        optimizer.zero_grad()
        loss = loss_function(net(x), y)
        loss.backward()
        optimizer.step()
        total += loss.item()
    if epoch % 3 == 0:
        net.eval()
        with torch.no_grad():
            accuracy = (net(images[b]).argmax(1) == labels[b]).float().mean().item()
        print(f"epoch {epoch:2d} loss {total / len(train_loader):.4f} validation accuracy {accuracy:.3f}")
