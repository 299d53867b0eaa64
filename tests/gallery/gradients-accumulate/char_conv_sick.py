"""Next-character prediction on the Python language reference, with dilated causal convolutions."""
import torch
import torch.nn as nn
import torch.nn.functional as F
from pydoc_data.topics import topics

torch.manual_seed(0)

text = "\n".join(topics[k] for k in sorted(topics))[:200_000].lower()
chars = sorted(set(text))
lookup = {c: i for i, c in enumerate(chars)}
data = torch.tensor([lookup[c] for c in text])
split = int(0.9 * len(data))
train_data, val_data = data[:split], data[split:]


class CausalConv(nn.Module):
    def __init__(self, dim, dilation):
        super().__init__()
        self.pad = dilation
        self.norm = nn.LayerNorm(dim)
        self.conv = nn.Conv1d(dim, dim, 2, dilation=dilation)

    def forward(self, x):
        h = self.norm(x).transpose(1, 2)
        h = self.conv(F.pad(h, (self.pad, 0))).transpose(1, 2)
        return x + F.relu(h)


class CharConv(nn.Module):
    def __init__(self, vocab, dim=64):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.layers = nn.Sequential(*[CausalConv(dim, 2 ** i) for i in range(4)])
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, vocab))

    def forward(self, idx):
        return self.head(self.layers(self.embed(idx)))


def get_batch(source, batch=32, length=48):
    start = torch.randint(len(source) - length - 1, (batch,))
    x = torch.stack([source[s:s + length] for s in start])
    y = torch.stack([source[s + 1:s + length + 1] for s in start])
    return x, y


model = CharConv(len(chars))
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
loss_fn = nn.CrossEntropyLoss()

optimizer.zero_grad()
for step in range(500):
    x, y = get_batch(train_data)
    logits = model(x)
    loss = loss_fn(logits.flatten(0, 1), y.flatten())
    loss.backward()
    optimizer.step()
    if step % 50 == 0:
        with torch.no_grad():
            vx, vy = get_batch(val_data, batch=64)
            val = loss_fn(model(vx).flatten(0, 1), vy.flatten())
        print(f"step {step:4d}  train {loss.item():.3f}  val {val.item():.3f}")
