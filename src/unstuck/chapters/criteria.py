"""The losses that race in the chapter on the loss: cross-entropy and squared error, in the place of the present one.

    cases = lineup(problem, anatomy, site, loss)      # [("the present loss", problem), ("cross-entropy", …), …]

Both take logits: what stands between these and the present loss (a softmax, a logarithm) is left out. They keep the
present call's reduction and its ignored label.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from unstuck.errors import NotMeasurable
from unstuck.probes.anatomy import Anatomy
from unstuck.probes.logits import Site
from unstuck.probes.loss import Loss
from unstuck.probes.task import Task
from unstuck.problem import Problem
from unstuck.remedies.objective import with_loss
from unstuck.remedies.rewrite import leave_out

CROSS, PRESENT = "cross-entropy", "the present loss"
TINY = 1e-6


def lineup(problem: Problem, seen: Anatomy, site: Site, loss: Loss) -> list[tuple[str, Problem]]:
    """The present loss, and cross-entropy and squared error where they are another. Raises NotMeasurable."""
    states = [state for state in (loss.start, loss.end) if state is not None]
    if problem.criterion.handwritten and any(state.unweighed for state in states):
        raise NotMeasurable("the loss is written by hand and leaves out some labels: no other one can take its place")
    own = own_name(loss)
    others = [(CROSS, _cross_entropy), (squared(loss.task), _squared_error)]
    missing = [(name, _with(problem, seen, site, each)) for name, each in others if not own.startswith(name)]
    return [(own, problem), *missing]


def squared(task: Task) -> str:
    """What squared error is called: of which probabilities it is one has to be said, as the present loss may be another
    one (on a sigmoid for each of several classes)."""
    return "squared error on a softmax" if task.classes else "squared error on sigmoids"


def own_name(loss: Loss) -> str:
    """What the present loss is called."""
    known = {"cross-entropy": CROSS, "squared error": squared(loss.task)}
    return f"{known[loss.same_as]} ({PRESENT})" if loss.same_as else PRESENT


Each = Callable[[Tensor, Tensor, Site, bool], Tensor]
"""Loss of each row: logits [n, classes], labels or distributions, whether they are labels."""


def _with(problem: Problem, seen: Anatomy, site: Site, each: Each) -> Problem:
    """The problem with this loss on its logits, with the reduction and the ignored label of the call it replaces."""
    assert seen.criterion is not None and seen.output is not None
    options = {} if problem.criterion.handwritten else seen.criterion.kwargs
    reduction, ignored = options.get("reduction", "mean"), options.get("ignore_index", -100)
    logarithms = options.get("log_target", False)
    labelled = problem.criterion.task == "classes"
    entrywise = getattr(seen.criterion.output, "shape", None) == seen.output.shape  # a loss that is not reduced

    def function(output: Tensor, target: Tensor) -> Tensor:
        moved = output.movedim(site.axis, -1) if site.link == "softmax" else output.unsqueeze(-1)
        rows = moved.reshape(-1, moved.shape[-1])
        z = _unsquashed(rows, site)
        if labelled:
            known = (target.flatten() != ignored) & (target.flatten() >= 0)
            losses = each(z, target.flatten().clamp_min(0)[:, None], site, True) * known
            count = known.sum().clamp_min(1)
        else:
            aligned = target.movedim(site.axis, -1) if site.link == "softmax" else target
            t = aligned.reshape(rows.shape).to(z)
            losses, count = each(z, t.exp() if logarithms else t, site, False), len(rows)
        shaped: Tensor = losses.view(moved.shape[:-1])
        if reduction == "none":
            wide = shaped.unsqueeze(-1).expand(moved.shape).movedim(-1, site.axis)
            return wide if entrywise and site.link == "softmax" else shaped
        return shaped.sum() if reduction == "sum" else shaped.sum() / count

    kinds = {"softmax": "cross_entropy", "sigmoid": "bce" if site.form == "probabilities" else "bce_logits"}
    return with_loss(problem, function, kinds[site.link], {call.key: leave_out for call in site.between})


def _unsquashed(rows: Tensor, site: Site) -> Tensor:
    """Logits, where the output is probabilities that nothing known was applied to."""
    if site.form != "probabilities":
        return rows
    p = rows.clamp(TINY, 1 - TINY)
    return p.log() if site.link == "softmax" else p.log() - (-p).log1p()


def _cross_entropy(z: Tensor, t: Tensor, site: Site, labelled: bool) -> Tensor:
    """−log p of the label, or −Σ t log p; for labels on their own their binary cross-entropy."""
    if site.link == "sigmoid":
        return F.binary_cross_entropy_with_logits(z, t, reduction="none")[:, 0]
    logs = z.log_softmax(1)
    return -logs.gather(1, t)[:, 0] if labelled else -(logs * t).sum(1)


def _squared_error(z: Tensor, t: Tensor, site: Site, labelled: bool) -> Tensor:
    """Mean over the classes of (p − t)², of a label (Σ p² − 2 p_y + 1) / C; for labels on their own (p − t)²."""
    if site.link == "sigmoid":
        return (z.sigmoid() - t).square()[:, 0]
    p = z.softmax(1)
    return (p.square().sum(1) - 2 * p.gather(1, t)[:, 0] + 1) / p.shape[1] if labelled else (p - t).square().mean(1)
