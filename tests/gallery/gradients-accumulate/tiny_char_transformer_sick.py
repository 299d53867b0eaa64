from pydoc_data.topics import topics

import torch
import torch.nn as nn

CONTEXT = 32
BATCH = 24
STEPS = 1000
EVERY = 100

torch.manual_seed(40)
corpus = " ".join(" ".join(topics[k].split()) for k in sorted(topics, key=len)).lower()[:220_000]
letters = sorted(c for c in set(corpus) if corpus.count(c) > 20)
table = {c: i + 1 for i, c in enumerate(letters)}
data = [table.get(c, 0) for c in corpus]
cut = int(len(data) * 0.9)
train_data, dev_data = data[:cut], data[cut:]
print(f"{len(data)} characters, {len(letters) + 1} symbols")


class TinyTransformer(nn.Module):
    def __init__(self, symbols, dim=64, heads=4, layers=2):
        super().__init__()
        self.symbol = nn.Embedding(symbols, dim)
        self.place = nn.Parameter(0.02 * torch.randn(CONTEXT, dim))
        layer = nn.TransformerEncoderLayer(dim, heads, 2 * dim, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, layers, norm=nn.LayerNorm(dim), enable_nested_tensor=False)
        self.out = nn.Linear(dim, symbols)
        self.register_buffer("mask", torch.triu(torch.full((CONTEXT, CONTEXT), float("-inf")), diagonal=1))

    def forward(self, x):
        h = self.symbol(x) + self.place
        return self.out(self.blocks(h, mask=self.mask))


def sample_batch(source, size, generator=None):
    xs, ys = [], []
    for s in torch.randint(0, len(source) - CONTEXT - 1, (size,), generator=generator).tolist():
        xs.append(source[s:s + CONTEXT])
        ys.append(source[s + 1:s + CONTEXT + 1])
    return torch.tensor(xs), torch.tensor(ys)


def dev_report(model):
    model.eval()
    x, y = sample_batch(dev_data, 200, torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = model(x)
    model.train()
    loss = nn.functional.cross_entropy(logits.transpose(1, 2), y)
    return loss.item(), (logits.argmax(-1) == y).float().mean().item()


model = TinyTransformer(len(letters) + 1)
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
loss_sum = 0.0
for step in range(1, STEPS + 1):
    x, y = sample_batch(train_data, BATCH)
    logits = model(x)
    loss = nn.functional.cross_entropy(logits.transpose(1, 2), y)
    loss.backward()
    optimizer.step()
    loss_sum += loss.item()
    if step % EVERY == 0:
        dev_loss, dev_acc = dev_report(model)
        print(f"step {step}: train {loss_sum / EVERY:.3f}  dev {dev_loss:.3f}  dev accuracy {dev_acc:.3f}")
        loss_sum = 0.0
