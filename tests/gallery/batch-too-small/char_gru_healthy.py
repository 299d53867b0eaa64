from pydoc_data.topics import topics

import torch
from torch import nn

torch.manual_seed(1)

text = "\n".join(topics.values())[:200000].lower()
alphabet = sorted(set(text))
code = {c: i for i, c in enumerate(alphabet)}
data = torch.tensor([code[c] for c in text])

STEPS = 1500
BATCH = 32
LENGTH = 24


class Speller(nn.Module):
    def __init__(self, symbols, size=64):
        super().__init__()
        self.embed = nn.Embedding(symbols, 24)
        self.gru = nn.GRU(24, size, batch_first=True)
        self.predict = nn.Linear(size, symbols)

    def forward(self, x):
        h, _ = self.gru(self.embed(x))
        return self.predict(h).transpose(1, 2)


def get_batch(n):
    at = torch.randint(0, len(data) - LENGTH - 1, (n, 1)) + torch.arange(LENGTH + 1)
    chunk = data[at]
    return chunk[:, :-1], chunk[:, 1:]


model = Speller(len(alphabet))
opt = torch.optim.RMSprop(model.parameters(), lr=1e-2)
smooth = None
for step in range(1, STEPS + 1):
    x, y = get_batch(BATCH)
    loss = nn.functional.cross_entropy(model(x), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
    smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
    if step % 100 == 0:
        print(f"{step:5d}/{STEPS} loss {smooth:.3f} ({smooth / 0.6931:.2f} bits per character)")
