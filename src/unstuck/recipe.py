"""The optimizer as data: its class, its groups by the names of their parameters, and its recorded state.

    recipe = recipe_of(optimizer, {id(p): n for n, p in model.named_parameters()})
    recipe.scaled(0.1).build(copy_of_model)      # a fresh optimizer of the same kind, over the copy

A recipe holds no parameter and no live optimizer: remedies change it (`scaled`, `with_options`, `using`), and each
training makes its own optimizer of it. `build` begins without the state; `load_optimizer` gives that back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class OptimizerRecipe:
    """How to make the user's optimizer again: class, groups (hyperparameters and parameter names), state by name."""

    cls: type[torch.optim.Optimizer]
    groups: tuple[tuple[Mapping[str, Any], tuple[str, ...]], ...]
    state: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    site: str = ""

    @property
    def lr(self) -> float:
        """Learning rate of the first group."""
        return float(self.groups[0][0].get("lr", 0.0))

    def with_options(self, **options: Any) -> OptimizerRecipe:
        """The same recipe with hyperparameters of every group replaced."""
        return replace(self, groups=tuple(({**hyper, **options}, names) for hyper, names in self.groups))

    def scaled(self, factor: float) -> OptimizerRecipe:
        """The same recipe with every group's learning rate times `factor`."""
        groups = tuple(({**hyper, "lr": float(hyper["lr"]) * factor}, names) for hyper, names in self.groups)
        return replace(self, groups=groups)

    def using(self, cls: type[torch.optim.Optimizer], **options: Any) -> OptimizerRecipe:
        """Another optimizer over the same parameters, its options from its defaults and `options`."""
        return OptimizerRecipe(cls, tuple((options, names) for _, names in self.groups), {}, self.site)

    def build(self, model: nn.Module) -> torch.optim.Optimizer:
        """A fresh optimizer over `model`'s parameters of these names (names the model lacks are left out)."""
        own = dict(model.named_parameters())
        groups = [
            {"params": [own[n] for n in names if n in own], **_accepted(self.cls, hyper)}
            for hyper, names in self.groups
        ]
        groups = [group for group in groups if group["params"]] or [{"params": [nn.Parameter(torch.zeros(1))]}]
        required = {k: v for k, v in groups[0].items() if k != "params" and k in _required(self.cls)}
        return self.cls(groups, **required)


def recipe_of(optimizer: torch.optim.Optimizer, names: Mapping[int, str], site: str = "") -> OptimizerRecipe:
    """The recipe of a live optimizer, with the rates a scheduler began from; unknown parameters are left out."""
    groups = tuple(
        (
            {k: v for k, v in group.items() if k != "params"} | _begun(group),
            tuple(names[id(p)] for p in group["params"] if id(p) in names),
        )
        for group in optimizer.param_groups
    )
    state = {
        names[id(p)]: {k: v.detach().clone() if isinstance(v, Tensor) else v for k, v in entry.items()}
        for p, entry in optimizer.state.items()
        if id(p) in names
    }
    return OptimizerRecipe(type(optimizer), groups, state, site)


def load_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, recipe: OptimizerRecipe) -> None:
    """Give an optimizer the recipe's state (moments, sums, step counts), parameter by parameter."""
    own = dict(model.named_parameters())
    for name, entry in recipe.state.items():
        if name in own:
            optimizer.state[own[name]] = {k: v.clone() if isinstance(v, Tensor) else v for k, v in entry.items()}


def _begun(group: Mapping[str, Any]) -> dict[str, float]:
    return {"lr": float(group["initial_lr"])} if "initial_lr" in group and "lr" in group else {}


def _accepted(cls: type, hyper: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in hyper.items() if k not in {"initial_lr", "params", "param_names"}}


CONSTRUCTED = {"initial_accumulator_value"}
"""Options of which torch's classes take the constructor's value, whatever a group says."""


def _required(cls: type) -> set[str]:
    import inspect

    parameters = list(inspect.signature(cls).parameters.values())[1:]
    return {p.name for p in parameters if p.default is inspect.Parameter.empty or p.name in CONSTRUCTED}
