import torch
import torch.nn as nn
import torch.nn.functional as F
from pydoc_data import topics as pydoc_topics

torch.set_num_threads(1)
torch.manual_seed(1337)

block_size, batch_size, n_embd, n_head, n_layer = 24, 24, 48, 4, 2
max_iters, eval_interval, learning_rate = 500, 100, 3e-3

corpus = "\n\n".join(pydoc_topics.topics.values())
corpus = corpus.encode("ascii", "ignore").decode()[:250_000]
vocab = sorted(set(corpus))
stoi = {ch: i for i, ch in enumerate(vocab)}
ids = torch.tensor([stoi[ch] for ch in corpus], dtype=torch.long)
cut = int(len(ids) * 0.9)
splits = {"train": ids[:cut], "val": ids[cut:]}


def batch(split, size=batch_size):
    d = splits[split]
    ix = torch.randint(len(d) - block_size, (size, 1)) + torch.arange(block_size)
    return d[ix[:, :-1]], d[ix[:, 1:]]


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(n_embd), nn.LayerNorm(n_embd)
        self.qkv = nn.Linear(n_embd, 3 * n_embd)
        self.proj = nn.Linear(n_embd, n_embd)
        self.mlp = nn.Sequential(nn.Linear(n_embd, 3 * n_embd), nn.GELU(), nn.Linear(3 * n_embd, n_embd))

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = (t.view(B, T, n_head, C // n_head).transpose(1, 2) for t in self.qkv(self.ln1(x)).chunk(3, -1))
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(a.transpose(1, 2).reshape(B, T, C))
        return x + self.mlp(self.ln2(x))


class TinyGPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.tok = nn.Embedding(len(vocab), n_embd)
        self.pos = nn.Embedding(block_size, n_embd)
        self.blocks = nn.Sequential(*[Block() for _ in range(n_layer)])
        self.head = nn.Sequential(nn.LayerNorm(n_embd), nn.Linear(n_embd, len(vocab)))

    def forward(self, idx, targets=None):
        x = self.tok(idx) + self.pos.weight[:idx.size(1)]
        out = self.head(self.blocks(x))
        loss = None
        if targets is not None:
            logp = F.log_softmax(out, dim=-1)
            loss = F.nll_loss(logp.flatten(0, 1), targets.flatten())
        return out, loss


model = TinyGPT()
optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)

for it in range(1, max_iters + 1):
    xb, yb = batch("train")
    _, loss = model(xb, yb)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    if it % eval_interval == 0:
        model.eval()
        with torch.no_grad():
            xv, yv = batch("val", 200)
            out, vloss = model(xv, yv)
            acc = (out.argmax(-1) == yv).float().mean()
        model.train()
        print(f"iter {it}: train {loss.item():.3f} val {vloss.item():.3f} next-char acc {acc.item():.3f}")
