"""What watching keeps: plain records about live objects, bounded in number and bytes.

`capture.assemble` makes the frozen Problem of it. Nothing here changes a tensor of the user's or draws from torch's
random numbers.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from unstuck.capture.clearing import Clearing
from unstuck.loop import Clip
from unstuck.recorder import Call
from unstuck.tape import Linked, Tape, tensors_in

BATCH_BYTES = 256 * 2**20
RESERVOIR = 64
SNAPSHOTS = 8
SNAPSHOT_BYTES = 512 * 2**20
VALIDATIONS = 3
VALIDATION_CALLS = 400


@dataclass
class Origin:
    """The linked record of one step from its beginning: where the leaves (by number) came from."""

    linked: Linked
    numbers: tuple[int, ...]
    loader: Any
    batch: Any
    early: bool = False


@dataclass
class Form:
    """A tape as first recorded, with what it takes to check that it replays."""

    tape: Tape
    roots: tuple[nn.Module, ...]
    leaves: tuple[Tensor, ...]
    loss: float
    rng: Tensor
    step: int
    training: dict[int, bool]
    autocast: Any
    scale: float
    origin: Origin | None = None


@dataclass
class Seen:
    """Everything watching has kept, about live objects (`capture.assemble` makes the frozen Problem of it).

    `marked` and `settled`: backwards that belong to the steps made, and steps that the meter knows of; `opened`: losses
    that the record of a training before has too (see `capture.trainings`).
    """

    losses: list[Any] = field(default_factory=list)
    lrs: list[float] = field(default_factory=list)
    made_lrs: dict[int, list[Any]] = field(default_factory=dict)
    steps: Counter[int] = field(default_factory=Counter)
    optimizers: dict[int, tuple[Any, str]] = field(default_factory=dict)
    schedulers: list[tuple[str, str, int]] = field(default_factory=list)
    roots: dict[int, nn.Module] = field(default_factory=dict)
    names: dict[int, str] = field(default_factory=dict)
    initial: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    forms: list[Form] = field(default_factory=list)
    batches: list[tuple[int, int, tuple[Tensor, ...]]] = field(default_factory=list)
    offered: int = 0
    bytes: int = 0
    trouble: list[str] = field(default_factory=list)
    detached: str = ""
    loss_site: str = ""
    per_step: Counter[int] = field(default_factory=Counter)
    clearing: Clearing = field(default_factory=Clearing)
    clips: list[tuple[Clip, Any]] = field(default_factory=list)
    clip_unscaled: bool = False
    scale: float = 0.0
    gradient_norms: list[tuple[int, float]] = field(default_factory=list)
    first_norms: list[tuple[int, float]] = field(default_factory=list)
    no_gradient: set[int] = field(default_factory=set)
    with_gradient: set[int] = field(default_factory=set)
    sampled: int = 0
    training: dict[int, bool] = field(default_factory=dict)
    mode_looks: Counter[int] = field(default_factory=Counter)
    mode_evals: Counter[int] = field(default_factory=Counter)
    eval_steps: int = 0
    snapshots: list[tuple[int, dict[int, Tensor]]] = field(default_factory=list)
    loaders: dict[int, tuple[Any, str]] = field(default_factory=dict)
    train_loaders: set[int] = field(default_factory=set)
    validation: list[list[Call]] = field(default_factory=list)
    draw: random.Random = field(default_factory=lambda: random.Random(0))
    next_snapshot: int = 1
    marked: int = 0
    settled: int = 0
    opened: int = 0

    @property
    def made(self) -> int:
        """Optimizer steps so far."""
        return self.steps.total()

    @property
    def backwards(self) -> int:
        """Backward passes so far: each leaves one loss."""
        return len(self.losses)

    def keep_initial(self, tensors: Iterable[Any]) -> None:
        """A copy of each tensor not seen before."""
        for tensor in tensors:
            if id(tensor) not in self.initial and isinstance(tensor, Tensor):
                try:
                    self.initial[id(tensor)] = (tensor, tensor.detach().clone())
                except (RuntimeError, NotImplementedError, ValueError) as error:
                    self.trouble.append(f"a parameter's initial value could not be copied: {error}")
                    return

    def parameter_names(self) -> dict[int, str]:
        """A name for everything that can be trained: what the modules own and what the optimizers hold."""
        live = [t for t, _ in self.initial.values() if t.requires_grad or isinstance(t, nn.Parameter)]
        live += [p for o, _ in self.optimizers.values() for g in o.param_groups for p in g["params"]]
        return {id(t): str(id(t)) for t in live}

    def offer(self, step: int, form: int, leaves: tuple[Tensor, ...]) -> None:
        """Reservoir sampling (Vitter's algorithm R) over the recorded batches, bounded in number and bytes."""
        self.offered += 1
        size = bytes_of(leaves)
        place = len(self.batches)
        if place >= RESERVOIR or self.bytes + size > BATCH_BYTES:
            place = self.draw.randrange(self.offered)
            if place >= len(self.batches):
                return
            self.bytes -= bytes_of(self.batches.pop(place)[2])
        self.batches.append((step, form, tuple(t.detach().clone() for t in leaves)))
        self.bytes += size

    def note_modes(self, roots: tuple[nn.Module, ...]) -> None:
        """Which modules are in training mode as the loss is made."""
        flags = {id(m): m.training for root in roots for m in root.modules()}
        if roots:
            self.training = flags
            self.mode_looks.update(flags.keys())
            self.mode_evals.update(i for i, flag in flags.items() if not flag)
            self.eval_steps += not any(flags[id(root)] for root in roots)

    def snapshot(self, step: int) -> None:
        """Parameters and buffers at geometrically spaced steps; when full, every second one is dropped."""
        if step < self.next_snapshot:
            return
        self.next_snapshot = max(step + 5, int(step * 1.5))
        if bytes_of(t for t, _ in self.initial.values()) * (SNAPSHOTS + 2) > SNAPSHOT_BYTES:
            return
        if len(self.snapshots) >= SNAPSHOTS:
            del self.snapshots[::2]
        self.snapshots.append((step, {i: t.detach().clone() for i, (t, _) in self.initial.items()}))

    def keep_validation(self, calls: list[Call]) -> None:
        """The record of a validation pass, if it used a model."""
        if self.wants_validation and any(isinstance(c.function, nn.Module) for c in calls):
            self.validation.append([c for c in calls if tensors_in((c.args, c.output))][:VALIDATION_CALLS])

    @property
    def wants_validation(self) -> bool:
        """True while few validation passes are known."""
        return len(self.validation) < VALIDATIONS


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """What the tensors take."""
    return sum(t.numel() * t.element_size() for t in tensors)
