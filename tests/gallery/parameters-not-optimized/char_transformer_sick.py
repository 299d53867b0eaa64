from pydoc_data.topics import topics

import torch
import torch.nn as nn
import torch.nn.functional as F


class TinyGPT(nn.Module):
    def __init__(self, vocab=256, dim=64, heads=4, layers=2, context=48):
        super().__init__()
        self.context = context
        self.tokens = nn.Embedding(vocab, dim)
        self.positions = nn.Embedding(context, dim)
        layer = nn.TransformerEncoderLayer(dim, heads, 2 * dim, dropout=0.0, activation="gelu",
                                           batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(dim)
        self.lm_head = nn.Linear(dim, vocab, bias=False)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(context))

    def set_vocabulary(self, size):
        dim = self.tokens.embedding_dim
        self.tokens = nn.Embedding(size, dim)
        self.lm_head = nn.Linear(dim, size, bias=False)

    def forward(self, idx):
        t = idx.shape[1]
        h = self.tokens(idx) + self.positions(torch.arange(t))
        h = self.blocks(h, mask=self.mask[:t, :t], is_causal=True)
        return self.lm_head(self.norm(h))


def corpus(size):
    text = "\n\n".join(value for _, value in sorted(topics.items()))[:size]
    alphabet = sorted(set(text))
    index = {c: i for i, c in enumerate(alphabet)}
    return torch.tensor([index[c] for c in text]), alphabet


def batch(data, context, size, generator):
    at = torch.randint(len(data) - context - 1, (size,), generator=generator).unsqueeze(1) + torch.arange(context)
    return data[at], data[at + 1]


def main():
    torch.manual_seed(42)
    generator = torch.Generator().manual_seed(1)
    data, alphabet = corpus(150_000)
    cut = len(data) * 9 // 10
    train, val = data[:cut], data[cut:]

    model = TinyGPT()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    model.set_vocabulary(len(alphabet))

    for step in range(1, 501):
        x, y = batch(train, model.context, 24, generator)
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        model.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            with torch.no_grad():
                x, y = batch(val, model.context, 64, generator)
                val_loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
            print(f"step {step}: train loss {loss.item():.3f}, validation loss {val_loss.item():.3f}")


main()
