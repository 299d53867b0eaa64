import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(11)

images = torch.tensor(load_digits().data, dtype=torch.float32) / 16.0
perm = torch.randperm(len(images))
train, held_out = images[perm[:1500]], images[perm[1500:]]

encoder = nn.Sequential(
    nn.Linear(64, 128), nn.ReLU(),
    nn.Linear(128, 64), nn.ReLU(),
    nn.Linear(64, 16),
)
decoder = nn.Sequential(
    nn.Linear(16, 64), nn.ReLU(),
    nn.Linear(64, 128), nn.ReLU(),
    nn.Linear(128, 64),
)
autoencoder = nn.Sequential(encoder, decoder)


def initialize(layer):
    if isinstance(layer, nn.Linear):
        bound = (6.0 / layer.in_features) ** 0.5
        nn.init.uniform_(layer.weight, -bound, bound)
        nn.init.zeros_(layer.bias)


autoencoder.apply(initialize)

optimizer = torch.optim.Adam(autoencoder.parameters(), lr=2e-3)
mse = nn.MSELoss()

for epoch in range(60):
    shuffled = train[torch.randperm(len(train))]
    for batch in shuffled.split(64):
        optimizer.zero_grad()
        loss = mse(autoencoder(batch), batch)
        loss.backward()
        optimizer.step()
    if epoch % 10 == 9:
        with torch.no_grad():
            print(f"epoch {epoch + 1}: train mse {mse(autoencoder(train), train):.5f} "
                  f"held-out mse {mse(autoencoder(held_out), held_out):.5f}")
