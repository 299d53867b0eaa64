"""What kind of task the targets show, which form of output the loss takes, and which the network gives it.

    found = measure(problem)
    found.kind, found.told_by          # "multi-class", "one-hot rows of 10 classes (float32)"
    found.expects, found.gives         # "values", "probabilities (softmax at 3 (Softmax)), rows sum to 1"

Told from the targets that the criterion is given: their dtype, how many distinct values they have, their shape against
the output's, whether rows are one-hot. Where they leave it open (targets of one value alone) the kind is "unknown".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unstuck.criterion import expects
from unstuck.probes import anatomy
from unstuck.probes.anatomy import Anatomy
from unstuck.probes.level import collect_targets
from unstuck.probes.objective import SHAPES, class_axis, form_of
from unstuck.problem import Problem, samples_a_batch, spaced
from unstuck.tape import tensors_in

Kind = Literal["regression", "binary", "multi-class", "multi-label", "sequence", "unknown"]
BATCHES = 8
FEW = 20
"""Whole numbers of at most so many values may be classes by their number (digits, grades) as well as quantities."""


@dataclass(frozen=True)
class Task:
    """`told_by`: what showed it. `classes`: number of them, 0 where there are none. `labels`: a sample's. `expects`:
    logits, log-probabilities, probabilities or values. `form`: the output's, by its sums; `gives`: the same in words,
    with the call that made it."""

    kind: Kind
    told_by: str
    classes: int
    labels: int
    expects: str
    form: str
    gives: str

    @property
    def fits(self) -> bool:
        """False where the loss takes one form of output and is given another (log-probabilities are logits, too)."""
        wrong = {"logits": {"probabilities"}, "log-probabilities": {"probabilities", "values"}}
        return self.form not in wrong.get(self.expects, set())


def measure(problem: Problem) -> Task:
    """Costs a forward pass for each of up to nine batches. Any problem has a task, if only an unknown one."""
    return task_of(problem, anatomy.measure(problem))


def task_of(problem: Problem, seen: Anatomy) -> Task:
    """The task of a problem whose anatomy is known."""
    kind = problem.criterion.kind
    wanted = "probabilities" if kind == "nll_probabilities" else "unknown" if kind == "unknown" else expects(kind)
    if seen.output is None or seen.target is None:
        return Task("unknown", "no call was recognised that compares outputs with targets", 0, 0, wanted, "", "")
    output, target = seen.output.detach(), seen.target.detach()
    axis = class_axis(problem, output, target)
    form, _ = form_of(output, axis)
    labelled = problem.criterion.task in {"classes", "onehot"}
    classes = output.shape[axis] if labelled and output.dim() else 0
    count = target.numel() // classes if problem.criterion.task == "onehot" else target.numel()
    labels = max(1, round(count / max(samples_a_batch(problem), 1)))
    targets = collect_targets(problem, spaced(problem.data, BATCHES))
    found, told = _kind(problem, seen, targets, classes, labels)
    return Task(found, told, classes, labels, wanted, form, _gives(seen, form))


def _kind(problem: Problem, seen: Anatomy, targets: Sequence[Tensor], classes: int, labels: int) -> tuple[Kind, str]:
    task, target = problem.criterion.task, seen.target
    assert target is not None
    dtype = str(target.dtype).removeprefix("torch.")
    if task in {"classes", "onehot"}:
        return _by_class(task, target, dtype, classes, labels)
    if _is_input(seen):
        return "regression", "the targets are the inputs"
    values = torch.unique(torch.cat([t.detach().flatten().double() for t in targets]))
    if len(values) == 1:
        return "unknown", f"all targets that were seen are {float(values[0]):.3g}"
    if task in {"binary", "multilabel"} and _columns(target) == 1:
        return "binary", f"targets of 0 and 1 ({dtype}), one for each output"
    if task in {"binary", "multilabel"}:
        return "multi-label", f"rows of {_columns(target)} targets of 0 and 1 ({dtype}), each on its own"
    if values.tolist() == [-1.0, 1.0]:
        return "binary", f"targets of -1 and 1 ({dtype})"
    whole = len(values) <= FEW and bool((values == values.round()).all())
    either = ", which may be quantities or the numbers of classes: the loss takes them for quantities"
    return "regression", f"{len(values)} distinct {'whole ' * whole}values ({dtype})" + either * whole


def _by_class(task: str, target: Tensor, dtype: str, classes: int, labels: int) -> tuple[Kind, str]:
    hot = task == "onehot" and bool(((target == 0) | (target == 1)).all())
    shown = "one-hot rows of" if hot else "distributions over" if task == "onehot" else "numbers of"
    places = target.dim() - (2 if task == "onehot" else 1)  # dimensions beside the samples' and the classes'
    told = f"{shown} {classes} classes ({dtype})"
    if labels == 1:
        return "binary" if classes == 2 else "multi-class", told
    if places > 1:
        return "multi-class", f"{told}, {labels} places a sample"
    return "sequence", f"{told}, {labels} steps a sample"


def _columns(target: Tensor) -> int:
    return target[0].numel() if target.dim() > 1 and len(target) else 1


def _is_input(seen: Anatomy) -> bool:
    """True if what the network reads is what it is to give back."""
    output, target = seen.output, seen.target
    assert output is not None and target is not None
    number = seen.trace.linked.number(output)
    calls = seen.trace.above(number) if number is not None else ()
    read = [t.detach() for call in calls for t in tensors_in((call.args, call.kwargs)) if t.numel() == target.numel()]
    return any(torch.equal(t.flatten().to(target), target.detach().flatten()) for t in read)


def _gives(seen: Anatomy, form: str) -> str:
    """The output in words: its form, and the call that made it (shapes aside)."""
    ending = next((call for call in reversed(seen.head) if call.name not in SHAPES), None)
    made = f" ({ending.name} at {ending.where})" if ending is not None else ""
    if form == "probabilities":
        return f"probabilities{made}, rows sum to 1"
    if form == "log-probabilities":
        return f"log-probabilities{made}, exponentials of rows sum to 1"
    if ending is not None:
        between = " between 0 and 1" if ending.name == "sigmoid" else ""
        return f"values{between}{made}"
    source = next((a for a in seen.head[0].args if seen.trace.lives(a)), None) if seen.head else seen.output
    layer = seen.trace.maker(source)
    return f"raw values{f' of {layer.where}' if layer is not None else ''}"
