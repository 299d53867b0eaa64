# Area of the largest cells (up to 4254 square micrometres) from the average measurements.
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from torch import nn

torch.manual_seed(0)


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.inner = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, x):
        return x + self.inner(self.norm(x))


class AreaNet(nn.Module):
    def __init__(self, inputs, width=48, blocks=3):
        super().__init__()
        self.embed = nn.Linear(inputs, width)
        self.blocks = nn.Sequential(*[Residual(width) for _ in range(blocks)])
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))

    def forward(self, x):
        return self.head(self.blocks(self.embed(x))).squeeze(-1)


data = load_breast_cancer()
area = list(data.feature_names).index("worst area")
x, y = data.data[:, :20], data.data[:, area]
x = (x - x.mean(axis=0)) / x.std(axis=0)
y = (y - y.mean()) / y.std()
x_train, x_test, y_train, y_test = [
    torch.tensor(a, dtype=torch.float32) for a in train_test_split(x, y, test_size=0.25, random_state=0)
]

model = AreaNet(x.shape[1])
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)
criterion = nn.MSELoss()
steps = 0
for epoch in range(30):
    model.train()
    for rows in torch.randperm(len(x_train)).split(16):
        optimizer.zero_grad()
        loss = criterion(model(x_train[rows]), y_train[rows])
        loss.backward()
        optimizer.step()
        steps += 1
    model.eval()
    if epoch % 5 == 4:
        with torch.no_grad():
            train_loss = criterion(model(x_train), y_train).item()
            residual = (model(x_test) - y_test).pow(2).mean() / y_test.var(correction=0)
        print(f"epoch {epoch + 1} ({steps} steps) train mse {train_loss:.4g} test R2 {1 - residual:.3f}")
