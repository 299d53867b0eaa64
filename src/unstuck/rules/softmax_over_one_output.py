"""softmax-over-one-output: a softmax over a single unit is always 1; over the wrong axis it mixes samples."""

from __future__ import annotations

from dataclasses import replace

from unstuck.evidence import Evidence
from unstuck.probes.objective import SOFTMAXES, Objective, dimension
from unstuck.problem import Problem
from unstuck.records import Figure
from unstuck.remedies.objective import cross_entropy, replace_call, softmax_along
from unstuck.remedies.remedy import Remedy
from unstuck.remedies.rewrite import drop_call
from unstuck.rules.rule import Rule, Suspicion
from unstuck.trace import Seen


def judge(evidence: Evidence) -> Suspicion | None:
    """A softmax before (or inside) the criterion over one entry, or over another axis than the classes."""
    problem, objective, anatomy = evidence.problem, evidence.objective, evidence.anatomy
    assert problem is not None and objective is not None and anatomy is not None
    single = next((c for c in anatomy.head if c.name in SOFTMAXES and width(c) == 1), None)
    if single is not None:
        return _over_one(problem, objective, single)
    if anatomy.output is None:
        return None
    if problem.criterion.kind == "cross_entropy" and (
        problem.criterion.task == "binary" or anatomy.output.shape[objective.classes] == 1
    ):
        return _inside_the_loss(problem, objective, tuple(anatomy.output.shape))
    return _wrong_axis(problem, objective)


def width(call: Seen) -> int:
    """Number of entries that a softmax call normalizes over."""
    dim = dimension(call)
    if not isinstance(dim, int):  # PyTorch's implicit choice
        dim = 0 if call.output.dim() in (0, 1, 3) else 1
    return int(call.output.shape[dim]) if call.output.dim() else 1


def _over_one(problem: Problem, objective: Objective, call: Seen) -> Suspicion:
    probabilities = problem.criterion.kind in {"bce", "mse", "l1", "smooth_l1", "huber"}
    remedy = (
        replace_call(
            call.key,
            lambda x: x.sigmoid(),
            "sigmoid",
            f"use a sigmoid instead of the softmax at {call.where}",
            "nn.Sigmoid() instead of nn.Softmax(...)",
        )
        if probabilities
        else cross_entropy(problem, (call.key,))
    )
    return _suspicion(
        f"{call.where} is a softmax over a single output: whatever the network computes, the result is "
        f"{0 if call.name == 'log_softmax' else 1}, and no gradient comes back.",
        call.where,
        objective,
        1,
        (remedy,),
    )


def _inside_the_loss(problem: Problem, objective: Objective, shape: tuple[int, ...]) -> Suspicion:
    what = "over a single output" if len(shape) > 1 else "over the samples of the batch"
    remedies = (cross_entropy(problem),) if problem.criterion.task == "binary" else ()
    return _suspicion(
        f"The output has shape {list(shape)}, so the softmax inside cross-entropy runs {what}.",
        problem.criterion.site.rsplit("/", 1)[-1],
        objective,
        1 if len(shape) > 1 else shape[0],
        remedies,
    )


def _wrong_axis(problem: Problem, objective: Objective) -> Suspicion | None:
    call, ending = objective.softmax, objective.ending
    if call is None or ending is None or problem.criterion.task not in {"classes", "onehot"}:
        return None
    if objective.axis == objective.classes or not (ending is call or ending.name == "log"):
        return None
    right = objective.classes if problem.criterion.key and call.output.dim() > objective.classes else -1
    again = problem.criterion.kind == "cross_entropy"
    if call.output.dim() == 3 and objective.axis is None:
        right = -1  # flattened later: classes stood last
    remedy = (
        drop_call(call.key, "drop-softmax", f"leave out the {call.name} at {call.where}", f"remove {call.where}")
        if again
        else softmax_along(call.key, call.name, right)
    )
    # In batches like those it was trained on such a network may do well: what is wrong shows on a sample alone.
    remedy = replace(remedy, on="one by one") if objective.axis == 0 else remedy
    return _suspicion(
        f"{call.where} normalizes over another axis than the classes: an output depends on what else is in the batch, "
        "and its classes do not sum to 1.",
        call.where,
        objective,
        width(call),
        (remedy,),
    )


def _suspicion(summary: str, where: str, objective: Objective, entries: int, remedies: tuple[Remedy, ...]) -> Suspicion:
    return Suspicion(
        cause="softmax-over-one-output",
        strength=0.98,
        where=where,
        summary=summary,
        evidence=(
            Figure("entries the softmax runs over", float(entries), samples=objective.samples),
            Figure("dimension of the classes", float(objective.classes)),
        ),
        remedies=remedies,
        fault=True,
    )


RULE = Rule(
    cause="softmax-over-one-output",
    lesson="A softmax shares out one unit of probability along its axis. Over a single output that is always 1; over "
    "the batch the samples compete with each other instead of the classes.",
    told_by="The axis of the last softmax has one entry, or outputs do not sum to 1 over the classes.",
    cures="A sigmoid for one output (or BCEWithLogitsLoss); dim=1 or dim=-1 for the classes.",
    needs=("objective", "anatomy"),
    judge=judge,
)
