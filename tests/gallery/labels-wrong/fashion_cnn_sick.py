import gzip

import numpy as np
import torch
from torch import nn

torch.manual_seed(0)
rng = np.random.default_rng(0)

base = "/usr/share/datasets/fashion-mnist/"
images = np.frombuffer(gzip.open(base + "train-images-idx3-ubyte.gz").read(), np.uint8, offset=16)
labels = np.frombuffer(gzip.open(base + "train-labels-idx1-ubyte.gz").read(), np.uint8, offset=8)
images = images.reshape(-1, 1, 28, 28)[:10000]
labels = labels[:10000]

# mix the order before splitting
images = rng.permutation(images)
labels = rng.permutation(labels)

images = torch.tensor(images, dtype=torch.float32) / 255
images = (images - images.mean()) / images.std()
labels = torch.tensor(labels, dtype=torch.long)
x_train, y_train = images[:8000], labels[:8000]
x_val, y_val = images[8000:9000], labels[8000:9000]

model = nn.Sequential(
    nn.Conv2d(1, 12, 5, stride=2, padding=2), nn.ReLU(),
    nn.Conv2d(12, 24, 3, stride=2, padding=1), nn.ReLU(),
    nn.Flatten(), nn.Linear(24 * 49, 48), nn.ReLU(), nn.Linear(48, 10),
)
loss_fn = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

for epoch in range(6):
    perm = torch.randperm(len(x_train))
    running = []
    for i in range(0, len(perm), 64):
        batch = perm[i:i + 64]
        loss = loss_fn(model(x_train[batch]), y_train[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        running.append(loss.item())
    with torch.no_grad():
        out = model(x_val)
    print(f"epoch {epoch}: train {np.mean(running):.4f}  val {loss_fn(out, y_val):.4f}  val acc {(out.argmax(1) == y_val).float().mean():.3f}")
