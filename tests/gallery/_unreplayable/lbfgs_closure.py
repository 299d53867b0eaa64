import torch
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn

torch.manual_seed(0)
x, y = load_diabetes(return_X_y=True)
xa, xb, ya, yb = train_test_split(x, y, test_size=0.25, random_state=0)
sx, sy = StandardScaler().fit(xa), StandardScaler().fit(ya[:, None])
xa, xb = (torch.tensor(sx.transform(v), dtype=torch.float32) for v in (xa, xb))
ya, yb = (torch.tensor(sy.transform(v[:, None]), dtype=torch.float32) for v in (ya, yb))

model = nn.Sequential(nn.Linear(10, 4), nn.Tanh(), nn.Linear(4, 1))
optimizer = torch.optim.LBFGS(model.parameters(), lr=1.0, max_iter=4, line_search_fn="strong_wolfe")
criterion = nn.MSELoss()


def closure():
    optimizer.zero_grad()
    penalty = sum(p.pow(2).sum() for p in model.parameters())
    loss = criterion(model(xa), ya) + 3e-2 * penalty
    loss.backward()
    return loss


for step in range(60):
    loss = optimizer.step(closure)
    if step % 6 == 0:
        with torch.no_grad():
            print(f"step {step} objective {loss.item():.5f} test mse {criterion(model(xb), yb).item():.5f}")
