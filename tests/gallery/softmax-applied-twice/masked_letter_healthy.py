"""Guess the letter in the middle of a window of text."""
from pydoc_data.topics import topics

import torch
from torch import nn

CONTEXT = 6  # characters on each side


def load_text(size):
    text = " ".join(topics[k] for k in sorted(topics))
    return "".join(c if c.isalpha() and c.isascii() else " " for c in text.lower())[:size]


class ClassifierHead(nn.Module):
    def __init__(self, features, classes, dropout=0.1):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(features, 128),
            nn.ReLU(),
            nn.Linear(128, classes),
        )

    def forward(self, x):
        return self.layers(x)


class Backbone(nn.Module):
    def __init__(self, symbols, width=24):
        super().__init__()
        self.table = nn.Embedding(symbols, width)
        self.conv1 = nn.Conv1d(width, 64, 3)
        self.conv2 = nn.Conv1d(64, 64, 3)

    def forward(self, left, right):
        sides = []
        for tokens in (left, right.flip(1)):
            h = self.table(tokens).transpose(1, 2)
            h = torch.relu(self.conv1(h))
            sides.append(torch.relu(self.conv2(h)).flatten(1))
        return torch.cat(sides, dim=1)


class MaskedLetter(nn.Module):
    def __init__(self, symbols):
        super().__init__()
        self.backbone = Backbone(symbols)
        self.head = ClassifierHead(2 * 64 * (CONTEXT - 4), symbols)

    def forward(self, left, right):
        return self.head(self.backbone(left, right))


def main():
    torch.manual_seed(9)
    text = load_text(90_000)
    alphabet = " abcdefghijklmnopqrstuvwxyz"
    codes = torch.tensor([alphabet.index(c) for c in text])
    grid = codes.unfold(0, 2 * CONTEXT + 1, 1)
    grid = grid[grid[:, CONTEXT] != 0]
    left, middle, right = grid[:, :CONTEXT], grid[:, CONTEXT], grid[:, CONTEXT + 1 :]
    cut = int(0.9 * len(grid))

    model = MaskedLetter(len(alphabet))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.05)
    for epoch in range(3):
        model.train()
        order = torch.randperm(cut)
        running = 0.0
        for step, rows in enumerate(order.split(64)):
            output = model(left[rows], right[rows])
            loss = criterion(output, middle[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            running += loss.item()
        model.eval()
        with torch.no_grad():
            guess = model(left[cut:], right[cut:]).argmax(1)
        acc = (guess == middle[cut:]).float().mean()
        print(f"epoch {epoch} train loss {running / (step + 1):.3f} validation accuracy {acc:.3f}")


main()
