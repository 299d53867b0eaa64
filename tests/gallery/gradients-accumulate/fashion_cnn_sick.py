import gzip
import numpy as np
import torch
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset, random_split


def fashion(n):
    root = "/usr/share/datasets/fashion-mnist/"
    images = np.frombuffer(gzip.open(root + "train-images-idx3-ubyte.gz").read(), np.uint8, offset=16)
    labels = np.frombuffer(gzip.open(root + "train-labels-idx1-ubyte.gz").read(), np.uint8, offset=8)
    images = torch.from_numpy(images.reshape(-1, 1, 28, 28)[:n].astype("float32"))
    images = (images - images.mean()) / images.std()
    return TensorDataset(images, torch.from_numpy(labels[:n].astype("int64")))


class SmallCNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, 12, 5, stride=2, padding=2), nn.ReLU(),
            nn.Conv2d(12, 24, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(),
            nn.Linear(24 * 49, 64), nn.ReLU(),
            nn.Linear(64, 10),
        )

    def forward(self, x):
        return self.net(x)


torch.manual_seed(11)
train, val = random_split(fashion(8000), [7000, 1000])
train_loader = DataLoader(train, batch_size=64, shuffle=True)
val_loader = DataLoader(val, batch_size=250)

model = SmallCNN()
criterion = nn.CrossEntropyLoss()
optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

for epoch in range(5):
    model.train()
    for step, (images, labels) in enumerate(train_loader):
        output = model(images)
        loss = criterion(output, labels)
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"[{epoch}, {step:3d}] loss: {loss.item():.3f}")
    model.eval()
    correct = 0
    with torch.no_grad():
        for images, labels in val_loader:
            correct += (model(images).argmax(1) == labels).sum().item()
    print(f"epoch {epoch}: validation accuracy {correct / len(val):.3f}")
