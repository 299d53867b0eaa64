"""missing-nonlinearity: linear layers stacked with nothing between them are one linear layer."""

from __future__ import annotations

from typing import Any

from unstuck.evidence import Evidence
from unstuck.records import Figure
from unstuck.remedies.activation import inserted
from unstuck.rules.rule import Rule, Suspicion
from unstuck.trace import Seen, Trace

LINEAR = frozenset({"linear", "addmm", "conv1d", "conv2d", "conv3d"})
AFFINE = frozenset({"flatten", "view", "reshape", "permute", "transpose", "contiguous", "squeeze", "unsqueeze",
                    "dropout", "feature_dropout", "dropout1d", "dropout2d", "dropout3d", "avg_pool1d", "avg_pool2d",
                    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "mean", "to", "float", "clone", "identity", "movedim",
                    "swapaxes", "T", "mT", "batch_norm"})  # fmt: skip
"""What may stand between two layers without making the pair more than linear (a batch's normalization: but for the
batch). Sums and products with anything else end the search: residual paths and attention are no plain stack."""

MOST = 0.5


def judge(evidence: Evidence) -> Suspicion | None:
    """Pairs of layers with only affine calls between, where the first is no bottleneck."""
    anatomy, problem = evidence.anatomy, evidence.problem
    assert anatomy is not None and problem is not None
    pairs = stacked(anatomy.trace)
    layers = [c for c in anatomy.trace.ancestors if c.name in LINEAR]
    if not pairs:
        return None
    share = len(pairs) / max(len(layers) - 1, 1)
    first, second = pairs[0]
    return Suspicion(
        cause="missing-nonlinearity",
        strength=0.95 if share > MOST else 0.6,
        where=second.where,
        summary=f"{first.where} feeds {second.where} with nothing nonlinear between: together they are one linear "
        f"layer{', and so is the whole stack' if share == 1 else ''}.",
        evidence=(
            Figure("pairs of layers with nothing nonlinear between", float(len(pairs)), samples=len(layers)),
            Figure("share of all neighbouring layers", share, samples=len(layers)),
        ),
        remedies=(inserted(tuple(a.key for a, _ in pairs), first.path or first.name),),
    )


def stacked(seen: Trace) -> tuple[tuple[Seen, Seen], ...]:
    """Neighbouring linear layers, in order; convolutions by groups and bottlenecks (a factored matrix) do not count."""
    found = []
    for call in seen.ancestors:
        if call.name in LINEAR and not _grouped(call):
            below = _source(seen, call)
            if below is not None and not _grouped(below) and _width(below) >= min(_enters(below), _width(call)):
                found.append((below, call))
    return tuple(found)


def _source(seen: Trace, call: Seen) -> Seen | None:
    """The linear layer whose output, through affine calls alone and used by nothing else, is this call's input."""
    maker = seen.below(call, _input(call))
    while maker is not None and maker.name in AFFINE and len(_users(seen, maker)) == 1:
        if maker.name == "dropout" and maker.output is maker.args[0]:
            return None
        maker = seen.below(maker, _input(maker))
    return maker if maker is not None and maker.name in LINEAR and len(_users(seen, maker)) == 1 else None


def _users(seen: Trace, call: Seen) -> tuple[Seen, ...]:
    """Calls that take what a layer gives, on the way to the loss (a `relu(x)` whose result is thrown away is not)."""
    wanted = {c.index for c in seen.ancestors}
    return tuple(reader for reader in seen.readers(call) if reader.index in wanted)


def _input(call: Seen) -> Any:
    place = 1 if call.name == "addmm" else 0
    return call.args[place] if len(call.args) > place else call.kwargs.get("input")


def _weight(call: Seen) -> Any:
    """Weights as [features given, features taken, …]."""
    if call.name == "addmm":
        return call.args[2].T
    return call.args[1] if len(call.args) > 1 else call.kwargs.get("weight")


def _width(call: Seen) -> int:
    """Features that a layer gives."""
    return int(call.output.shape[1] if call.name.startswith("conv") else call.output.shape[-1])


def _enters(call: Seen) -> int:
    """Features that a layer takes."""
    return int(_weight(call).shape[1])


def _grouped(call: Seen) -> bool:
    weight, source = _weight(call), _input(call)
    return call.name.startswith("conv") and bool(weight.shape[1] != source.shape[-weight.dim() + 1])


RULE = Rule(
    cause="missing-nonlinearity",
    lesson="A product of matrices is a matrix: linear layers without a nonlinear function between them can express no "
    "more than one of them, whatever their number.",
    told_by="The output of a linear or convolutional layer reaches the next through reshapes, dropout, averages only.",
    cures="An activation (ReLU) behind every hidden layer.",
    needs=("anatomy",),
    judge=judge,
)
