"""One training for `overhead.py`, in plain PyTorch as a user writes it: `overhead_training.py mlp|cnn|transformer`.

Times its own loop and prints, as its last line, JSON: seconds of wall and CPU time of the loop, and hashes of the final
state (parameters, buffers, optimizer, random-number generators) and of every loss.
"""

import argparse
import hashlib
import json
import random
import time
from pydoc_data.topics import topics

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def digits():
    data = load_digits()
    return torch.tensor(data.images, dtype=torch.float32) / 16, torch.tensor(data.target)


def mlp():
    """A step well under a millisecond: where each microsecond of watching counts."""
    images, labels = digits()
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def batches():
        while True:
            for rows in torch.randperm(len(labels)).split(64):
                yield images[rows], labels[rows]

    return model, optimizer, batches(), nn.functional.cross_entropy


def cnn():
    """BatchNorm, dropout, a shuffled loader and Adam: all that watching could disturb."""
    images, labels = digits()
    loader = DataLoader(TensorDataset(images.unsqueeze(1), labels), batch_size=64, shuffle=True)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(32 * 16, 10),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def batches():
        while True:
            yield from loader

    return model, optimizer, batches(), nn.functional.cross_entropy


class CharTransformer(nn.Module):
    def __init__(self, symbols, width=64, length=32):
        super().__init__()
        self.symbol = nn.Embedding(symbols, width)
        self.position = nn.Parameter(0.02 * torch.randn(length, width))
        layer = nn.TransformerEncoderLayer(width, nhead=4, dim_feedforward=4 * width, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, num_layers=2)
        self.head = nn.Linear(width, symbols)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(length))

    def forward(self, symbols):
        return self.head(self.layers(self.symbol(symbols) + self.position, mask=self.mask, is_causal=True))


def transformer():
    """Next character on the Python documentation that ships with Python; AdamW and dropout."""
    text = "".join(topics[key] for key in sorted(topics))[:100_000]
    alphabet = sorted(set(text))
    data = torch.tensor([alphabet.index(symbol) for symbol in text])
    model = CharTransformer(len(alphabet))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def batches():
        while True:
            starts = torch.randint(len(data) - 33, (16,)).tolist()
            rows = torch.stack([data[start : start + 33] for start in starts])
            yield rows[:, :-1], rows[:, 1:]

    return model, optimizer, batches(), lambda logits, y: nn.functional.cross_entropy(logits.flatten(0, 1), y.flatten())


TRAININGS = {"mlp": (mlp, 72_000), "cnn": (cnn, 3_300), "transformer": (transformer, 1_000)}


def train(model, optimizer, batches, criterion, steps):
    losses = []
    model.train()
    for _, (x, y) in zip(range(steps), batches, strict=False):
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def add(digest, value):
    """Feed a nest of tensors, containers and plain values to a hash."""
    if isinstance(value, torch.Tensor):
        digest.update(str(value.dtype).encode() + value.detach().contiguous().numpy().tobytes())
    elif isinstance(value, np.ndarray):
        digest.update(value.tobytes())
    elif isinstance(value, dict):
        for key in value:
            digest.update(str(key).encode())
            add(digest, value[key])
    elif isinstance(value, (list, tuple)):
        for item in value:
            add(digest, item)
    else:
        digest.update(repr(value).encode())


def hash_of(*values):
    digest = hashlib.sha256()
    add(digest, values)
    return digest.hexdigest()[:16]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=TRAININGS)
    parser.add_argument("--steps", type=int, help="another number of steps than the default")
    args = parser.parse_args()
    setup, steps = TRAININGS[args.name]
    steps = args.steps or steps

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    model, optimizer, batches, criterion = setup()
    wall, cpu = time.perf_counter(), time.process_time()
    losses = train(model, optimizer, batches, criterion, steps)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu

    generators = random.getstate(), np.random.get_state(), torch.get_rng_state()
    gradients = [parameter.grad for parameter in model.parameters()]
    state = hash_of(dict(model.state_dict()), gradients, optimizer.state_dict(), generators)
    print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    print(json.dumps({"wall_s": wall, "cpu_s": cpu, "steps": steps, "state": state, "losses": hash_of(losses)}))


if __name__ == "__main__":
    main()
