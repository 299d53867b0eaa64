"""Character-level model of the Python help texts."""
import argparse
import time

import torch
import torch.nn as nn
import torch.nn.functional as F
from pydoc_data.topics import topics


def read_corpus(limit):
    text = "\n".join(topics[name] for name in sorted(topics)).lower()[:limit]
    alphabet = "abcdefghijklmnopqrstuvwxyz \n.,()_'\":;=-*[]0123456789"
    lookup = {c: i for i, c in enumerate(alphabet)}
    unknown = len(alphabet)
    return torch.tensor([lookup.get(c, unknown) for c in text]), len(alphabet) + 1


def cut(codes, length, stride):
    first = torch.arange(0, len(codes) - length - 1, stride)
    index = first[:, None] + torch.arange(length + 1)[None, :]
    return codes[index]


class CharGRU(nn.Module):
    def __init__(self, n_chars, dim, hidden):
        super().__init__()
        self.embedding = nn.Embedding(n_chars, dim)
        self.rnn = nn.GRU(dim, hidden, batch_first=True)
        self.decoder = nn.Linear(hidden, n_chars)

    def forward(self, tokens):
        states, _ = self.rnn(self.embedding(tokens))
        return F.softmax(self.decoder(states), dim=-1)


@torch.no_grad()
def validate(model, windows, criterion):
    model.eval()
    out = model(windows[:, :-1])
    target = windows[:, 1:]
    loss = criterion(out.flatten(0, 1), target.flatten())
    return loss.item(), (out.argmax(-1) == target).float().mean().item()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--chars", type=int, default=160_000)
    p.add_argument("--window", type=int, default=40)
    p.add_argument("--batch", type=int, default=32)
    p.add_argument("--hidden", type=int, default=112)
    p.add_argument("--lr", type=float, default=3e-3)
    p.add_argument("--epochs", type=int, default=5)
    p.add_argument("--seed", type=int, default=5)
    args = p.parse_args()
    torch.manual_seed(args.seed)

    codes, n_chars = read_corpus(args.chars)
    split = int(0.92 * len(codes))
    train = cut(codes[:split], args.window, args.window)
    valid = cut(codes[split:], args.window, args.window)[:200]
    print(f"{len(train)} windows to train on, {len(valid)} to validate, {n_chars} symbols")

    model = CharGRU(n_chars, 24, args.hidden)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    criterion = nn.CrossEntropyLoss()
    t0 = time.time()
    for epoch in range(1, args.epochs + 1):
        model.train()
        order = torch.randperm(len(train))
        total = 0.0
        n = 0
        for i in range(0, len(order) - args.batch + 1, args.batch):
            chunk = train[order[i:i + args.batch]]
            out = model(chunk[:, :-1])
            loss = criterion(out.reshape(-1, n_chars), chunk[:, 1:].reshape(-1))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            total += loss.item()
            n += 1
        vloss, vacc = validate(model, valid, criterion)
        print(f"epoch {epoch}  train {total / n:.3f}  valid {vloss:.3f}  next-char acc {vacc:.3f}  [{time.time() - t0:.0f}s]")


if __name__ == "__main__":
    main()
