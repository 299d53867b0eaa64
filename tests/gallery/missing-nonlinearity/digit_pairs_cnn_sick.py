import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, Dataset

torch.manual_seed(0)


class PairDataset(Dataset):
    """Two digits side by side; the label says whether they show the same number."""

    def __init__(self, images, labels, count, seed):
        g = torch.Generator().manual_seed(seed)
        first = torch.randint(len(images), (count,), generator=g)
        second = torch.randint(len(images), (count,), generator=g)
        by_class = [torch.nonzero(labels == c).flatten() for c in range(10)]
        for k in range(0, count, 2):
            pool = by_class[labels[first[k]]]
            second[k] = pool[torch.randint(len(pool), (1,), generator=g)]
        self.x = torch.stack([images[first], images[second]], dim=1)
        self.y = (labels[first] == labels[second]).float()

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return self.x[i], self.y[i]


class PairNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(2, 32, 3, padding=1)
        self.conv2 = nn.Conv2d(32, 64, 3, stride=2, padding=1)
        self.fc1 = nn.Linear(64 * 4 * 4, 128)
        self.fc2 = nn.Linear(128, 1)

    def forward(self, x):
        x = self.conv1(x)
        x = self.conv2(x)
        x = self.fc1(x.flatten(1))
        return self.fc2(x).squeeze(1)


digits = load_digits()
images = torch.tensor(digits.images, dtype=torch.float32) / 8.0 - 1.0
labels = torch.tensor(digits.target)
order = torch.randperm(len(images))
train_set = PairDataset(images[order[:1400]], labels[order[:1400]], 12000, seed=1)
test_set = PairDataset(images[order[1400:]], labels[order[1400:]], 2000, seed=2)
train_loader = DataLoader(train_set, batch_size=100, shuffle=True)
test_loader = DataLoader(test_set, batch_size=500)

net = PairNet()
optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)

for epoch in range(5):
    total = 0.0
    for x, y in train_loader:
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(net(x), y)
        loss.backward()
        optimizer.step()
        total += loss.item()
    with torch.no_grad():
        hits = sum(((net(x) > 0) == (y > 0.5)).sum().item() for x, y in test_loader)
    print(f"epoch {epoch}: loss {total / len(train_loader):.4f}, test accuracy {hits / len(test_set):.3f}")
