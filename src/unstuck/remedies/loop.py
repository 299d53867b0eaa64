"""Changes to the training loop: clear gradients, step, hold what the optimizer misses, unfreeze, train mode, attach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from unstuck.errors import BadArgument
from unstuck.problem import Problem
from unstuck.recipe import OptimizerRecipe
from unstuck.remedies.remedy import Remedy
from unstuck.remedies.rewrite import leave_out, rewritten
from unstuck.rewriting import CallKey


def clear_gradients() -> Remedy:
    """Gradients are cleared after every step."""
    return Remedy(
        "clear-gradients",
        "clear the gradients before each backward pass",
        "optimizer.zero_grad()  # once per step, before loss.backward()",
        lambda p: replace(p, loop=replace(p.loop, uncleared=0.0, kept=())),
    )


def step_every_time() -> Remedy:
    """The optimizer (the user's; Adam at 1e-3 over all parameters where none was made) steps after each backward."""
    return Remedy(
        "step-optimizer",
        "let the optimizer step after each backward pass",
        "optimizer.step()  # after loss.backward()",
        _stepping,
    )


def make_once(places: str) -> Remedy:
    """Layers are made in `__init__`. Said, not tried: its `apply` raises BadArgument."""

    def apply(p: Problem) -> Problem:
        raise BadArgument("make_once: the user's forward pass cannot be rewritten on a copy")

    code = "self.layer = nn.Linear(...)  # in __init__, and use self.layer in forward"
    return Remedy("make-layers-once", f"make the layers of {places} once, before the optimizer", code, apply)


def hold(names: Sequence[str], code: str) -> Remedy:
    """The optimizer's first group also holds the parameters of these names."""
    return Remedy(
        "hold-parameters",
        f"hand the optimizer the {len(names)} parameters it lacks",
        code,
        lambda p: replace(p, optimizer=holding(p, names)),
    )


def holding(problem: Problem, names: Sequence[str]) -> OptimizerRecipe:
    """The problem's recipe with these parameters added to its first group."""
    recipe: OptimizerRecipe | None = problem.optimizer
    if recipe is None:
        return OptimizerRecipe(torch.optim.Adam, (({"lr": 1e-3}, tuple(names)),))
    (hyper, own), *rest = recipe.groups
    return replace(recipe, groups=((hyper, own + tuple(n for n in names if n not in own)), *rest))


def unfreeze(names: Sequence[str], model_name: str) -> Remedy:
    """The parameters of these names require gradients."""

    def apply(p: Problem) -> Problem:
        model = p.twin()
        for name in names:
            model.get_parameter(name).requires_grad_(True)
        return replace(p, model=model)

    return Remedy(
        "unfreeze",
        f"let gradients reach the {len(names)} frozen parameters",
        f"for p in {model_name}.parameters(): p.requires_grad_(True)",
        apply,
    )


def train_mode(model_name: str) -> Remedy:
    """Every module is in train mode while the loop trains."""
    return Remedy(
        "train-mode",
        "put the model in train mode before training (again after each validation)",
        f"{model_name}.train()",
        lambda p: replace(p, loop=replace(p.loop, eval_share=0.0, training=_trained(p, all_modules(p)))),
    )


def attach(keys: Sequence[CallKey], text: str, code: str) -> Remedy:
    """The calls that cut the graph are left out, and the loss is the one made of tensors.

    Its `apply` raises BadArgument where there is no such call: what left torch for NumPy cannot be followed.
    """

    def apply(p: Problem) -> Problem:
        if not keys and not p.loop.detached:
            raise BadArgument("attach: values that were computed outside of torch cannot be given a graph on a copy")
        return rewritten(replace(p, loop=replace(p.loop, detached="")), dict.fromkeys(keys, leave_out))

    return Remedy("attach-graph", text, code, apply)


def all_modules(problem: Problem) -> list[str]:
    """Names of all modules of the model."""
    return [name for name, _ in problem.model.named_modules()]


def _trained(problem: Problem, names: Sequence[str]) -> dict[str, bool]:
    return {**problem.loop.training, **dict.fromkeys(names, True)}


def _stepping(problem: Problem) -> Problem:
    loop = replace(problem.loop, stepping=True, accumulate=1, discarded=0.0)
    if problem.optimizer is not None:
        return replace(problem, loop=loop)
    names = [name for name, p in problem.model.named_parameters() if p.requires_grad]
    return replace(problem, loop=loop, optimizer=holding(problem, names))
