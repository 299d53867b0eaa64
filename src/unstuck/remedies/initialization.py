"""A sound initialization: PyTorch's own for each layer, He or Glorot by the activation for loose weights."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from unstuck.problem import Problem, sandbox
from unstuck.remedies.remedy import Remedy


def reinitialize(problem: Problem) -> Remedy:
    """He-uniform weights and zero biases in every linear and convolutional layer; other layers reset themselves."""
    return Remedy(
        "reinitialize",
        "initialize the weights by He's rule, biases at zero",
        f"{problem.model_name}.apply(lambda m: nn.init.kaiming_normal_(m.weight) "
        "if isinstance(m, (nn.Linear, nn.Conv2d)) else None)",
        _fresh,
    )


def _fresh(problem: Problem) -> Problem:
    model = problem.twin()
    with sandbox(problem.seed), torch.no_grad():
        for module in model.modules():
            _reset(module)
    return replace(problem, model=model)


def _reset(module: nn.Module) -> None:
    reset = getattr(module, "reset_parameters", None)
    if callable(reset):
        reset()
    if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
