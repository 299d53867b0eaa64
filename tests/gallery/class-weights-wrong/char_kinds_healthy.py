"""What kind of character comes next? Five kinds, from letters (77 %) to digits (under 1 %)."""
from pydoc_data.topics import topics

import torch
from sklearn.metrics import recall_score
from torch import nn

KINDS = ["letter", "space", "punctuation", "quote", "digit"]
HISTORY = 16


def kind(c):
    if c.isalpha():
        return 0
    if c.isspace():
        return 1
    if c in "\"'`":
        return 3
    return 4 if c.isdigit() else 2


def load(size):
    text = "\n".join(topics[k] for k in sorted(topics)).lower()
    text = " ".join(text.split())[:size]
    alphabet = sorted(set(text))
    codes = torch.tensor([alphabet.index(c) for c in text])
    kinds = torch.tensor([kind(c) for c in text])
    return codes.unfold(0, HISTORY, 1)[:-1], kinds[HISTORY:], len(alphabet)


class KindNet(nn.Module):
    def __init__(self, symbols, width=16, hidden=48):
        super().__init__()
        self.embedding = nn.Embedding(symbols, width)
        self.rnn = nn.GRU(width, hidden, batch_first=True)
        self.out = nn.Linear(hidden, len(KINDS))

    def forward(self, x):
        _, h = self.rnn(self.embedding(x))
        return self.out(h[-1])


torch.manual_seed(13)
x, y, symbols = load(60_000)
shuffled = torch.randperm(len(x))
train, test = shuffled[:50_000], shuffled[50_000:56_000]

counts = torch.bincount(y[train], minlength=len(KINDS)).float()
weights = len(train) / (len(KINDS) * counts)
criterion = nn.CrossEntropyLoss(weight=weights)
model = KindNet(symbols)
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)

for epoch in range(2):
    running = 0.0
    model.train()
    order = train[torch.randperm(len(train))]
    for step, rows in enumerate(order.split(100), start=1):
        loss = criterion(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        running += loss.item()
        if step % 250 == 0:
            model.eval()
            with torch.no_grad():
                guess = model(x[test]).argmax(dim=1)
            recalls = recall_score(y[test], guess, average=None, labels=range(len(KINDS)), zero_division=0)
            table = " ".join(f"{name} {r:.2f}" for name, r in zip(KINDS, recalls))
            print(f"epoch {epoch} step {step} loss {running / step:.3f} mean recall {recalls.mean():.3f} ({table})")
            model.train()
