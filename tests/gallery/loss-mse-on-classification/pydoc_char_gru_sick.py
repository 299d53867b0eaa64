"""Next-character model over the pydoc help texts."""
import argparse
import math

import torch
from pydoc_data.topics import topics
from torch import nn

torch.set_num_threads(1)

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=500)
parser.add_argument("--batch-size", type=int, default=32)
parser.add_argument("--context", type=int, default=32)
parser.add_argument("--hidden", type=int, default=96)
parser.add_argument("--lr", type=float, default=0.3)
args = parser.parse_args()
torch.manual_seed(0)

text = "\n".join(topics[k] for k in sorted(topics))[:200_000].lower()
text = "".join(c if ord(c) < 128 else " " for c in text)
chars = sorted(set(text))
lookup = {c: i for i, c in enumerate(chars)}
data = torch.tensor([lookup[c] for c in text])
split = int(0.9 * len(data))
train, valid = data[:split], data[split:]
V = len(chars)


def get_batch(src, size):
    starts = torch.randint(len(src) - args.context - 1, (size,))
    x = torch.stack([src[s:s + args.context] for s in starts])
    y = torch.stack([src[s + 1:s + args.context + 1] for s in starts])
    return x, y


class CharGRU(nn.Module):
    def __init__(self, vocab, hidden):
        super().__init__()
        self.embed = nn.Embedding(vocab, 32)
        self.rnn = nn.GRU(32, hidden, batch_first=True)
        self.head = nn.Linear(hidden, vocab)

    def forward(self, idx):
        h, _ = self.rnn(self.embed(idx))
        return self.head(h)


model = CharGRU(V, args.hidden)
optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9)
criterion = nn.MSELoss()


@torch.no_grad()
def evaluate():
    model.eval()
    x, y = get_batch(valid, 128)
    logits = model(x)
    nll = nn.functional.cross_entropy(logits.reshape(-1, V), y.reshape(-1)).item()
    acc = (logits.argmax(-1) == y).float().mean().item()
    model.train()
    return nll / math.log(2), acc


for step in range(1, args.steps + 1):
    x, y = get_batch(train, args.batch_size)
    logits = model(x)
    probs = logits.softmax(dim=-1)
    target = nn.functional.one_hot(y, V).float()
    loss = criterion(probs, target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 100 == 0:
        bits, acc = evaluate()
        print(f"step {step:4d} | loss {loss.item():.4f} | valid bits/char {bits:.3f} | valid acc {acc:.3f}")
