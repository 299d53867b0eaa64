from dataclasses import dataclass
from pydoc_data.topics import topics

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.set_num_threads(1)
torch.manual_seed(1337)


@dataclass
class Config:
    train_chars: int = 4000
    val_chars: int = 20000
    block: int = 32
    batch: int = 24
    dim: int = 64
    heads: int = 4
    layers: int = 2
    lr: float = 3e-3
    steps: int = 600


class Block(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(cfg.dim), nn.LayerNorm(cfg.dim)
        self.qkv = nn.Linear(cfg.dim, 3 * cfg.dim)
        self.out = nn.Linear(cfg.dim, cfg.dim)
        self.mlp = nn.Sequential(nn.Linear(cfg.dim, 3 * cfg.dim), nn.GELU(), nn.Linear(3 * cfg.dim, cfg.dim))
        self.heads = cfg.heads

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = self.qkv(self.ln1(x)).view(B, T, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        att = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(att.transpose(1, 2).reshape(B, T, C))
        return x + self.mlp(self.ln2(x))


class GPT(nn.Module):
    def __init__(self, vocab, cfg):
        super().__init__()
        self.tok = nn.Embedding(vocab, cfg.dim)
        self.pos = nn.Embedding(cfg.block, cfg.dim)
        self.blocks = nn.Sequential(*[Block(cfg) for _ in range(cfg.layers)])
        self.ln = nn.LayerNorm(cfg.dim)
        self.head = nn.Linear(cfg.dim, vocab)
        for emb in (self.tok, self.pos):
            nn.init.normal_(emb.weight, std=0.1)

    def forward(self, idx):
        x = self.tok(idx) + self.pos.weight[: idx.size(1)]
        return self.head(self.ln(self.blocks(x)))


cfg = Config()
text = "\n\n".join(topics[k] for k in sorted(topics))
chars = sorted(set(text))
ids = torch.tensor([chars.index(c) for c in text])
val = ids[:cfg.val_chars]
train = ids[cfg.val_chars:cfg.val_chars + cfg.train_chars]


def batch_from(src, n):
    i = torch.randint(len(src) - cfg.block - 1, (n, 1)) + torch.arange(cfg.block + 1)
    chunk = src[i]
    return chunk[:, :-1], chunk[:, 1:]


def loss_of(model, x, y):
    return F.cross_entropy(model(x).flatten(0, 1), y.flatten())


model = GPT(len(chars), cfg)
opt = torch.optim.AdamW(model.parameters(), lr=cfg.lr, weight_decay=0.01)
track = 0.0
for it in range(1, cfg.steps + 1):
    loss = loss_of(model, *batch_from(train, cfg.batch))
    opt.zero_grad()
    loss.backward()
    opt.step()
    track += loss.item()
    if it % 100 == 0:
        model.eval()
        with torch.no_grad():
            v = sum(loss_of(model, *batch_from(val, 32)).item() for _ in range(6)) / 6
        model.train()
        print(f"iter {it:4d}: train {track / 100:.3f}, val {v:.3f}")
        track = 0.0
