"""Which of the optimizers that were seen trains this model, and its recipe.

A program may make several: one for each part of the model, one for another model, one that never steps. The recipe is
that of the one that steps and holds most of the model; others of its class that, like it, step after every backward are
taken into it, as further groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from unstuck.capture.seen import Seen
from unstuck.recipe import OptimizerRecipe, recipe_of


def optimizer_of(seen: Seen, names: Mapping[int, str]) -> tuple[Any, str]:
    """The optimizer of this model: the one that holds most of its trainable parameters, stepping ones first."""
    if not seen.optimizers:
        return None, ""

    def rank(entry: tuple[Any, str]) -> tuple[bool, int]:
        return seen.steps[id(entry[0])] > 0, _holds(entry[0], names)

    return max(reversed(seen.optimizers.values()), key=rank)


def _holds(optimizer: Any, names: Mapping[int, str]) -> int:
    return sum(id(p) in names and p.requires_grad for g in optimizer.param_groups for p in g["params"])


def together(seen: Seen, optimizer: Any, names: Mapping[int, str], line: str) -> OptimizerRecipe:
    """The recipe of an optimizer, with the groups of others of its class that step after every backward as it does."""
    recipe = _recipe(seen, optimizer, names, line)

    def always(other: Any) -> bool:
        return seen.steps[id(other)] >= 0.9 * seen.backwards > 0

    others = [o for o, _ in seen.optimizers.values() if o is not optimizer and type(o) is type(optimizer)]
    for other in others if always(optimizer) else ():
        if always(other) and _holds(other, names):
            more = _recipe(seen, other, names, line)
            recipe = replace(recipe, groups=recipe.groups + more.groups, state={**recipe.state, **more.state})
    return recipe


def _recipe(seen: Seen, optimizer: Any, names: Mapping[int, str], line: str) -> OptimizerRecipe:
    """The recipe, with the rates it was made with where the script changed them by hand (no `initial_lr` is left)."""
    recipe, made = recipe_of(optimizer, names, line), seen.made_lrs.get(id(optimizer), [])
    by_hand = len(set(seen.lrs)) > 1 and not any("initial_lr" in group for group in optimizer.param_groups)
    if not by_hand or len(made) != len(recipe.groups) or not all(isinstance(lr, float) and lr > 0 for lr in made):
        return recipe
    return replace(recipe, groups=tuple(({**h, "lr": lr}, n) for (h, n), lr in zip(recipe.groups, made, strict=True)))


def foreign(optimizer: Any, names: Mapping[int, str]) -> int:
    """Number of tensors the optimizer holds that are no parameters of the model."""
    held = [p for g in optimizer.param_groups for p in g["params"]] if optimizer is not None else []
    return sum(id(p) not in names for p in held)
