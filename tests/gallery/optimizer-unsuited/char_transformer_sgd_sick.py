import torch
import torch.nn as nn
import torch.nn.functional as F
from pydoc_data.topics import topics

torch.manual_seed(0)

text = "\n".join(topics.values())[:250000]
vocabulary = sorted(set(text))
lookup = {c: i for i, c in enumerate(vocabulary)}
corpus = torch.tensor([lookup[c] for c in text], dtype=torch.long)
train_ids, val_ids = corpus[:225000], corpus[225000:]

T = 32


class Model(nn.Module):
    def __init__(self, vocab, width=48):
        super().__init__()
        self.tok = nn.Embedding(vocab, width)
        self.pos = nn.Embedding(T, width)
        nn.init.normal_(self.tok.weight, std=0.02)
        nn.init.normal_(self.pos.weight, std=0.02)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 4)
        self.head = nn.Linear(width, vocab)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(T))

    def forward(self, ids):
        h = self.tok(ids) + self.pos.weight
        return self.head(self.encoder(h, mask=self.mask, is_causal=True))


def draw(ids, n=24):
    at = torch.randint(len(ids) - T - 1, (n, 1)) + torch.arange(T + 1)
    return ids[at][:, :-1], ids[at][:, 1:]


model = Model(len(vocabulary))
optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
for step in range(1, 451):
    x, y = draw(train_ids)
    loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0:
        with torch.no_grad():
            vx, vy = draw(val_ids, 64)
            v = F.cross_entropy(model(vx).flatten(0, 1), vy.flatten()).item()
        print(f"step {step:4d} train {loss.item():.3f} val {v:.3f}")
