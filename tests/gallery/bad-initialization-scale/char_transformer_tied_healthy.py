import torch
import torch.nn as nn
import torch.nn.functional as F
from pydoc_data.topics import topics

CONTEXT = 48
WIDTH = 64


class CharTransformer(nn.Module):
    def __init__(self, vocab):
        super().__init__()
        self.tokens = nn.Embedding(vocab, WIDTH)
        self.positions = nn.Parameter(torch.randn(CONTEXT, WIDTH) * 0.02)
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, vocab, bias=False)
        self.head.weight = self.tokens.weight
        nn.init.normal_(self.tokens.weight, std=0.05)
        mask = torch.triu(torch.full((CONTEXT, CONTEXT), float("-inf")), diagonal=1)
        self.register_buffer("mask", mask)

    def forward(self, x):
        h = self.tokens(x) + self.positions
        return self.head(self.encoder(h, mask=self.mask))


def main():
    torch.manual_seed(2)
    text = "".join(topics.values())[:200_000]
    chars = sorted(set(text))
    ids = torch.tensor([chars.index(c) for c in text])
    split = int(0.9 * len(ids))

    def batch(part, size=24):
        start = torch.randint(len(part) - CONTEXT - 1, (size, 1))
        window = part[start + torch.arange(CONTEXT + 1)]
        return window[:, :-1], window[:, 1:]

    model = CharTransformer(len(chars))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(400):
        x, y = batch(ids[:split])
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % 40 == 0 or step == 399:
            print(f"{step:4d}  train {loss.item():.3f}")
    model.eval()
    with torch.no_grad():
        x, y = batch(ids[split:], 64)
        print(f"validation {F.cross_entropy(model(x).flatten(0, 1), y.flatten()).item():.3f}")


if __name__ == "__main__":
    main()
