from pydoc_data.topics import topics

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(5)

text = "\n".join(topics[name] for name in sorted(topics)).lower()[:300_000]
alphabet = sorted(set(text))
codes = torch.tensor([alphabet.index(c) for c in text])
windows = codes.unfold(0, 17, 1)  # 16 characters and the one that follows
split = 270_000
train, val = windows[:split], windows[split:]


class NextCharacter(nn.Module):
    """GRU over the characters so far, the states pooled with learned weights."""

    def __init__(self, size, dim=64):
        super().__init__()
        self.embedding = nn.Embedding(size, 24)
        self.gru = nn.GRU(24, dim)
        self.score = nn.Linear(dim, 1)
        self.head = nn.Linear(2 * dim, size)

    def forward(self, x):
        states, _ = self.gru(self.embedding(x.T))  # time, batch, features
        weights = torch.softmax(self.score(states), dim=0)
        pooled = (weights * states).sum(dim=0)
        logits = self.head(torch.cat([states[-1], pooled], dim=1))
        return F.log_softmax(logits, dim=1)


model = NextCharacter(len(alphabet))
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)

recent = []
for step in range(1, 1201):
    batch = train[torch.randint(len(train), (128,))]
    loss = F.nll_loss(model(batch[:, :16]), batch[:, 16])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    recent.append(loss.item())
    if step % 150 == 0:
        with torch.no_grad():
            check = val[torch.randint(len(val), (2000,))]
            acc = (model(check[:, :16]).argmax(dim=1) == check[:, 16]).float().mean()
        print(f"step {step} loss {sum(recent) / len(recent):.4f} accuracy on unseen text {acc:.3f}")
        recent.clear()
