"""Character model of the Python reference manual."""
from pydoc_data.topics import topics

import torch
from torch import nn


class CharGRU(nn.Module):
    def __init__(self, vocab, dim, hidden, dropout=0.0):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.gru = nn.GRU(dim, hidden, batch_first=True)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(hidden, vocab)

    def forward(self, x):
        out, _ = self.gru(self.embed(x))
        return self.head(self.drop(out))


def windows(ids, length):
    n = (len(ids) - 1) // length
    return ids[:n * length].view(n, length), ids[1:n * length + 1].view(n, length)


def main():
    torch.manual_seed(0)
    everything = "\n".join(topics[k] for k in sorted(topics)).lower()
    alphabet = sorted(set(everything))
    index = {c: i for i, c in enumerate(alphabet)}
    ids = torch.tensor([index[c] for c in everything])
    length = 32
    xs, ys = windows(ids, length)
    order = torch.randperm(len(xs), generator=torch.Generator().manual_seed(5))
    val = order[:300]
    train = order[300:8300]

    model = CharGRU(len(alphabet), 48, 96, dropout=0.1)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    criterion = nn.CrossEntropyLoss()
    for epoch in range(4):
        model.train()
        total = 0.0
        batches = train[torch.randperm(len(train))].split(40)
        for idx in batches:
            loss = criterion(model(xs[idx]).transpose(1, 2), ys[idx])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            total += loss.item()
        model.eval()
        with torch.no_grad():
            val_loss = criterion(model(xs[val]).transpose(1, 2), ys[val]).item()
        print(f"epoch {epoch + 1}: training loss {total / len(batches):.3f}, validation loss {val_loss:.3f}")


if __name__ == "__main__":
    main()
