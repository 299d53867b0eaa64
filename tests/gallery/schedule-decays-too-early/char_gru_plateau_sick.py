from pydoc_data.topics import topics
import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(99)

corpus = " ".join(topics[k].lower() for k in sorted(topics))
corpus = "".join(c if c.isalnum() or c in " .,:;()'\n" else "_" for c in corpus)
vocab = sorted(set(corpus))
index = {c: i for i, c in enumerate(vocab)}
ids = torch.tensor([index[c] for c in corpus])
n_val = len(ids) // 10
train_ids, val_ids = ids[:-n_val], ids[-n_val:]
SEQ, BATCH = 40, 32


def sample(source, n):
    start = torch.randint(0, len(source) - SEQ - 1, (n, 1))
    window = source[start + torch.arange(SEQ + 1)]
    return window[:, :-1], window[:, 1:]


class CharGRU(nn.Module):
    def __init__(self, n_vocab, emb=24, hidden=72):
        super().__init__()
        self.embed = nn.Embedding(n_vocab, emb)
        self.rnn = nn.GRU(emb, hidden, batch_first=True)
        self.drop = nn.Dropout(0.1)
        self.out = nn.Linear(hidden, n_vocab)

    def forward(self, x):
        h, _ = self.rnn(self.embed(x))
        return self.out(self.drop(h))


model = CharGRU(len(vocab))
loss_fn = nn.CrossEntropyLoss()
optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", factor=0.3, patience=2)
val_x, val_y = sample(val_ids, 64)


def validate():
    model.eval()
    with torch.no_grad():
        loss = loss_fn(model(val_x).transpose(1, 2), val_y).item()
    model.train()
    return loss


running = 0.0
for step in range(1, 501):
    x, y = sample(train_ids, BATCH)
    loss = loss_fn(model(x).transpose(1, 2), y)
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 5.0)
    optimizer.step()
    running += loss.item()
    if step % 20 == 0:
        val_loss = validate()
        scheduler.step(val_loss)
        if step % 100 == 0:
            print(f"step {step:4d} | train {running / 100:.3f} | val {val_loss:.3f}")
            running = 0.0
