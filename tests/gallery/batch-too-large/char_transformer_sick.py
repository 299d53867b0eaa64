from pydoc_data.topics import topics

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)

text = "\n".join(topics.values())[:160000]
chars = sorted(set(text))
stoi = {c: i for i, c in enumerate(chars)}
ids = torch.tensor([stoi[c] for c in text])

CONTEXT = 24
EPOCHS = 7
windows = ids[:len(ids) // (CONTEXT + 1) * (CONTEXT + 1)].view(-1, CONTEXT + 1)
held_out, windows = windows[-400:], windows[:-400]
loader = DataLoader(TensorDataset(windows), batch_size=2048, shuffle=True)


class LanguageModel(nn.Module):
    def __init__(self, vocab, width=48):
        super().__init__()
        self.token = nn.Embedding(vocab, width)
        self.position = nn.Parameter(torch.zeros(CONTEXT, width))
        block = nn.TransformerEncoderLayer(width, 4, 128, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocab)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(CONTEXT))

    def forward(self, x):
        h = self.blocks(self.token(x) + self.position, mask=self.mask, is_causal=True)
        return self.head(self.norm(h))


def next_char_loss(model, rows):
    return F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())


model = LanguageModel(len(chars))
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
for epoch in range(EPOCHS):
    model.train()
    for (rows,) in loader:
        optimizer.zero_grad()
        loss = next_char_loss(model, rows)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()
    with torch.no_grad():
        print(f"epoch {epoch}: train {loss.item():.3f}, held out {next_char_loss(model, held_out).item():.3f}")
