from pydoc_data.topics import topics

import torch
import torch.nn as nn
import torch.nn.functional as F


class LanguageModel(nn.Module):
    def __init__(self, vocab, context, dim=48):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.position = nn.Parameter(0.02 * torch.randn(context, dim))
        layer = nn.TransformerEncoderLayer(dim, 4, 2 * dim, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, vocab)
        self.register_buffer("mask", torch.triu(torch.ones(context, context, dtype=torch.bool), 1))

    def forward(self, x):
        h = self.blocks(self.embed(x) + self.position, mask=self.mask)
        return self.head(self.norm(h))


def main():
    torch.manual_seed(0)
    text = "\n".join(topics[k] for k in sorted(topics))[:300_000].lower()
    vocab = sorted(set(text))
    ids = torch.tensor([vocab.index(c) for c in text])
    context, batch_size = 32, 24
    model = LanguageModel(len(vocab), context)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    scaler = torch.amp.GradScaler("cpu", init_scale=65536)

    running = None
    for step in range(1, 401):
        at = torch.randint(len(ids) - context - 1, (batch_size, 1)) + torch.arange(context)
        x, y = ids[at], ids[at + 1]
        with torch.autocast("cpu", dtype=torch.float16):
            loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        running = loss.item() if running is None else 0.95 * running + 0.05 * loss.item()
        if step % 50 == 0:
            print(f"step {step} loss {running:.3f} scale {scaler.get_scale():g}")


if __name__ == "__main__":
    main()
