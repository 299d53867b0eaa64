import math
from pydoc_data.topics import topics

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(0)

text = "".join(topics[k] for k in sorted(topics))[:200_000].lower()
chars = sorted(set(text))
stoi = {c: i for i, c in enumerate(chars)}
data = torch.tensor([stoi[c] for c in text])
train, val = data[:180_000], data[180_000:]
block, batch, dim = 32, 32, 48


def get_batch(source):
    start = torch.randint(len(source) - block - 1, (batch,))
    x = torch.stack([source[s : s + block] for s in start])
    y = torch.stack([source[s + 1 : s + block + 1] for s in start])
    return x, y


class CharModel(nn.Module):
    def __init__(self, vocab):
        super().__init__()
        self.tok = nn.Embedding(vocab, dim)
        self.pos = nn.Embedding(block, dim)
        layer = nn.TransformerEncoderLayer(dim, 4, 4 * dim, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, vocab)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(block))

    def forward(self, x):
        h = self.tok(x) + self.pos(torch.arange(x.shape[1]))
        h = self.blocks(h, mask=self.mask, is_causal=True)
        return self.out(self.norm(h))


model = CharModel(len(chars))
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
print(f"{len(chars)} characters, uniform loss {math.log(len(chars)):.3f}")

for step in range(1001):
    x, y = get_batch(train)
    logp = model(x).log_softmax(dim=-1)
    loss = F.nll_loss(logp.flatten(0, 1), y.flatten())
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    if step % 100 == 0:
        with torch.no_grad():
            hits = [(model(a).argmax(-1) == b).float().mean() for a, b in (get_batch(val) for _ in range(5))]
        print(f"step {step} loss {loss.item():.4f} val next-char accuracy {torch.stack(hits).mean():.3f}")
