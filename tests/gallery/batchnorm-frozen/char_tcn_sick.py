from pydoc_data.topics import topics

import torch
import torch.nn as nn

torch.manual_seed(21)

text = " ".join(" ".join(topics.values()).lower().split())[:120_000]
symbols = sorted(set(text))
codes = torch.tensor([symbols.index(c) for c in text])
train_codes, valid_codes = codes[:110_000], codes[110_000:]
SEQ = 48


class TCN(nn.Module):
    """Dilated causal convolutions that guess the next character."""

    def __init__(self, n_symbols, width=48, dilations=(1, 2, 4, 8, 1, 2, 4, 8)):
        super().__init__()
        self.embed = nn.Embedding(n_symbols, width)
        self.dilations = dilations
        self.convs = nn.ModuleList([nn.Conv1d(width, width, 2, dilation=d) for d in dilations])
        self.norms = nn.ModuleList([nn.BatchNorm1d(width) for _ in dilations])
        self.out = nn.Conv1d(width, n_symbols, 1)

    def train(self, mode=True):
        super().train(mode)
        for m in self.modules():
            if isinstance(m, nn.BatchNorm1d):
                m.eval()
        return self

    def forward(self, tokens):
        x = self.embed(tokens).transpose(1, 2)
        for conv, norm, d in zip(self.convs, self.norms, self.dilations):
            x = torch.relu(norm(conv(nn.functional.pad(x, (d, 0)))))
        return self.out(x)


def windows(source, count, generator=None):
    start = torch.randint(len(source) - SEQ - 1, (count, 1), generator=generator)
    grid = source[start + torch.arange(SEQ + 1)]
    return grid[:, :-1], grid[:, 1:]


model = TCN(len(symbols))
optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3)
loss_fn = nn.CrossEntropyLoss()

model.train()
running = None
for step in range(1, 601):
    x, y = windows(train_codes, 16)
    loss = loss_fn(model(x), y)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()
    running = loss.item() if running is None else 0.95 * running + 0.05 * loss.item()
    if step % 100 == 0:
        model.eval()
        with torch.no_grad():
            x, y = windows(valid_codes, 64, torch.Generator().manual_seed(0))
            logits = model(x)
            acc = (logits.argmax(1) == y).float().mean()
        model.train()
        print(f"step {step}: loss {running:.3f}, valid loss {loss_fn(logits, y):.3f}, valid acc {acc:.3f}")
