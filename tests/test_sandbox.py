"""What runs in the sandbox leaves every stream of random numbers as it was."""

import random

import numpy as np
import torch

from unstuck.sandbox import sandbox


def test_the_sandbox_leaves_every_stream_as_it_was():
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    wanted = (torch.rand(1).item(), random.random(), np.random.rand())
    torch.manual_seed(5), random.seed(5), np.random.seed(5)
    with sandbox(3):
        torch.rand(7), random.random(), np.random.rand(9)
    assert (torch.rand(1).item(), random.random(), np.random.rand()) == wanted
