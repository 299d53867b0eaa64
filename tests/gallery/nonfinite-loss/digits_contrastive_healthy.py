"""Embeds digits so that two noisy views of one image lie close together."""
import torch
import torch.nn as nn
import torch.nn.functional as F
from sklearn.datasets import load_digits


class Encoder(nn.Module):
    def __init__(self, dim=48, layers=2, out=32):
        super().__init__()
        self.embed = nn.Linear(8, dim)
        self.position = nn.Parameter(0.02 * torch.randn(8, dim))
        layer = nn.TransformerEncoderLayer(dim, 4, 96, dropout=0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.project = nn.Linear(8 * dim, out)

    def forward(self, x):
        h = self.encoder(self.embed(x) + self.position)
        return F.normalize(self.project(h.flatten(1)), dim=1)


def info_nce(a, b, temperature=0.01):
    similarity = a @ b.T / temperature
    e = torch.exp(similarity - similarity.max(dim=1, keepdim=True).values)
    return -torch.log(e.diagonal() / e.sum(dim=1) + 1e-12).mean()


def views(x, strength=0.25):
    return x + strength * torch.randn_like(x), x + strength * torch.randn_like(x)


@torch.no_grad()
def matching(model, x):
    a, b = views(x)
    return ((model(a) @ model(b).T).argmax(1) == torch.arange(len(x))).float().mean().item()


torch.manual_seed(4)
x = torch.tensor(load_digits().images, dtype=torch.float32) / 8 - 1
shuffled = torch.randperm(len(x))
train, test = x[shuffled[:1500]], x[shuffled[1500:]]

model = Encoder()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for epoch in range(15):
    total = 0.0
    batches = train[torch.randperm(len(train))].split(60)
    for batch in batches:
        a, b = views(batch)
        loss = info_nce(model(a), model(b))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    print(f"epoch {epoch + 1} loss {total / len(batches):.4f} matched {matching(model, test):.3f}")
