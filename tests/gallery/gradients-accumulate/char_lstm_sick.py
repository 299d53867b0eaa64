import torch
import torch.nn as nn
from pydoc_data.topics import topics

torch.set_num_threads(1)
torch.manual_seed(1)

text = "\n".join(topics[k] for k in sorted(topics))[:300000]
vocab = sorted(set(text))
stoi = {c: i for i, c in enumerate(vocab)}
data = torch.tensor([stoi[c] for c in text])
cut = int(0.9 * len(data))
train_data, val_data = data[:cut], data[cut:]

SEQ, BATCH, STEPS = 32, 32, 600


class Encoder(nn.Module):
    def __init__(self, vocab_size, emb=32, hidden=96):
        super().__init__()
        self.emb = nn.Embedding(vocab_size, emb)
        self.lstm = nn.LSTM(emb, hidden, batch_first=True)

    def forward(self, idx):
        h, _ = self.lstm(self.emb(idx))
        return h


class Head(nn.Module):
    def __init__(self, vocab_size, hidden=96):
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.proj = nn.Linear(hidden, vocab_size)

    def forward(self, h):
        return self.proj(self.norm(h))


def get_batch(source):
    start = torch.randint(0, len(source) - SEQ - 1, (BATCH,))
    x = torch.stack([source[s:s + SEQ] for s in start])
    y = torch.stack([source[s + 1:s + SEQ + 1] for s in start])
    return x, y


encoder = Encoder(len(vocab))
head = Head(len(vocab))
criterion = nn.CrossEntropyLoss()
# the recurrent part likes a gentler rate than the projection
opt_enc = torch.optim.SGD(encoder.parameters(), lr=0.5, momentum=0.9)
opt_head = torch.optim.SGD(head.parameters(), lr=0.2, momentum=0.9)


def run(x, y):
    return criterion(head(encoder(x)).flatten(0, 1), y.flatten())


@torch.no_grad()
def validate(n=10):
    return sum(run(*get_batch(val_data)).item() for _ in range(n)) / n


avg = None
for step in range(STEPS):
    x, y = get_batch(train_data)
    opt_head.zero_grad()
    loss = run(x, y)
    loss.backward()
    opt_enc.step()
    opt_head.step()
    avg = loss.item() if avg is None else 0.95 * avg + 0.05 * loss.item()
    if (step + 1) % 100 == 0:
        print(f"{step + 1:5d} train {avg:.3f} val {validate():.3f}")
