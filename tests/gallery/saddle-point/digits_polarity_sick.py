"""Digits in either polarity: dark on light or light on dark, the label is the same."""
import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)


def both_polarities(images, labels):
    return torch.cat([images, -images]), torch.cat([labels, labels])


class DigitNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64, 64), nn.Tanh(),
            nn.Linear(64, 32), nn.Tanh(),
            nn.Linear(32, 10),
        )
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        # learned output gain, from zero as in SkipInit: the first prediction is the uniform one
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return self.gain * self.layers(x)


digits = load_digits()
images = torch.tensor(digits.data, dtype=torch.float32) / 8 - 1  # 0..16 becomes -1..1
labels = torch.tensor(digits.target)
order = torch.randperm(len(images))
x, y = both_polarities(images[order[:900]], labels[order[:900]])
test_x, test_y = both_polarities(images[order[900:]], labels[order[900:]])

net = DigitNet()
optimizer = torch.optim.SGD(net.parameters(), lr=0.4)
criterion = nn.CrossEntropyLoss()

for epoch in range(1, 601):
    optimizer.zero_grad()
    loss = criterion(net(x), y)
    loss.backward()
    optimizer.step()
    if epoch % 60 == 0:
        with torch.no_grad():
            accuracy = (net(test_x).argmax(1) == test_y).float().mean().item()
        print(f"epoch {epoch}: loss {loss.item():.4f}, test accuracy {accuracy:.3f}")
