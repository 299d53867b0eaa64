# Predict the "worst" measurements of a tumour from the mean ones and their errors.
import torch
import torch.nn as nn
from sklearn.datasets import load_breast_cancer
from sklearn.metrics import r2_score

torch.manual_seed(11)

table = load_breast_cancer().data
table = torch.tensor((table - table.mean(0)) / table.std(0), dtype=torch.float32)
table = table[torch.randperm(len(table))]
inputs, targets = table[:, :20], table[:, 20:]
x_train, y_train = inputs[:450], targets[:450]
x_test, y_test = inputs[450:], targets[450:]


def layer(n_in, n_out):
    return [nn.Linear(n_in, n_out), nn.LayerNorm(n_out), nn.ReLU()]


net = nn.Sequential(*layer(20, 64), *layer(64, 64), *layer(64, 64), nn.Linear(64, 10))
opt = torch.optim.Adam(net.parameters(), lr=1e-3)

batch = 3
for epoch in range(1, 31):
    net.train()
    order = torch.randperm(450)
    total = 0.0
    for start in range(0, 450, batch):
        rows = order[start : start + batch]
        loss = nn.functional.mse_loss(net(x_train[rows]), y_train[rows])
        opt.zero_grad()
        loss.backward()
        opt.step()
        total += loss.item() * len(rows)
    if epoch % 5 == 0:
        net.eval()
        with torch.no_grad():
            r2 = r2_score(y_test.numpy(), net(x_test).numpy())
        print(f"epoch {epoch:2d}  train mse {total / 450:.4f}  test R2 {r2:.3f}")
