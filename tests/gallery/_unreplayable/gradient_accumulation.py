"""Character GRU; steps when enough characters have been seen, so the number of micro-batches varies."""
import random
from pydoc_data.topics import topics

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(0)
random.seed(0)
documents = [topics[k].lower() for k in sorted(topics)]
vocab = sorted(set("".join(documents)))
index = {c: i + 1 for i, c in enumerate(vocab)}
documents = [torch.tensor([index[c] for c in d]) for d in documents if len(d) > 200]


class CharGRU(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.embed = nn.Embedding(size, 32, padding_idx=0)
        self.gru = nn.GRU(32, 96, batch_first=True)
        self.head = nn.Linear(96, size)

    def forward(self, x):
        return self.head(self.gru(self.embed(x))[0])


def micro_batch():
    size, length = random.randint(2, 12), random.randint(16, 64)
    rows = []
    for _ in range(size):
        d = random.choice(documents)
        s = random.randint(0, len(d) - 101)
        rows.append(d[s:s + random.randint(length // 2, length) + 1])
    batch = nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return batch[:, :-1], batch[:, 1:]


model = CharGRU(len(vocab) + 1)
optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
target_tokens = 1000
steps, tokens, total, recent = 0, 0, 0.0, []
optimizer.zero_grad()
while steps < 200:
    x, y = micro_batch()
    loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten(), ignore_index=0, reduction="sum")
    loss.backward()
    tokens += int((y > 0).sum())
    total += loss.item()
    if tokens >= target_tokens:
        for p in model.parameters():
            p.grad.div_(tokens)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        recent.append(total / tokens)
        steps, tokens, total = steps + 1, 0, 0.0
        if steps % 25 == 0:
            print(f"step {steps}: {sum(recent[-25:]) / 25:.3f} nats per character")
