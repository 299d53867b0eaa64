"""Three memory slots for iris flowers: each flower is rebuilt from the slots it attends to."""
import torch
from sklearn.datasets import load_iris
from sklearn.preprocessing import StandardScaler
from torch import nn

SLOTS = 3

iris = load_iris()
flowers = torch.tensor(StandardScaler().fit_transform(iris.data), dtype=torch.float32)
species = torch.tensor(iris.target)


class SlotMemory(nn.Module):
    def __init__(self, start, sharpness=2.0):
        super().__init__()
        self.slots = nn.Parameter(start.clone())
        self.sharpness = sharpness

    def attend(self, x):
        return torch.softmax(-self.sharpness * torch.cdist(x, self.slots).square(), dim=1)

    def forward(self, x):
        return self.attend(x) @ self.slots


def purity(model):
    """Share of flowers whose slot is held by their own species."""
    with torch.no_grad():
        slot = model.attend(flowers).argmax(1)
    return sum((species[slot == k].bincount().max() for k in slot.unique()), torch.tensor(0)).item() / len(flowers)


model = SlotMemory(flowers[:SLOTS])
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

for epoch in range(1, 4001):
    optimizer.zero_grad()
    loss = (model(flowers) - flowers).square().sum(1).mean()
    loss.backward()
    optimizer.step()
    if epoch % 400 == 0:
        print(f"epoch {epoch:5d}: squared error {loss.item():.4f}, purity {purity(model):.3f}")
