import argparse
from pydoc_data.topics import topics

import torch
from torch import nn


class Model(nn.Module):
    def __init__(self, vocab, dim, hidden):
        super().__init__()
        self.embedding = nn.Embedding(vocab, dim)
        self.rnn = nn.LSTM(dim, hidden, batch_first=True)
        self.decoder = nn.Linear(hidden, vocab)

    def forward(self, x, state=None):
        out, state = self.rnn(self.embedding(x), state)
        return self.decoder(out), state


def load(chars, streams):
    text = " ".join(topics[k] for k in sorted(topics))[:chars].lower()
    vocab = sorted(set(text))
    ids = torch.tensor([vocab.index(c) for c in text])
    usable = len(ids) // streams * streams
    return ids[:usable].view(streams, -1), len(vocab)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--chars", type=int, default=160000)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--bptt", type=int, default=32)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--epochs", type=int, default=4)
    args = parser.parse_args()

    torch.manual_seed(0)
    data, vocab = load(args.chars, args.streams)
    model = Model(vocab, 32, 96)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    criterion = nn.CrossEntropyLoss()

    for epoch in range(args.epochs):
        state = None
        total, count = 0.0, 0
        for start in range(0, data.shape[1] - args.bptt - 1, args.bptt):
            x = data[:, start:start + args.bptt]
            y = data[:, start + 1:start + args.bptt + 1]
            logits, state = model(x, state)
            state = tuple(s.detach() for s in state)
            loss = criterion(logits.reshape(-1, vocab), y.reshape(-1))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            total, count = total + loss.item(), count + 1
            if count % 50 == 0:
                print(f"epoch {epoch} batch {count} loss {total / count:.3f}")


if __name__ == "__main__":
    main()
