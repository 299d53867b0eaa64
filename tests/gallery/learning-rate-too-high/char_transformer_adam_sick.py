import argparse

import torch
from pydoc_data.topics import topics
from torch import nn
from torch.nn import functional as F

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--steps", type=int, default=400)
parser.add_argument("--batch-size", type=int, default=32)
parser.add_argument("--context", type=int, default=40)
args = parser.parse_args()

torch.manual_seed(0)

text = "\n".join(topics.values())[:250000]
vocabulary = sorted(set(text))
lookup = {c: i for i, c in enumerate(vocabulary)}
corpus = torch.tensor([lookup[c] for c in text], dtype=torch.long)
train_ids, val_ids = corpus[:225000], corpus[225000:]


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        b, t, c = x.shape
        q, k, v = (part.view(b, t, self.heads, -1).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.proj(out.transpose(1, 2).reshape(b, t, c))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        x = x + self.attn(self.ln1(x))
        return x + self.mlp(self.ln2(x))


class GPT(nn.Module):
    def __init__(self, vocab, width=64, depth=2, heads=4):
        super().__init__()
        self.tok = nn.Embedding(vocab, width)
        self.pos = nn.Embedding(args.context, width)
        self.blocks = nn.Sequential(*[Block(width, heads) for _ in range(depth)])
        self.ln = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocab)

    def forward(self, ids):
        x = self.tok(ids) + self.pos(torch.arange(ids.size(1)))
        return self.head(self.ln(self.blocks(x)))


def sample(ids):
    starts = torch.randint(0, len(ids) - args.context - 1, (args.batch_size,))
    chunk = torch.stack([ids[s:s + args.context + 1] for s in starts])
    return chunk[:, :-1], chunk[:, 1:]


model = GPT(len(vocabulary))
optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
for step in range(1, args.steps + 1):
    x, y = sample(train_ids)
    loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0:
        with torch.no_grad():
            vx, vy = sample(val_ids)
            val = F.cross_entropy(model(vx).flatten(0, 1), vy.flatten())
        print(f"step {step}: train {loss.item():.3f} val {val.item():.3f}")
