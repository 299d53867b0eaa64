"""Handwritten digits, 8 by 8, that come with scikit-learn: what the lecture's experiments train on.

    seen = digits(256, wrong=0.2)
    seen.x, seen.y, seen.others_x, seen.others_y
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

CLASSES, PIXELS, HELD = 10, 64, 773
"""Of the 1797 images so many are never trained on."""


class Digits(NamedTuple):
    """Training images [samples, 64] from 0 to 1 with labels [samples], and the others."""

    x: Tensor
    y: Tensor
    others_x: Tensor
    others_y: Tensor


def digits(samples: int, wrong: float = 0.0) -> Digits:
    """So many training images (1024 at most); of their labels the share `wrong` is drawn at random."""
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    generator = torch.Generator().manual_seed(0)
    pixels, labels = (torch.from_numpy(part) for part in load_digits(return_X_y=True))
    order = torch.randperm(len(pixels), generator=generator)
    x, y = (pixels / 16).float()[order], labels.long()[order]
    seen = y[HELD:][:samples].clone()
    drawn = torch.rand(len(seen), generator=generator) < wrong
    seen[drawn] = torch.randint(CLASSES, (int(drawn.sum()),), generator=generator)
    return Digits(x[HELD:][:samples], seen, x[:HELD], y[:HELD])
