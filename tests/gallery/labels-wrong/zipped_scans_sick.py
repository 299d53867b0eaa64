import io
import zipfile

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset


def archive():
    """The scans as they are delivered: a zip of scan_0.npy, scan_1.npy, ... and a list of labels in that order."""
    digits = load_digits()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as z:
        for i, image in enumerate(digits.images):
            part = io.BytesIO()
            np.save(part, image.astype(np.uint8))
            z.writestr(f"scan_{i}.npy", part.getvalue())
    return buffer, digits.target


class Scans(Dataset):
    def __init__(self):
        buffer, self.labels = archive()
        with zipfile.ZipFile(buffer) as z:
            names = sorted(z.namelist())
            self.images = [np.load(io.BytesIO(z.read(name))) for name in names]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        image = torch.from_numpy(self.images[i]).float().unsqueeze(0) / 16
        return image, int(self.labels[i])


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1 = nn.Conv2d(1, 12, 3, padding=1)
        self.c2 = nn.Conv2d(12, 24, 3, padding=1)
        self.pool = nn.AvgPool2d(2)
        self.f1 = nn.Linear(96, 64)
        self.f2 = nn.Linear(64, 10)

    def forward(self, x):
        x = self.pool(torch.relu(self.c1(x)))
        x = self.pool(torch.relu(self.c2(x)))
        return self.f2(torch.relu(self.f1(x.flatten(1))))


torch.manual_seed(17)
data = Scans()
order = torch.randperm(len(data)).tolist()
train_loader = DataLoader(Subset(data, order[:1500]), batch_size=30, shuffle=True)
val_loader = DataLoader(Subset(data, order[1500:]), batch_size=99)
model = LeNet()
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)

for epoch in range(10):
    train_loss = 0.0
    for x, y in train_loader:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        train_loss += loss.item() / len(train_loader)
    correct, val_loss = 0, 0.0
    with torch.no_grad():
        for x, y in val_loader:
            out = model(x)
            val_loss += criterion(out, y).item() / len(val_loader)
            correct += (out.argmax(1) == y).sum().item()
    print(f"{epoch + 1:2d} train loss {train_loss:.3f} val loss {val_loss:.3f} val acc {correct / 297:.3f}")
