import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)

digits = load_digits()
x = torch.tensor(digits.data, dtype=torch.float32)
x = (x - x.mean()) / x.std()
y = torch.tensor(digits.target)
order = torch.randperm(len(x))
x, y = x[order], y[order]
x_train, y_train, x_val, y_val = x[:1400], y[:1400], x[1400:], y[1400:]


def make_net(depth=24, width=96):
    layers = []
    inputs = 64
    for _ in range(depth):
        linear = nn.Linear(inputs, width)
        nn.init.xavier_normal_(linear.weight, gain=1.0)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.Tanh()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(width, 10))


net = make_net()
optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)

for epoch in range(1, 16):
    for idx in torch.randperm(len(x_train)).split(32):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x_train[idx]), y_train[idx])
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        train_loss = nn.functional.cross_entropy(net(x_train), y_train).item()
        val_acc = (net(x_val).argmax(1) == y_val).float().mean().item()
    print(f"epoch {epoch}: train loss {train_loss:.4f}, val acc {val_acc:.3f}")
