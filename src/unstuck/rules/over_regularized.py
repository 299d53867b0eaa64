"""over-regularized: dropout or noise keeps the training loss up; turning it down releases it."""

from __future__ import annotations

from typing import Any

from torch import nn

from unstuck.evidence import Evidence
from unstuck.probes.level import Level
from unstuck.problem import Problem
from unstuck.records import Figure
from unstuck.remedies.regularization import DROPOUTS, NOISES, drop_dropout, drop_noise, turn_down_input_noise
from unstuck.rewriting import CallKey
from unstuck.rules.rule import Rule, Suspicion
from unstuck.trace import Seen, Trace

STRONG = 0.6
"""Dropout from which a network is starved: 0.5 is the strongest in common use (Srivastava et al. 2014 *keep* 0.5 to 0.8
of the hidden units and 0.8 of the inputs)."""

NOISE = 0.3
RELEASED = 0.1
"""Accuracy that a linear reference gains when the inputs' noise is averaged out, from which it hides something."""

LIFTED = 1.3
"""Training-mode loss over evaluation-mode loss from which noise inside the model keeps it up (dropout of 0.25
to 0.5: 1.1 to 1.2 measured on Fashion-MNIST)."""


def judge(evidence: Evidence) -> Suspicion | None:
    """Strong dropout, noise that the model adds in training mode, or noise on the inputs that hides what is in them."""
    return _input_noise(evidence) or _dropout(evidence) or _inner_noise(evidence)


def _dropout(evidence: Evidence) -> Suspicion | None:
    assert evidence.anatomy is not None and evidence.level is not None and evidence.problem is not None
    calls = [(c, share) for c in evidence.anatomy.trace.ancestors if (share := dropped(c)) > 0]
    inner = _inside(evidence.problem)
    worst, where = max([*((share, c.where) for c, share in calls), inner], key=lambda pair: pair[0])
    if worst < STRONG:
        return None
    keys = tuple(call.key for call, _ in calls)
    return Suspicion(
        "over-regularized",
        min(0.95, 0.5 + 0.45 * (worst - STRONG) / 0.3),
        where,
        f"Dropout of {worst:.0%} at {where} leaves the network too little to work with: the training loss is "
        f"{evidence.level.train_mode.loss:.3g} with it and {evidence.level.train.loss:.3g} without.",
        (Figure("dropout", worst), Figure("dropout calls", float(len(keys))), *_losses(evidence.level)),
        (drop_dropout(evidence.problem, keys, worst, where),),
    )


def dropped(call: Seen) -> float:
    """Share that a dropout call drops while training; 0 for any other call."""
    if call.name not in DROPOUTS:
        return 0.0
    share = call.args[1] if len(call.args) > 1 else call.kwargs.get("p", 0.5)
    training = call.args[2] if len(call.args) > 2 else call.kwargs.get("training", True)
    return float(share) if training else 0.0


def _inside(problem: Problem) -> tuple[float, str]:
    """The strongest dropout inside recurrent and attention layers."""
    found = [(0.0, "")]
    for name, module in problem.model.named_modules():
        layered = isinstance(module, nn.MultiheadAttention) or getattr(module, "num_layers", 1) > 1
        share: Any = getattr(module, "dropout", 0.0)
        if isinstance(module, (nn.RNNBase, nn.MultiheadAttention)) and layered and module.training:
            found.append((float(share), f"{name} ({type(module).__name__})"))
    return max(found)


def _inner_noise(evidence: Evidence) -> Suspicion | None:
    level, anatomy = evidence.level, evidence.anatomy
    assert anatomy is not None and level is not None
    keys = noise_calls(anatomy.trace)
    if not keys or not level.train_mode.loss > LIFTED * level.train.loss or level.train.loss <= 0:
        return None
    where = next(c.where for c in anatomy.trace.calls if c.key == keys[0])
    return Suspicion(
        "over-regularized",
        0.7,
        where,
        f"The noise that {where} adds while training keeps the loss at {level.train_mode.loss:.3g}; without it "
        f"the same weights have {level.train.loss:.3g}.",
        (Figure("noise calls", float(len(keys))), *_losses(level)),
        (drop_noise(keys, where),),
    )


def noise_calls(trace: Trace) -> tuple[CallKey, ...]:
    """Calls that draw random numbers on the way to the loss."""
    return tuple(call.key for call in trace.ancestors if call.name in NOISES)


def _input_noise(evidence: Evidence) -> Suspicion | None:
    redraw, problem = evidence.redraw, evidence.problem
    assert problem is not None
    if redraw is None or redraw.noise < NOISE or not redraw.averaged > redraw.once + RELEASED:
        return None
    return Suspicion(
        "over-regularized",
        0.9,
        f"the inputs of {problem.model_name}",
        f"{redraw.noise:.0%} of the inputs' variance is noise, drawn anew each time: on averages of {redraw.draws}, "
        f"a linear model reads {redraw.averaged:.0%} of other samples right instead of {redraw.once:.0%}.",
        (
            Figure("share of the inputs' variance that changes between draws", redraw.noise, samples=redraw.samples),
            Figure("held-out accuracy of a linear model on single draws", redraw.once, samples=redraw.samples // 4),
            Figure("the same on averaged draws", redraw.averaged, samples=redraw.samples // 4),
        ),
        (turn_down_input_noise(problem),),
    )


def _losses(level: Level) -> tuple[Figure, ...]:
    return (
        Figure("loss on training batches, as it trains", level.train_mode.loss, samples=level.train_mode.samples),
        Figure("the same with dropout and noise off", level.train.loss, samples=level.train.samples),
    )


RULE = Rule(
    cause="over-regularized",
    lesson="Dropout and noise make a network robust by hiding something from it at every step. Too much hides what "
    "there is to learn, and the training loss stays up although network and step are sound.",
    told_by="Dropout above 0.6; noise in the model that lifts the training loss far above that in evaluation mode; "
    "or input noise after whose averaging a linear model reads much more.",
    cures="Less dropout, less noise, milder augmentation.",
    needs=("level", "anatomy"),
    judge=judge,
)
