"""Three trainings whose curvature is measured, each partly trained so that its spectrum is that of a real network.

    mlp            784-256-256-10 with LayerNorm, 10 000 images of Fashion-MNIST, batches of 300 (the last one of 100)
    resnet         a small ResNet, BatchNorm in eval mode, 2 000 images, batches of 300 (the last one of 200)
    transformer    1 M parameters, fused attention, sequences of characters of Python's own documentation

The loss is the mean cross-entropy over all samples. Seeded; the same bits on the same machine.
"""

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

import torch
from torch import nn
from torch.nn import functional

from unstuck import Problem

IMAGES = Path("/usr/share/datasets/fashion-mnist")
LENGTH = 16
SEQUENCES = 128
ALL_SEQUENCES = 2000


@dataclass(frozen=True)
class Case:
    """A model, its loss and the batches to average over. `every`: more batches, for the verdict on a saddle. `fused`:
    with fused attention."""

    name: str
    title: str
    model: nn.Module
    loss: nn.Module
    batches: tuple
    every: tuple
    fused: bool = False

    @property
    def size(self):
        return sum(p.numel() for p in self.model.parameters() if p.requires_grad)

    @property
    def samples(self):
        return sum(len(x) for x, _ in self.batches)

    @property
    def key(self):
        """What names this very problem: its parameters, buffers and data."""
        digest = hashlib.sha256()
        for tensor in (*self.model.state_dict().values(), *(t for batch in self.batches for t in batch)):
            digest.update(tensor.contiguous().numpy().tobytes())
        return f"{self.name}-{digest.hexdigest()[:16]}"

    def problem(self, batches=None):
        return Problem(self.model, self.loss, list(batches or self.batches))


class Block(nn.Module):
    """Attention and a two-layer network, each behind a LayerNorm."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mixed, self.joined = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.network = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.mixed(self.first(x)).chunk(3, dim=-1)
        )
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.joined(attended.transpose(1, 2).flatten(-2))
        return x + self.network(self.second(x))


class Transformer(nn.Module):
    """Characters [n, length] → scores of the next one [n, characters, length]."""

    def __init__(self, characters, width=128, heads=4, depth=5, length=LENGTH):
        super().__init__()
        self.embedding = nn.Embedding(characters, width)
        self.position = nn.Parameter(0.02 * torch.randn(length, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, characters)

    def forward(self, x):
        return self.head(self.norm(self.blocks(self.embedding(x) + self.position))).transpose(1, 2)


class Residual(nn.Module):
    """Two convolutions with BatchNorm beside a shortcut."""

    def __init__(self, inner, outer, stride):
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv2d(inner, outer, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outer),
            nn.ReLU(),
            nn.Conv2d(outer, outer, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outer),
        )
        self.shortcut = nn.Sequential(nn.Conv2d(inner, outer, 1, stride, bias=False), nn.BatchNorm2d(outer))

    def forward(self, x):
        return functional.relu(self.path(x) + self.shortcut(x))


def mlp():
    """(i): LayerNorm has no forward-over-reverse derivative that is right, ragged batches need weights."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(),
        nn.Linear(784, 256),
        nn.LayerNorm(256),
        nn.ReLU(),
        nn.Linear(256, 256),
        nn.LayerNorm(256),
        nn.ReLU(),
        nn.Linear(256, 10),
    )
    return _case("mlp", "MLP 784-256-256-10 with LayerNorm", model, fashion(10_000), epochs=2)


def resnet():
    """(ii)"""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        Residual(8, 16, 2),
        Residual(16, 32, 2),
        Residual(32, 64, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )
    return _case("resnet", "ResNet, BatchNorm in eval mode", model, fashion(2_000), epochs=4)


def transformer():
    """(iii): fused attention has no second derivative."""
    torch.manual_seed(0)
    texts, characters = text(ALL_SEQUENCES)
    model = Transformer(characters)
    return _case("transformer", "transformer, fused attention", model, texts, epochs=3, rate=1e-3, batch=100)


def small(width=27):
    """A network of some 2 400 parameters, whose Hessian fits in memory as a matrix."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(49, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 10))
    images, labels = fashion(500)
    pooled = functional.avg_pool2d(images, 4).flatten(1)
    return _case("small", "MLP 49-27-27-10", model, (pooled, labels), epochs=5)


CASES = {"mlp": mlp, "resnet": resnet, "transformer": transformer}


def fashion(count):
    """The first images [count, 1, 28, 28] with their labels."""
    pixels = gzip.decompress((IMAGES / "train-images-idx3-ubyte.gz").read_bytes())[16:]
    labels = gzip.decompress((IMAGES / "train-labels-idx1-ubyte.gz").read_bytes())[8:]
    images = torch.frombuffer(bytearray(pixels), dtype=torch.uint8)[: count * 784].reshape(count, 1, 28, 28)
    return (images / 255.0 - 0.29) / 0.35, torch.frombuffer(bytearray(labels), dtype=torch.uint8)[:count].long()


def text(count):
    """`count` sequences of characters with their successors, and the number of different characters."""
    whole = "".join(topics[key] for key in sorted(topics))
    places = {character: place for place, character in enumerate(sorted(set(whole)))}
    codes = torch.tensor([places[character] for character in whole])
    starts = torch.randint(len(codes) - LENGTH - 1, (count,), generator=torch.Generator().manual_seed(0))
    windows = torch.stack([codes[start : start + LENGTH + 1] for start in starts.tolist()])
    return (windows[:, :-1].contiguous(), windows[:, 1:].contiguous()), len(places)


def _case(name, title, model, data, epochs, rate=2e-3, batch=300):
    inputs, targets = data
    loss = nn.CrossEntropyLoss()
    _train(model, loss, inputs, targets, epochs, rate)
    every = tuple(zip(inputs.split(batch), targets.split(batch), strict=True))
    count = SEQUENCES if name == "transformer" else len(inputs)
    batches = tuple(zip(inputs[:count].split(batch), targets[:count].split(batch), strict=True))
    return Case(name, title, model.eval(), loss, batches, every, fused=name == "transformer")


def _train(model, loss, inputs, targets, epochs, rate):
    optimizer = torch.optim.Adam(model.parameters(), rate)
    order = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for places in torch.randperm(len(inputs), generator=order).split(100):
            optimizer.zero_grad()
            loss(model(inputs[places]), targets[places]).backward()
            optimizer.step()
