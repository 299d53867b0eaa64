"""The loss at many points of a plane through parameter space, θ + a·d₁ + b·d₂, as one stack.

    loss = Plane(problem, directions)         # d₁, d₂: rows [2, n], in the order of `curvature.flat.Flat`
    loss(points)                              # [k, 2] → [k] in float64
    loss.how, loss.why

Parameters are stacked [points, …] and go through one vmap over the forward pass, so many at a time as are fastest on
this machine and fit in memory; first layers are shared by all points (`probes.affine`). Where vmap refuses the model,
or gives another loss than the model alone, the points are taken one by one, by writing into the parameters of one copy.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from unstuck.curvature.check import first_line
from unstuck.curvature.forward import loss_of, pinned
from unstuck.curvature.memory import SHARE, available, held_bytes
from unstuck.curvature.product import Hessian
from unstuck.errors import BadArgument, NotMeasurable
from unstuck.probes.affine import Affine, Line
from unstuck.problem import Batch, MeanLoss, Problem
from unstuck.sandbox import reseed

MOST = 1024
"""Points in a stack."""

PAYS = 0.9
"""Twice as many points at once must take less than this share of the time a point: memory is dear."""

ROUNDING = 1e3
"""Machine epsilons between a loss in a stack and the same alone: MLPs of 3 and 12 layers, with BatchNorm and without,
convolutions and a transformer were one apart (measured); dropout of other units moves a loss by a hundredth."""


class Plane:
    """The mean loss over a problem's batches, as a function on a plane through its last (or initial) state.

    Modes of layers are those of the training, BatchNorm goes by the batch, dropout keeps its masks, buffers are
    untouched; autocast is left out. Each point costs a forward pass, less what its first layers share; to begin with,
    some ten more, and about eight of one batch for each point of the stacks that are chosen in the end. Wrong by
    rounding: 1e-6 of the loss in float32.

    how, why    "stacked" or "one by one", and why not stacked
    together    points in a stack
    """

    def __init__(self, problem: Problem, directions: Tensor, last: bool = True) -> None:
        self._alone = Hessian(problem, last=last, memory=0)
        self.flat = self._alone.flat
        if directions.shape != (2, self.flat.size):
            raise BadArgument(
                f"plane: `directions` must be two rows over the {self.flat.size} trainable parameters, "
                f"got {list(directions.shape)}"
            )
        self.directions = self.flat.movable(directions.to(self.flat.device, self.flat.dtype))
        self.start = self.flat.values()
        self._frame = torch.stack([self.start, *self.directions])
        self._loss = MeanLoss(self._alone.problem, self._alone.model)
        self._lines = tuple(zip(*map(self.flat.split, self._frame), strict=True))
        self.together, self.why = 1, ""
        with pinned(), torch.no_grad():
            self._prepare()

    @property
    def how(self) -> str:
        """How points are evaluated."""
        return "one by one" if self.why else "stacked"

    @property
    def samples(self) -> int:
        """Samples that the loss is the mean over."""
        return self._alone.data.samples

    def __call__(self, points: Tensor) -> Tensor:
        """The loss at points [k, 2], float64 [k]; NaN or inf where it is not finite."""
        points = points.to(self.flat.device, self.flat.dtype)
        with pinned(), torch.no_grad():
            return self._one_by_one(points) if self.why else self._stacked(points)

    def _one_by_one(self, points: Tensor) -> Tensor:
        each = [self._alone.losses_at(point @ self.directions, [1.0])[0] for point in points]
        return torch.stack(each) @ torch.tensor(self._alone.data.weights, dtype=torch.float64)

    def _stacked(self, points: Tensor) -> Tensor:
        total = torch.zeros(len(points), dtype=torch.float64)
        data = self._alone.data
        for name, weight, batch in zip(data.names, data.weights, data.batches, strict=True):
            total += weight * self._batch(name, tuple(batch), points, self.together)
        return total

    def _batch(self, name: int, batch: Batch, points: Tensor, together: int) -> Tensor:
        """The loss of one batch at all points, so many at a time."""
        layers = Affine()
        found = [self._stack(name, batch, some, layers) for some in points.split(together)]
        return torch.cat(found).double().cpu()

    def _stack(self, name: int, batch: Batch, points: Tensor, layers: Affine) -> Tensor:
        coefficients = torch.cat([torch.ones_like(points[:, :1]), points], dim=1)
        rows = self.flat.split_rows(coefficients @ self._frame)
        moving = {name: buffer.expand(len(points), *buffer.shape) for name, buffer in self._moving.items()}

        def loss(parts: tuple[Tensor, ...], moving: Mapping[str, Tensor], at: Tensor) -> Tensor:
            lines: dict[int, Line] = {id(p): line for p, line in zip(parts, self._lines, strict=True)}
            layers.at(lines, at)
            named = {
                **dict(zip(self.flat.names, parts, strict=True)),
                **{name: buffer.clone() for name, buffer in moving.items()},
            }
            with layers:
                value: Tensor = functional_call(self._loss, {f"model.{n}": v for n, v in named.items()}, (batch,))
            return value

        reseed(name)
        losses: Tensor = vmap(loss, randomness="same")(rows, moving, coefficients)
        return losses

    # --- what is tried before -------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Find out whether the points can be stacked, and how many at a time."""
        data = self._alone.data
        name, batch = data.names[0], tuple(next(iter(data.batches)))
        self._must_repeat()
        self._moving = self._written(batch)
        try:
            self.why = self._apart(name, batch)
            if not self.why:
                self.together = self._fastest(name, batch)
        except Exception as error:  # whatever a model does that vmap cannot follow
            self.why = f"{type(error).__name__}: {first_line(error)}"

    def _must_repeat(self) -> None:
        """The loss of a batch twice."""
        first, second = (self._alone.losses(1, seed)[0] for seed in range(2))
        near = ROUNDING * torch.finfo(self.flat.dtype).eps
        if abs(first - second) > near * abs(first):  # not so where it is not finite: it may be, elsewhere
            raise NotMeasurable(
                f"two evaluations of the loss differ ({first:.6g}, {second:.6g}): the model or the loss draws random "
                "numbers that no seed of ours fixes; such a loss has no surface"
            )

    def _written(self, batch: Batch) -> dict[str, Tensor]:
        """The buffers that a forward pass writes into: each point needs its own."""
        model = copy.deepcopy(self._alone.model)
        reseed(0)
        self._alone.problem.value(model, batch)
        written = dict(model.named_buffers())
        return {
            name: buffer
            for name, buffer in self._alone.model.named_buffers()
            if not torch.equal(buffer, written[name])
        }

    def _apart(self, name: int, batch: Batch) -> str:
        """Why the stack is not to be believed: two points of it against the model alone."""
        points = torch.tensor([[0.0, 0.0], [0.5, -0.25]]).to(self.start)
        stacked = self._batch(name, batch, points, 2)
        part = self._alone.part([0])
        alone = torch.stack([part.losses_at(point @ self.directions, [1.0])[0, 0] for point in points])
        near = ROUNDING * torch.finfo(self.flat.dtype).eps
        if torch.allclose(stacked, alone, rtol=near, atol=near, equal_nan=True):
            return ""
        return f"a stack of points gave {stacked.tolist()}, the same points alone {alone.tolist()}"

    def _fastest(self, name: int, batch: Batch) -> int:
        """Points at a time: doubled as long as that pays and fits in memory."""
        with torch.enable_grad():
            _, size = held_bytes(lambda: loss_of(self._alone.problem, self._alone.model, batch, name))
        room = SHARE * available(self.flat.device) / (size + self.start.nbytes)
        best, together = self._seconds(name, batch, 1), 1
        while 2 * together <= min(room, MOST):
            each = self._seconds(name, batch, 2 * together)
            if each > PAYS * best:
                break
            best, together = each, 2 * together
        return together

    def _seconds(self, name: int, batch: Batch, together: int) -> float:
        """Of one point in a stack of so many, what first layers share left out; the faster of two."""
        layers, times = Affine(), []
        points = torch.zeros(together, 2).to(self.start)
        self._stack(name, batch, points[:1], layers)
        for _ in range(2):
            began = time.perf_counter()
            self._stack(name, batch, points, layers)
            times.append(time.perf_counter() - began)
        return min(times) / together
