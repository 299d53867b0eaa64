"""A training as data: a twin of the model, a loss program, recorded batches, an optimizer recipe, facts of the loop.

    problem = Problem(model, nn.CrossEntropyLoss(), [(x, y), ...], optimizer=torch.optim.SGD(model.parameters(), 0.1))

Frozen: probes read copies (`problem.twin()`), remedies make changed problems (`dataclasses.replace`). Nothing here
holds a live object of the user's: the model is a copy, the optimizer a recipe.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from unstuck.errors import BadArgument
from unstuck.loop import Loop, State
from unstuck.recipe import recipe_of
from unstuck.rewriting import CallKey, Rewrite, Rewriting
from unstuck.rows import Rows
from unstuck.sandbox import sandbox
from unstuck.tape import Tape, tensors_in

Batch = tuple[Any, ...]


@dataclass(frozen=True)
class Criterion:
    """The loss function found in the program: its call, what it expects of output and target, the kind of task.

    `kind`: cross_entropy, nll, bce, bce_logits, mse, l1, …, unknown. `task`: classes, binary, onehot, regression,
    unknown. `handwritten`: the call is the arithmetic (a `sub`, a `getitem`) of a loss written by hand. `flipped`: that
    call has the target first. `balanced`: classes are so uneven that recalls are averaged instead of samples.
    """

    kind: str
    task: str
    key: CallKey | None = None
    site: str = ""
    handwritten: bool = False
    flipped: bool = False
    balanced: bool = False


@dataclass(frozen=True)
class Result:
    """One evaluation of the loss: its value, and what the criterion was given."""

    loss: Tensor
    output: Tensor | None
    target: Tensor | None


@dataclass(frozen=True)
class Problem:
    """A training, frozen: everything that probes, remedies and the race need.

    `model`: a twin in its initial state. `loss`: a Program `(model, batch) -> value`; written down by hand it is
    `loss(model(*inputs), target)` and becomes one. `data`: training batches, (inputs…, target) when written by hand.
    `optimizer`: a recipe (a live optimizer becomes one). `validation`: batches the user validates on. `held_out`:
    batches the race does not train on (of hand-written data the last quarter). `last`: parameters and buffers where
    the training was left. `recorded`: batches as the user's loop drew them, with the step. `redraws`: the
    same samples drawn several times, where something about them is random. Nothing passed in is changed or kept: model
    and optimizer are copied.

    Raises BadArgument when an argument cannot be used.

        problem = Problem(net, nn.CrossEntropyLoss(), loader, optimizer=torch.optim.SGD(net.parameters(), 0.1))
    """

    model: nn.Module
    loss: Any
    data: Any
    optimizer: Any = None
    validation: Any = ()
    held_out: tuple[Batch, ...] = ()
    last: State = field(default_factory=dict)
    loop: Loop = field(default_factory=Loop)
    criterion: Criterion = Criterion("unknown", "unknown")
    rewrites: Mapping[CallKey, Rewrite] = field(default_factory=dict)
    rows: Rows | None = None
    seed: int = 0
    model_name: str = "model"
    recorded: tuple[tuple[int, Batch], ...] = ()
    redraws: tuple[tuple[Batch, ...], ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.loss, Program):
            for name, value in _written_down(self).items():
                object.__setattr__(self, name, value)

    def twin(self, last: bool = False) -> nn.Module:
        """A fresh copy of the model, at the initial state or (`last=True`) where the training was left."""
        model = copy.deepcopy(self.model)
        if last and self.last:
            load_state(model, self.last)
        for name, module in model.named_modules():
            module.training = self.loop.training.get(name, module.training)
        return model

    def value(self, model: nn.Module, batch: Batch) -> Tensor:
        """The loss of `model` on one batch; rewritten calls are replaced. One forward pass."""
        with _autocast(self.loop.autocast), _rewriting(self.rewrites):
            return self.loss(model, batch)  # type: ignore[no-any-return]

    def evaluate(self, model: nn.Module, batch: Batch) -> Result:
        """The loss, and the output and target that the criterion was given. One forward pass."""
        with _autocast(self.loop.autocast), Rewriting(self.rewrites, self.criterion.key) as mode:
            value = self.loss(model, batch)
        output, target = mode.seen if mode.seen is not None else (None, None)
        if self.criterion.flipped:
            output, target = target, output
        return Result(value, output, target)


class MeanLoss(nn.Module):
    """A problem's mean loss as a module, so that its model's parameters can be handed in."""

    def __init__(self, problem: Problem, model: nn.Module) -> None:
        super().__init__()
        self.problem, self.model = problem, model

    def forward(self, batch: Batch) -> Tensor:
        """The loss of one batch, a scalar."""
        value = self.problem.value(self.model, batch)
        return value.mean() if value.dim() else value


class Program:
    """A loss as a function of a model and a batch."""

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """The loss of `model` on `batch`."""
        raise NotImplementedError


class TapeProgram(Program):
    """The program of a recorded tape: a batch is the tuple of its leaves."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """The loss of `model` on `batch`."""
        return self.tape(model, batch)


class SupervisedLoss(Program):
    """The program `loss(model(*inputs), target)` over batches whose last member is the target."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        """The loss of `model` on `batch`."""
        *inputs, target = batch
        return self.function(model(*inputs), target)


def _written_down(problem: Problem, limit: int = 64) -> dict[str, Any]:
    """The fields of a problem that a user wrote: checked, copied, at most `limit` batches, a quarter held out."""
    model, optimizer = problem.model, problem.optimizer
    _check_parts(model, problem.loss, optimizer)
    drawn = _draw(problem.data, limit, "data")
    keep = len(drawn) - len(drawn) // 4
    live = isinstance(optimizer, torch.optim.Optimizer)
    twin = copy.deepcopy(model)
    return {
        "model": twin,
        "loss": SupervisedLoss(problem.loss),
        "data": drawn[:keep],
        "held_out": drawn[keep:],
        "optimizer": recipe_of(optimizer, {id(p): n for n, p in model.named_parameters()}) if live else optimizer,
        "validation": _draw(problem.validation, limit, "validation") if problem.validation else (),
        "last": state_of(twin),
        "recorded": tuple(enumerate(drawn)),
        "loop": Loop(training={n: m.training for n, m in model.named_modules()}, batch_size=batch_size(drawn[0])),
    }


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters and buffers (those that are not persistent too), by name."""
    named = [*model.named_parameters(remove_duplicate=True), *model.named_buffers(remove_duplicate=True)]
    return {name: tensor.detach().clone() for name, tensor in named}


