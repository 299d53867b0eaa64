import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

CONFIG = {
    "batch_size": 48,
    "epochs": 10,
    "lr": 0.05,
    "weight_decay": 1e-4,
    "bn_momentum": 0.1,
    "channels": [16, 16, 16, 32, 32, 32],
}


class ConvNet(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        stages, last = [], 1
        for i, c in enumerate(cfg["channels"]):
            stages.append(
                nn.Sequential(
                    nn.Conv2d(last, c, kernel_size=3, padding=1, bias=False),
                    nn.BatchNorm2d(c, momentum=cfg["bn_momentum"]),
                    nn.ReLU(),
                )
            )
            if i % 3 == 2:
                stages.append(nn.AvgPool2d(2))
            last = c
        self.stages = nn.Sequential(*stages)
        self.fc = nn.Linear(last * 4, 10)

    def forward(self, x):
        return self.fc(torch.flatten(self.stages(x), 1))


def datasets():
    digits = load_digits()
    x = digits.images.astype(np.float32)[:, None] / 16.0
    full = TensorDataset(torch.from_numpy(x), torch.from_numpy(digits.target))
    return random_split(full, [1440, 357], generator=torch.Generator().manual_seed(1))


def run(cfg):
    torch.manual_seed(1)
    train_set, val_set = datasets()
    train_loader = DataLoader(train_set, batch_size=cfg["batch_size"], shuffle=True)
    val_loader = DataLoader(val_set, batch_size=128)
    model = ConvNet(cfg)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=cfg["lr"], momentum=0.9, nesterov=True, weight_decay=cfg["weight_decay"]
    )
    for epoch in range(cfg["epochs"]):
        model.train()
        seen = right = 0
        for x, y in train_loader:
            optimizer.zero_grad()
            scores = model(x)
            criterion(scores, y).backward()
            optimizer.step()
            right += (scores.argmax(1) == y).sum().item()
            seen += len(y)
        model.eval()
        val_loss, val_right = 0.0, 0
        with torch.no_grad():
            for x, y in val_loader:
                scores = model(x)
                val_loss += criterion(scores, y).item() * len(y)
                val_right += (scores.argmax(1) == y).sum().item()
        n = len(val_set)
        print(f"{epoch:3d} train acc {right / seen:.3f} | val loss {val_loss / n:.3f} val acc {val_right / n:.3f}")


run(CONFIG)
