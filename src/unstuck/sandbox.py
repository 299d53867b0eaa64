"""A sandbox for random numbers: what runs inside leaves every stream as it was.

Probes draw, train and shuffle copies in the midst of the user's training; afterwards the generators of Python, NumPy
and torch stand where they stood, and so does the grad mode. `reseed` sets the three to a seed of ours.

    with sandbox(0):
        torch.rand(3)      # the same three numbers every time, and the user's next draw is not changed by them
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def sandbox(seed: int | None = None) -> Iterator[None]:
    """Run without a trace: RNG states (Python, NumPy, torch, every device) and grad mode are as before afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        try:
            if seed is not None:
                reseed(seed)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def reseed(seed: int) -> None:
    """Seed Python, NumPy and torch (its generators, as `torch.manual_seed` takes a millisecond to note its caller)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    reseed_torch(seed)


def reseed_torch(seed: int) -> None:
    """Seed torch's generators alone, on the CPU and on GPUs."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed_all(seed)
