"""activation-loss-mismatch: the loss expects logits, log-probabilities or probabilities and gets another of them."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from unstuck.evidence import Evidence
from unstuck.probes.objective import SOFTMAXES, Objective
from unstuck.problem import Problem
from unstuck.records import Figure
from unstuck.remedies.objective import log_probabilities, plain_bce, replace_call
from unstuck.remedies.remedy import Remedy
from unstuck.remedies.rewrite import drop_call
from unstuck.rules.rule import Rule, Suspicion
from unstuck.trace import Seen

BOUNDED = {"sigmoid": 0.96, "hardsigmoid": 0.96, "logsigmoid": 0.9, "tanh": 0.8, "hardtanh": 0.8, "relu6": 0.7,
           "softsign": 0.8, "relu": 0.6, "softplus": 0.5, "clamp": 0.6}  # fmt: skip
"""Activations that logits should not go through, with how sure it is that they do harm: a sigmoid leaves logits between
0 and 1 (a contract broken), a ReLU only takes the negative half."""
ONE_SIDED = frozenset({"relu", "softplus"})
ROOM = 10.0
"""Logits that can differ by this much can say 0.9999 (1 / (1 + e^-10)): a wide clamp or a scaled tanh does no harm."""
SURE = 0.9
CUTS = frozenset({"relu", "clamp", "clip", "clamp_", "relu6", "hardtanh"})


def judge(evidence: Evidence) -> Suspicion | None:
    """What the output is, by its values and by the call that made it, against what the criterion takes."""
    problem, objective = evidence.problem, evidence.objective
    assert problem is not None and objective is not None
    kind, ending = problem.criterion.kind, objective.ending
    if kind in {"bce_logits", "cross_entropy", "soft_margin", "multi_margin"} and ending is not None:
        return _logits_squashed(problem, objective, ending)
    if (
        kind in {"nll", "kl"}
        and problem.criterion.task in {"classes", "onehot"}
        and objective.axis in {None, objective.classes}
    ):
        return _no_log_probabilities(problem, objective)
    if kind == "bce" and ending is not None and ending.name in CUTS:
        return _cut_probabilities(evidence, problem, objective, ending)
    return None


def _logits_squashed(problem: Problem, objective: Objective, ending: Seen) -> Suspicion | None:
    name = ending.name.rstrip("_")
    softmax = name == "softmax" and problem.criterion.kind == "bce_logits"
    strength = 0.96 if softmax else BOUNDED.get(name, 0.0)
    roomy = objective.high - objective.low > ROOM and name not in ONE_SIDED
    if not strength or roomy:
        return None
    drop = drop_call(
        ending.key,
        "drop-activation",
        f"hand the loss the logits: leave out the {name} at {ending.where}",
        f"remove {ending.where}: the loss applies its own",
    )
    keep = (plain_bce(problem),) if name == "sigmoid" and problem.criterion.kind == "bce_logits" else ()
    return _suspicion(
        problem,
        objective,
        strength,
        ending.where,
        f"The loss takes logits, but {ending.where} has passed them through a {name}: they can no longer be large of "
        "either sign, and no prediction can be confident.",
        (drop, *keep),
    )


def _no_log_probabilities(problem: Problem, objective: Objective) -> Suspicion | None:
    if objective.form == "log-probabilities":
        return None
    ending = objective.ending
    if objective.form == "values" and ending is not None and ending.name in SOFTMAXES:
        return None  # normalized over another axis than the classes: softmax-over-one-output
    if objective.form == "probabilities" and ending is not None and ending.name == "softmax":
        dim = ending.kwargs.get("dim", ending.args[1] if len(ending.args) > 1 else objective.classes)
        remedy = replace_call(
            ending.key,
            lambda x: F.log_softmax(x, dim),
            "log-softmax",
            f"take the logarithm: log_softmax instead of softmax at {ending.where}",
            f"nn.LogSoftmax(dim={dim}) instead of nn.Softmax(dim={dim})",
        )
    else:
        remedy = log_probabilities(problem, objective.classes)
    what = "probabilities" if objective.form == "probabilities" else "raw outputs (their exponentials do not sum to 1)"
    return _suspicion(
        problem,
        objective,
        0.97,
        ending.where if ending is not None else problem.criterion.site.rsplit("/", 1)[-1],
        f"The loss takes log-probabilities and gets {what}: it can be lowered without end, or not at all, whatever is "
        "predicted.",
        (remedy,),
    )


def _cut_probabilities(evidence: Evidence, problem: Problem, objective: Objective, ending: Seen) -> Suspicion | None:
    anatomy = evidence.anatomy
    if anatomy is None or any(c.name in {"sigmoid", "softmax"} for c in anatomy.head):
        return None
    remedy = replace_call(
        ending.key,
        Tensor.sigmoid,
        "sigmoid",
        f"make probabilities with a sigmoid instead of the {ending.name} at {ending.where}",
        f"torch.sigmoid(...) instead of {ending.name}, or BCEWithLogitsLoss on the raw output",
    )
    return _suspicion(
        problem,
        objective,
        0.8,
        ending.where,
        f"The loss takes probabilities, and {ending.where} cuts raw outputs to fit: what is cut off gets no gradient.",
        (remedy,),
    )


def _suspicion(
    problem: Problem,
    objective: Objective,
    strength: float,
    where: str,
    summary: str,
    remedies: tuple[Remedy, ...],
) -> Suspicion:
    return Suspicion(
        cause="activation-loss-mismatch",
        strength=strength,
        where=where,
        summary=summary,
        evidence=(
            Figure("lowest value the output can take", objective.low, samples=objective.samples),
            Figure("highest value the output can take", objective.high, samples=objective.samples),
        ),
        remedies=remedies,
        fault=strength >= SURE and not problem.criterion.handwritten,
    )


RULE = Rule(
    cause="activation-loss-mismatch",
    lesson="Each loss takes one form of output: cross_entropy and binary_cross_entropy_with_logits take logits, "
    "nll_loss and kl_div log-probabilities, binary_cross_entropy probabilities. Another form is not refused, it is "
    "misread.",
    told_by="A sigmoid, softmax or tanh stands between the last layer and a loss on logits; or what reaches nll_loss "
    "has exponentials that do not sum to 1.",
    cures="Leave the activation out, take the logarithm, or use the loss that fits the activation.",
    needs=("objective",),
    judge=judge,
)
