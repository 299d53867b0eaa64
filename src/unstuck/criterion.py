"""Which loss was called on what: found in a trace, named, with the task it implies and the score it is judged by.

The criterion is the call where output meets target: `F.cross_entropy` and its kin, or, in a loss written by hand, the
subtraction that is squared, the indexing that picks a log-probability, the product with a logarithm.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from unstuck.problem import Batch, Criterion, Problem
from unstuck.rewriting import operands
from unstuck.trace import Seen, Trace, trace

KINDS = {
    "cross_entropy": ("cross_entropy", "logits"),
    "nll_loss": ("nll", "log-probabilities"),
    "binary_cross_entropy": ("bce", "probabilities"),
    "binary_cross_entropy_with_logits": ("bce_logits", "logits"),
    "multilabel_soft_margin_loss": ("bce_logits", "logits"),
    "soft_margin_loss": ("soft_margin", "logits"),
    "multi_margin_loss": ("multi_margin", "logits"),
    "mse_loss": ("mse", "values"),
    "l1_loss": ("l1", "values"),
    "smooth_l1_loss": ("smooth_l1", "values"),
    "huber_loss": ("huber", "values"),
    "kl_div": ("kl", "log-probabilities"),
    "gaussian_nll_loss": ("gaussian_nll", "values"),
    "poisson_nll_loss": ("poisson_nll", "values"),
}
"""torch function → (kind, what it expects of the output)."""

SQUARES = {"pow", "square", "__pow__"}
ABSOLUTES = {"abs", "absolute"}
LOGARITHMS = {"log", "log_softmax", "logsigmoid", "log10", "log2", "log1p"}
PRODUCTS = {"mul", "__mul__", "__rmul__"}
PASSING = {"clamp", "clip", "neg", "__neg__", "broadcast_tensors", "expand", "view", "reshape", "flatten", "squeeze"}
AVERAGES = {"neg", "__neg__", "mean", "sum", "rsub", "__rsub__"}


def expects(kind: str) -> str:
    """What a criterion of this kind wants: logits, log-probabilities, probabilities or values."""
    return dict(KINDS.values()).get(kind, "values")


def prepared(problem: Problem) -> Problem:
    """The problem with its criterion known, so that accuracy or R² can be scored."""
    if problem.criterion.kind != "unknown":
        return problem
    return replace(problem, criterion=find(trace(problem, problem.twin(), problem.data[0])))


def find(trace: Trace) -> Criterion:
    """The criterion of a traced loss; kind `unknown` where none is recognised."""
    known = [
        call for call in trace.ancestors if call.name in KINDS and trace.lives(operands(call.args, call.kwargs)[0])
    ]
    if known:
        call = max(known, key=_size)
        output, target = operands(call.args, call.kwargs)
        return Criterion(KINDS[call.name][0], _task(KINDS[call.name][0], output, target), call.key, call.site)
    for call in trace.ancestors:
        found = _by_hand(trace, call)
        if found is not None:
            return found
    return Criterion("unknown", "unknown", None, trace.ancestors[-1].site if trace.ancestors else "")


def _size(call: Seen) -> float:
    return float(call.output.detach().float().abs().mean()) if isinstance(call.output, Tensor) else 0.0


def _by_hand(trace: Trace, call: Seen) -> Criterion | None:
    if call.name in {"sub", "rsub", "__sub__", "__rsub__"}:
        names = {reader.name for reader in trace.readers(call)}
        squared = names & SQUARES or any(_with_itself(r) for r in trace.readers(call))
        kind = "mse" if squared else "l1" if names & ABSOLUTES else None
    elif call.name in {"__getitem__", "gather"}:
        kind = _picked(trace, call)
    elif call.name in PRODUCTS:
        kind = "nll" if any(_is_log(trace, factor) for factor in call.args) else None
    else:
        kind = None
    if kind is None:
        return None
    output, target = operands(call.args, call.kwargs, call.name)
    if not isinstance(output, Tensor) or not isinstance(target, Tensor):
        return None
    flipped = trace.lives(target) and not trace.lives(output)
    output, target = (target, output) if flipped else (output, target)
    if not trace.lives(output) or trace.lives(target):
        return None
    if call.name in PRODUCTS and not (output.shape == target.shape and _zero_one(target)):
        return None  # log-probabilities times advantages or weights: no labels
    return Criterion(kind, _task(kind, output, target), call.key, call.site, handwritten=True, flipped=flipped)


def _with_itself(call: Seen) -> bool:
    return call.name in {"mul", "__mul__"} and len(call.args) == 2 and call.args[0] is call.args[1]


def _picked(trace: Trace, call: Seen) -> str | None:
    output, target = operands(call.args, call.kwargs, call.name)
    if not isinstance(target, Tensor) or target.is_floating_point() or not trace.lives(output):
        return None
    if _is_log(trace, output):
        return "nll"
    readers = trace.readers(call)
    if any(reader.name in LOGARITHMS for reader in readers):
        return "nll_probabilities"
    maker = trace.maker(output)
    # A probability picked by the label and averaged as it is: the logarithm was forgotten.
    forgotten = maker is not None and maker.name == "softmax" and all(r.name in AVERAGES for r in readers)
    return "nll" if forgotten else None


def _is_log(trace: Trace, tensor: object) -> bool:
    """True for log-probabilities: made by a logarithm, or as logits − logsumexp; shape and bounds do not matter."""
    number = trace.linked.number(tensor) if isinstance(tensor, Tensor) else None
    # By number, not by tensor: a call may return the very tensor it was given.
    while number in trace.alive and number in trace.linked.producer:
        call = trace.calls[trace.linked.producer[number]]
        if call.name in LOGARITHMS or (call.name == "sub" and _log_sum_exp(trace, call)):
            return True
        if call.name not in PASSING:
            return False
        number = next((n for n in trace.linked.reads(call.index) if n in trace.alive), None)
    return False


def _log_sum_exp(trace: Trace, call: Seen) -> bool:
    return any(maker is not None and maker.name in {"logsumexp", "log"} for maker in map(trace.maker, call.args))


def _zero_one(target: Tensor) -> bool:
    return bool(((target == 0) | (target == 1)).all())


def _task(kind: str, output: Tensor, target: Tensor) -> str:
    if kind in {"cross_entropy", "nll", "nll_probabilities", "multi_margin"}:
        if target.shape == output.shape and _zero_one(target):
            if output.dim() == 1 or output.shape[1] == 1:
                return "binary"
            return "onehot" if kind == "cross_entropy" or hot_axis(target) is not None else "multilabel"
        return "onehot" if target.is_floating_point() else "classes"
    if kind == "kl":
        return "onehot"
    zero_one = _zero_one(target)
    if not zero_one or torch.unique(target).numel() < 2:
        return "multilabel" if kind.startswith("bce") and zero_one else "regression"
    if target.dim() == 2 and torch.equal(target, torch.eye(*target.shape).to(target)):
        return "regression"  # a matrix that is to become the identity (decorrelated features): no labels
    if hot_axis(target) is not None:
        return "onehot"
    if target.dim() == 2 and target.shape[1] > 1:
        return "multilabel"
    if target.dim() <= 2:
        return "binary"
    return "multilabel" if kind.startswith("bce") else "regression"


def hot_axis(target: Tensor) -> int | None:
    """The dimension of the classes: along it each target is one-hot, or a distribution. Dimension 1 as torch has it, or
    the last ([batch, time, classes]); None where neither sums to 1."""
    known = target.detach().double()
    axes = (1, target.dim() - 1) if target.dim() > 1 else ()
    return next((d for d in axes if target.shape[d] > 1 and bool(((known.sum(d) - 1).abs() < 1e-4).all())), None)


def hot_labels(values: Tensor, target: Tensor) -> Tensor:
    """The largest entry along the classes of a one-hot `target`."""
    return values.argmax(hot_axis(target) or 1)


@dataclass(frozen=True)
class Score:
    """How good a model is on batches: a common scale (accuracy or R²), and the loss (mean over batches, and each)."""

    metric: str
    value: float
    loss: float
    samples: int
    losses: tuple[float, ...] = ()


def score(problem: Problem, model: nn.Module, batches: Iterable[Batch], training: bool = False) -> Score:
    """Accuracy (classification) or R² (regression) of `model` in evaluation mode; `-loss` where neither is known.

    One forward pass a batch. With `training=True` modules keep the mode they have. The model's buffers are its own:
    pass a copy.
    """
    if not training:
        model.eval()
    outputs, targets, losses = [], [], []
    with torch.no_grad():
        for batch in batches:
            result = problem.evaluate(model, batch)
            losses.append(float(result.loss))
            if result.output is not None and result.target is not None:
                outputs.append(result.output.detach().float())
                targets.append(result.target.detach())
    loss = sum(losses) / len(losses) if losses else float("nan")
    metric, value, samples = agreement(problem.criterion, outputs, targets)
    return Score(metric, -loss if metric == "negative loss" else value, loss, samples, tuple(losses))


def agreement(criterion: Criterion, outputs: list[Tensor], targets: list[Tensor]) -> tuple[str, float, int]:
    """Name and value of the common scale, and the number of samples it rests on."""
    if not outputs or criterion.task == "unknown":
        return "negative loss", float("nan"), 0
    if criterion.task == "regression":
        return _r2(outputs, targets)
    right = torch.cat([hit(criterion, o, t).flatten() for o, t in zip(outputs, targets, strict=True)]).double()
    if criterion.balanced:
        labels = torch.cat([labels_of(criterion.task, t) for t in targets])
        if len(labels) == len(right):
            return "balanced accuracy", *_recall(right, labels)
    return "accuracy", float(right.mean()) if len(right) else 0.0, len(right)


def _recall(right: Tensor, labels: Tensor) -> tuple[float, int]:
    """Mean over the classes of the share of their samples that were hit, and the number of samples that an accuracy of
    the same variance would rest on."""
    count = torch.bincount(labels).double()
    hits = torch.bincount(labels, right, len(count))
    count, hits = count[count > 0], hits[count > 0]
    return float((hits / count).mean()), int(len(count) ** 2 / (1 / count).sum())


def labels_of(task: str, target: Tensor) -> Tensor:
    """Class indices of a target, flat; ignored ones (negative) left out."""
    if task == "onehot":
        return hot_labels(target, target).flatten()
    labels = target.flatten()
    return labels[labels >= 0].long() if task == "classes" else (labels > 0.5).long()


IMBALANCED = 0.8
"""From this share of one class on the plain accuracy hardly tells a network that finds the others from one that does
not: saying the majority everywhere gets four of five right (He and Garcia 2009 recommend recalls there)."""


def weighed(problem: Problem, batches: int = 24) -> Problem:
    """The problem, judged by balanced accuracy where one of its classes has more than `IMBALANCED` of the samples, or
    where its loss gives the classes unequal weights: then it is recalls that the user is after."""
    if problem.criterion.task not in {"classes", "onehot", "binary"}:
        return problem
    model = problem.twin().eval()
    with torch.no_grad():
        targets = [problem.evaluate(model, batch).target for batch in problem.data[:batches]]
    labels = torch.cat([labels_of(problem.criterion.task, t) for t in targets if t is not None])
    shares = torch.bincount(labels).cpu() / max(len(labels), 1)
    seen = trace(problem, model, problem.data[0])
    weights = class_weights(next((c for c in seen.calls if c.key == problem.criterion.key), None), len(shares))
    unequal = weights is not None and len(weights[(shares > 0) & (weights > 0)].unique()) > 1
    balanced = len(shares) > 0 and float(shares.max()) < 1 and (float(shares.max()) > IMBALANCED or unequal)
    return replace(problem, criterion=replace(problem.criterion, balanced=balanced)) if balanced else problem


def class_weights(call: Seen | None, classes: int) -> Tensor | None:
    """The weight of each class in this call; None where there are none."""
    if call is None:
        return None
    positive = call.kwargs.get("pos_weight")
    if isinstance(positive, Tensor) and positive.numel() == 1 and classes == 2:
        return torch.tensor([1.0, float(positive)])
    weight = call.kwargs.get("weight", call.args[2] if len(call.args) > 2 else None)
    if call.name not in {"cross_entropy", "nll_loss"} or not isinstance(weight, Tensor) or len(weight) < classes:
        return None
    return weight.detach().float().cpu()[:classes]


def hit(criterion: Criterion, output: Tensor, target: Tensor) -> Tensor:
    """Which predictions are right, one boolean a sample (a token, a label).

    Where the shapes do not fit each other ([N] against [N, 1]) both are flattened.
    """
    if criterion.task == "classes":
        if target.dim() == output.dim() > 1 and target.shape[-1] == 1:
            target = target.squeeze(-1)  # as gather takes it: classes stand last
            return (output.argmax(-1) == target)[target != -100]
        dim = 1 if output.dim() > target.dim() and output.dim() > 1 else -1
        if output.dim() == 1 and target.dim() == 0:
            return output.argmax() == target
        right = output.argmax(dim) == target
        return right[target != -100]
    if criterion.task == "onehot":
        axis = hot_axis(target) or 1
        return output.argmax(axis) == target.argmax(axis)
    threshold = 0.0 if criterion.kind in {"bce_logits", "cross_entropy"} else 0.5
    if criterion.kind == "nll" and criterion.handwritten:
        threshold = -0.6931
    return (output.flatten() > threshold) == (target.flatten() > 0.5)


def _r2(outputs: list[Tensor], targets: list[Tensor]) -> tuple[str, float, int]:
    prediction = torch.cat([o.flatten() for o in outputs]).double()
    wanted = torch.cat([t.flatten() for t in targets]).double()
    if prediction.numel() != wanted.numel():
        return "negative loss", float("nan"), 0
    known = wanted.isfinite()  # a missing target can be neither hit nor missed
    rest = float(((prediction - wanted)[known] ** 2).mean()) if known.any() else float("nan")
    spread = _spread(targets)
    return "R²", 1 - rest / spread if spread > 0 else float("nan"), int(known.sum())


def _spread(targets: list[Tensor]) -> float:
    """Variance of the targets about their mean, column by column (a column is what one constant can predict)."""
    rows = torch.cat([t.reshape(t.shape[0], -1) if t.dim() > 0 else t.reshape(1, 1) for t in targets]).double()
    rows = rows[rows.isfinite().all(1)]
    return float(rows.var(0, unbiased=False).mean())
