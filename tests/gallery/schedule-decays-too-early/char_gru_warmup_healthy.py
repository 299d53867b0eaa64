import torch
from pydoc_data.topics import topics
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

torch.manual_seed(0)

text = "\n".join(topics.values())[:250000]
vocabulary = sorted(set(text))
lookup = {c: i for i, c in enumerate(vocabulary)}
corpus = torch.tensor([lookup[c] for c in text], dtype=torch.long)
train_ids, valid_ids = corpus[:220000], corpus[220000:]

LENGTH = 48
WARMUP = 50
TOTAL = 500


class CharGRU(nn.Module):
    def __init__(self, vocab):
        super().__init__()
        self.embedding = nn.Embedding(vocab, 32)
        self.gru = nn.GRU(32, 96, batch_first=True)
        self.linear = nn.Linear(96, vocab)

    def forward(self, ids):
        hidden, _ = self.gru(self.embedding(ids))
        return self.linear(hidden)


def batches(ids, size):
    start = torch.randint(len(ids) - LENGTH - 1, (size,))
    rows = ids[start[:, None] + torch.arange(LENGTH + 1)]
    return rows[:, :-1], rows[:, 1:]


model = CharGRU(len(vocabulary))
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
scheduler = LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / WARMUP))
loss_fn = nn.CrossEntropyLoss()

for step in range(TOTAL):
    inputs, targets = batches(train_ids, 32)
    loss = loss_fn(model(inputs).transpose(1, 2), targets)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()
    scheduler.step()
    if (step + 1) % 50 == 0:
        with torch.no_grad():
            vi, vt = batches(valid_ids, 64)
            v = loss_fn(model(vi).transpose(1, 2), vt).item()
        print(f"step {step + 1} | lr {scheduler.get_last_lr()[0]:.2e} | train {loss.item():.3f} | valid {v:.3f}")