def load_state(model: nn.Module, state: State) -> None:
    """Copy `state` into the model's parameters and buffers of the same name and shape; others stay."""
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    with torch.no_grad():
        for name, tensor in state.items():
            if name in own and own[name].shape == tensor.shape:
                own[name].copy_(tensor)


def spaced(batches: Sequence[Batch], most: int) -> tuple[Batch, ...]:
    """At most so many batches, evenly spaced: ordered data begins with one class alone."""
    step = max(1, -(-len(batches) // most))
    return tuple(batches[::step])


def distinct(batches: Iterable[Batch]) -> tuple[Batch, ...]:
    """The batches without repetitions: a loop over the full batch was recorded with the same one at every step."""
    kept: dict[tuple[Any, ...], list[Batch]] = {}
    for batch in map(tuple, batches):
        found = tensors_in(batch)
        alike = kept.setdefault(tuple((t.shape, float(t.double().sum())) for t in found if t.numel()), [])
        if not any(all(map(torch.equal, found, tensors_in(other))) for other in alike):
            alike.append(batch)
    return tuple(batch for some in kept.values() for batch in some)


def resumed(problem: Problem) -> Problem:
    """The problem begun where its training was left: last state, last learning rate; moments start anew."""
    schedule = problem.loop.schedule[-1:]
    return replace(problem, model=problem.twin(last=True), loop=replace(problem.loop, schedule=schedule))


def training_rows(problem: Problem) -> Rows | None:
    """The samples the problem trains on, each once; None where its batches cannot be cut into rows (of a recorded
    program that was found out when it was captured)."""
    if problem.rows is None and isinstance(problem.loss, TapeProgram):
        return None
    return Rows.of(distinct(problem.data), samples_a_batch(problem))


def script_batch(problem: Problem) -> int:
    """Samples in a batch as the script draws it: a full batch is larger than what copies train on of it."""
    return problem.rows.batch if problem.rows is not None else samples_a_batch(problem)


def samples_a_batch(problem: Problem) -> int:
    """Samples in a batch of the problem's data (a batch of texts may hold a row for each token)."""
    first = problem.data[0]
    known = problem.rows.count(first) if problem.rows is not None else problem.loop.batch_size
    return known or batch_size(first)


def batch_size(batch: Batch) -> int:
    """Number of samples of a batch: the commonest first dimension of its tensors, the first one's of equals."""
    sizes = [t.shape[0] for t in tensors_in(batch) if t.dim() > 0]
    return max(sizes, key=sizes.count) if sizes else 0


def _autocast(setting: tuple[str, torch.dtype] | None) -> Any:
    return torch.autocast(setting[0], dtype=setting[1]) if setting else contextlib.nullcontext()


def _rewriting(rewrites: Mapping[CallKey, Rewrite]) -> Any:
    return Rewriting(rewrites) if rewrites else contextlib.nullcontext()


def _draw(data: Iterable[Sequence[Any]], limit: int, argument: str) -> tuple[Batch, ...]:
    try:
        with sandbox():
            drawn = tuple(tuple(batch) for _, batch in zip(range(limit), iter(data), strict=False))
    except TypeError as error:
        raise BadArgument(
            f"Problem: `{argument}` must be an iterable of (inputs…, target) tuples, got {type(data).__name__}: {error}"
        ) from None
    if not drawn:
        raise BadArgument(f"Problem: `{argument}` yields no batch; pass a loader or a list with at least one")
    if len(drawn[0]) < 2:
        raise BadArgument(f"Problem: a batch of `{argument}` must be (inputs…, target), got {len(drawn[0])} member(s)")
    return drawn


def _check_parts(model: Any, loss: Any, optimizer: Any) -> None:
    if not isinstance(model, nn.Module):
        raise BadArgument(f"Problem: `model` must be a torch.nn.Module, got {type(model).__name__}")
    if not callable(loss):
        raise BadArgument(f"Problem: `loss` must be callable as loss(output, target), got {type(loss).__name__}")
    if optimizer is not None and not isinstance(optimizer, torch.optim.Optimizer):
        raise BadArgument(
            f"Problem: `optimizer` must be a torch.optim.Optimizer over the model's parameters, "
            f"got {type(optimizer).__name__}"
        )
