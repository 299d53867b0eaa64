"""Read two-digit numbers: two scanned digits side by side, one of a hundred classes."""
import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits

torch.manual_seed(5)

digits = load_digits()
scans = torch.tensor(digits.images, dtype=torch.float32) / 16
values = torch.tensor(digits.target)


def numbers(first, last, count):
    left, right = torch.randint(first, last, (2, count))
    pictures = torch.cat([scans[left], scans[right]], dim=2)
    return (pictures.unsqueeze(1) - 0.3) / 0.38, 10 * values[left] + values[right]


x_train, y_train = numbers(0, 1400, 8000)
x_val, y_val = numbers(1400, 1797, 1000)


class NumberNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.hidden = nn.Linear(32 * 2 * 4, 128)
        self.out = nn.Linear(128, 100)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return self.out(F.relu(self.hidden(x.flatten(1))))


net = NumberNet()
sgd = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)

for epoch in range(5):
    total = 0.0
    for rows in torch.randperm(len(x_train)).split(40):
        logits = net(x_train[rows])
        loss = F.cross_entropy(logits, y_train[rows])
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        total += loss.item() * len(rows)
    with torch.no_grad():
        accuracy = (net(x_val).argmax(1) == y_val).float().mean().item()
    print("epoch", epoch, "loss %.5f" % (total / len(x_train)), "accuracy %.3f" % accuracy)
