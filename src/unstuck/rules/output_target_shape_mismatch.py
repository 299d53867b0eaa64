"""output-target-shape-mismatch: [N] against [N, 1] are broadcast to [N, N], every prediction against every target."""

from __future__ import annotations

from torch import Tensor

from unstuck.evidence import Evidence
from unstuck.records import Figure
from unstuck.remedies.objective import match_shapes
from unstuck.rules.rule import Rule, Suspicion

PAIRED = frozenset({"mse", "l1", "smooth_l1", "huber", "nll", "bce", "bce_logits"})


def judge(evidence: Evidence) -> Suspicion | None:
    """Output and target hold the same entries in shapes of different rank, and compare to more entries than either."""
    anatomy, problem = evidence.anatomy, evidence.problem
    assert anatomy is not None and problem is not None
    output, target = anatomy.output, anatomy.target
    if problem.criterion.kind not in PAIRED or not isinstance(output, Tensor) or not isinstance(target, Tensor):
        return None
    pairs = _compared(tuple(output.shape), tuple(target.shape))
    # Same rank is how pairs are made on purpose: x[:, None] - y[None, :].
    if output.numel() != target.numel() or output.dim() == target.dim() or pairs <= output.numel():
        return None
    return Suspicion(
        cause="output-target-shape-mismatch",
        strength=0.99,
        where=problem.criterion.site.rsplit("/", 1)[-1],
        summary=f"The output has shape {list(output.shape)} and the target {list(target.shape)}: the loss compares "
        "every prediction with every target, and is lowest where all predictions are the same.",
        evidence=(
            Figure("predictions", float(output.numel()), samples=len(output)),
            Figure("pairs compared", float(pairs), samples=len(output)),
        ),
        remedies=(match_shapes(problem, tuple(output.shape), tuple(target.shape)),),
        fault=True,
    )


def _compared(first: tuple[int, ...], second: tuple[int, ...]) -> int:
    """Number of entries after broadcasting; 0 where the shapes cannot be broadcast."""
    rank = max(len(first), len(second))
    first, second = (1,) * (rank - len(first)) + first, (1,) * (rank - len(second)) + second
    entries = 1
    for a, b in zip(first, second, strict=True):
        if a != b and 1 not in (a, b):
            return 0
        entries *= max(a, b)
    return entries


RULE = Rule(
    cause="output-target-shape-mismatch",
    lesson="Arithmetic between [N] and [N, 1] broadcasts to [N, N]. A loss over these pairs is lowest when every "
    "prediction is the mean target: the network learns a constant. PyTorch only warns, and not for losses by hand.",
    told_by="The criterion's operands hold the same number of entries in different shapes, and their comparison more.",
    cures="target.view_as(output), or output.squeeze(1).",
    needs=("anatomy",),
    judge=judge,
)
