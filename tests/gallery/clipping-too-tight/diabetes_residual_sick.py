import numpy as np
import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.set_num_threads(1)
torch.manual_seed(4)

X, y = load_diabetes(return_X_y=True)
order = np.random.RandomState(4).permutation(len(X))
tr, te = order[:342], order[342:]
mx, sx = X[tr].mean(0), X[tr].std(0)
my, sy = y[tr].mean(), y[tr].std()
X, y = (X - mx) / sx, (y - my) / sy
base = LinearRegression().fit(X[tr], y[tr])
print("linear regression R2: %.3f" % base.score(X[te], y[te]))


def tensors(i):
    return TensorDataset(torch.tensor(X[i], dtype=torch.float32), torch.tensor(y[i], dtype=torch.float32).unsqueeze(1))


class Regressor(nn.Module):
    def __init__(self, d=10, width=96):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inp = nn.Linear(d, width)
        self.mid = nn.Linear(width, width)
        self.drop = nn.Dropout(0.3)
        self.out = nn.Linear(width, 1)

    def forward(self, x):
        h = torch.nn.functional.silu(self.inp(x))
        h = h + self.drop(torch.nn.functional.silu(self.mid(self.norm(h))))
        return self.out(h)


net = Regressor()
crit = nn.MSELoss()
opt = torch.optim.SGD(net.parameters(), lr=0.005, momentum=0.9)
loader = DataLoader(tensors(tr), batch_size=16, shuffle=True)
xt, yt = tensors(te).tensors


def fit_epoch():
    net.train()
    acc = 0.0
    for xb, yb in loader:
        loss = crit(net(xb), yb)
        opt.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), max_norm=0.1, norm_type=1)
        opt.step()
        acc += loss.item() * len(xb)
    return acc / len(tr)


for epoch in range(20):
    train_mse = fit_epoch()
    net.eval()
    with torch.no_grad():
        mse = crit(net(xt), yt).item()
    if epoch % 3 == 1:
        print("epoch %2d  train mse %.4f  test mse %.4f  test R2 %.3f" % (epoch, train_mse, mse, 1 - mse / yt.var(unbiased=False).item()))
