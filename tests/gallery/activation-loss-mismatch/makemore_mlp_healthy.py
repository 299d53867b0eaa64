import random
from pydoc_data.topics import topics

import torch
import torch.nn as nn
import torch.nn.functional as F

# words of the language reference, letter by letter
words = sorted({w for w in " ".join(topics.values()).lower().split() if w.isascii() and w.isalpha() and len(w) > 2})
random.seed(42)
random.shuffle(words)
itos = ["."] + [chr(c) for c in range(ord("a"), ord("z") + 1)]
stoi = {s: i for i, s in enumerate(itos)}
block_size = 4


def build_dataset(words):
    X, Y = [], []
    for w in words:
        context = [0] * block_size
        for ch in w + ".":
            X.append(context)
            Y.append(stoi[ch])
            context = context[1:] + [stoi[ch]]
    return torch.tensor(X), torch.tensor(Y)


n = int(0.9 * len(words))
Xtr, Ytr = build_dataset(words[:n])
Xdev, Ydev = build_dataset(words[n:])

torch.manual_seed(2147483647)


class MLP(nn.Module):
    """Bengio et al. 2003: embed the last letters, one tanh layer, a score for each next letter."""

    def __init__(self, n_embd=12, n_hidden=128):
        super().__init__()
        self.C = nn.Embedding(27, n_embd)
        self.hidden = nn.Linear(n_embd * block_size, n_hidden)
        self.lm_head = nn.Linear(n_hidden, 27)

    def forward(self, X):
        emb = self.C(X).view(X.shape[0], -1)
        return self.lm_head(torch.tanh(self.hidden(emb)))


model = MLP()
optimizer = torch.optim.SGD(model.parameters(), lr=0.2)

lossi = []
for i in range(5000):
    ix = torch.randint(0, Xtr.shape[0], (32,))
    logprobs = F.log_softmax(model(Xtr[ix]), dim=1)
    loss = F.nll_loss(logprobs, Ytr[ix])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    lossi.append(loss.item())
    if (i + 1) % 1000 == 0:
        with torch.no_grad():
            logits = model(Xdev)
            perplexity = F.cross_entropy(logits, Ydev).exp().item()
            acc = (logits.argmax(1) == Ydev).float().mean().item()
        print(f"{i + 1:5d} loss {sum(lossi[-1000:]) / 1000:.4f} dev perplexity {perplexity:.2f} dev acc {acc:.3f}")
