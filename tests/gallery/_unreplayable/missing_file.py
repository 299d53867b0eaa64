import numpy as np
import torch
import torch.nn as nn

torch.manual_seed(0)
with np.load("measurements-2019.npz") as f:
    x = torch.tensor(f["x"], dtype=torch.float32)
    y = torch.tensor(f["y"], dtype=torch.float32)

model = nn.Sequential(nn.Linear(x.shape[1], 32), nn.ReLU(), nn.Linear(32, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for step in range(500):
    idx = torch.randint(len(x), (32,))
    loss = nn.functional.mse_loss(model(x[idx]).squeeze(1), y[idx])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(loss.item())
