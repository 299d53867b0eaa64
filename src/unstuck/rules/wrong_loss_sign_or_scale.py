"""wrong-loss-sign-or-scale: the loss is maximised, or scaled so that the step is off by orders of magnitude."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from unstuck.evidence import Evidence
from unstuck.probes.objective import Objective
from unstuck.problem import Problem
from unstuck.records import Figure
from unstuck.remedies.objective import rescale_loss
from unstuck.remedies.remedy import Remedy
from unstuck.rules.rule import Rule, Suspicion

OFF = 16.0
"""A factor on the loss is a factor on the step. Recommended learning rates span about one order of magnitude (Bengio
2012, section 3.1.1), so a smaller factor than this can still be a choice."""

WHOLE = 0.9
"""From this part of the loss on the criterion is the objective, and not one term of several."""

PLAIN = (torch.optim.SGD, torch.optim.ASGD)
"""Optimizers whose step grows with the gradient. Adaptive ones divide the factor out again."""


def judge(evidence: Evidence) -> Suspicion | None:
    """The factor with which the criterion's mean enters the loss, by its gradient (Euler's theorem)."""
    objective, problem = evidence.objective, evidence.problem
    assert objective is not None and problem is not None
    recipe = problem.optimizer
    scale = objective.scale * problem.loop.accumulate
    if not math.isfinite(scale) or recipe is None:
        return None
    maximize = bool(recipe.groups[0][0].get("maximize", False)) if recipe.groups else False
    if (scale < 0) != maximize:
        return _climbs(evidence, problem, objective, maximize)
    if 1 / OFF < abs(scale) < OFF or not issubclass(recipe.cls, PLAIN):
        return None
    return Suspicion(
        cause="wrong-loss-sign-or-scale",
        # Never sure by itself: a rate may have been chosen to suit the scale.
        strength=min(0.85, 0.75 + 0.05 * abs(math.log10(max(abs(scale), 1e-300)))),
        where=_line(problem),
        summary=f"The loss is {abs(scale):.2g} times the mean of the criterion, and so is each step that "
        f"{recipe.cls.__name__} makes.",
        evidence=(
            Figure("loss as a multiple of the criterion's mean", scale, samples=objective.samples),
            Figure("learning rate", recipe.lr),
        ),
        remedies=(rescale_loss(problem, objective.scale),),
    )


def _climbs(evidence: Evidence, problem: Problem, objective: Objective, maximize: bool) -> Suspicion:
    scale = objective.scale
    history = evidence.history
    trend = (Figure("loss at the start", history.first), Figure("loss at the end", history.last)) if history else ()
    return Suspicion(
        cause="wrong-loss-sign-or-scale",
        strength=0.97,
        where=_line(problem),
        summary="The training climbs: "
        + ("the optimizer maximises the loss" if maximize else "the loss is the criterion with a minus before it")
        + ", so every step makes the predictions worse.",
        evidence=(Figure("loss as a multiple of the criterion's mean", scale), *trend),
        remedies=(_descend(problem) if maximize else rescale_loss(problem, scale),),
        # Two players may well climb against each other, and a term may be there to be pushed away from.
        fault=problem.loop.optimizers <= 1 and not objective.part < WHOLE,
    )


def _line(problem: Problem) -> str:
    return (problem.loop.loss_site or problem.criterion.site).rsplit("/", 1)[-1]


def _descend(problem: Problem) -> Remedy:
    def apply(p: Problem) -> Problem:
        assert p.optimizer is not None
        return replace(p, optimizer=p.optimizer.with_options(maximize=False))

    return Remedy("minimise", "let the optimizer minimise", "optimizer without maximize=True", apply)


RULE = Rule(
    cause="wrong-loss-sign-or-scale",
    lesson="A step goes against the gradient of what backward() is called on. A minus too many makes it climb; a sum "
    "instead of a mean, or a division too many, multiplies every step of SGD by that factor.",
    told_by="The gradient of the loss with respect to the criterion: 1 for its mean, negative where it is maximised.",
    cures="Leave the minus out; reduction='mean'; divide once.",
    needs=("objective",),
    judge=judge,
)
