"""How the lanes of a stack are moved: all at once by our update rules, or one by one by torch's own optimizers.

All at once is faster where a lane is small (an operation serves all of them); one by one where it is large, because
torch's fused kernels pass through memory once, and where we have no rule for the optimizer.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from unstuck.optim.rule import Flags, Rule, State
from unstuck.optim.rules import counterpart
from unstuck.problem import Problem
from unstuck.training import Training

FUSED = (torch.optim.SGD, torch.optim.Adagrad, torch.optim.Adam, torch.optim.AdamW)
"""Optimizers of torch with a fused kernel on CPUs and GPUs."""


class Updates(Protocol):
    """One way to move the rows."""

    def step(self, flat: Tensor, gradients: Sequence[Tensor], diverged: Tensor, step: int) -> Tensor:
        """Parameters [lanes, n] after the step along the gradient [lanes, …] of each of them."""
        ...

    def keep(self, lanes: Sequence[int]) -> None:
        """Go on with these lanes alone."""
        ...


def has_rules(problems: Sequence[Problem]) -> bool:
    """True if `Together` can move these lanes."""
    recipes = [problem.optimizer for problem in problems]
    return all(
        recipe is not None and all(counterpart(recipe.cls, hyper) is not None for hyper, _ in recipe.groups)
        for recipe in recipes
    )


def _kinds(run: Training) -> list[tuple[Rule, Flags, dict[str, float]]]:
    """The rule of each group of the lane's optimizer."""
    assert run.optimizer is not None
    found = [counterpart(type(run.optimizer), group) for group in run.optimizer.param_groups]
    return [kind for kind in found if kind is not None]


@dataclass
class _Block:
    """Rows and columns of [lanes, n] that one rule moves: lanes of the same optimizer, parameters of one group."""

    rule: Rule
    flags: Flags
    rows: list[int]
    columns: list[slice]
    numbers: dict[str, Tensor]
    group: int
    state: State | None = None


class Together:
    """All lanes at once, by `unstuck.optim`; lanes of different optimizers are different blocks."""

    def __init__(self, runs: Sequence[Training], names: Sequence[str], shapes: Sequence[torch.Size]) -> None:
        self.runs = list(runs)
        ends = list(itertools.accumulate((shape.numel() for shape in shapes), initial=0))
        places = {name: slice(a, b) for name, (a, b) in zip(names, itertools.pairwise(ends), strict=True)}
        self.blocks: list[_Block] = []
        for lane, run in enumerate(self.runs):
            kinds = _kinds(run)
            assert run.problem.optimizer is not None
            held = [[n for n in names_ if n in places] for _, names_ in run.problem.optimizer.groups]
            for group, ((rule, flags, numbers), own) in enumerate(zip(kinds, [h for h in held if h], strict=False)):
                self._add(lane, rule, flags, numbers, group, _joined([places[n] for n in own]))

    def _add(
        self, lane: int, rule: Rule, flags: Flags, numbers: dict[str, float], group: int, columns: list[slice]
    ) -> None:
        entry = {name: torch.tensor([value], dtype=torch.float64) for name, value in numbers.items()}
        for block in self.blocks:
            if (block.rule, block.flags, block.group, block.columns) == (rule, flags, group, columns):
                block.rows.append(lane)
                block.numbers = {name: torch.cat([block.numbers[name], entry[name]]) for name in entry}
                return
        self.blocks.append(_Block(rule, flags, [lane], columns, entry, group))

    def step(self, flat: Tensor, gradients: Sequence[Tensor], diverged: Tensor, step: int) -> Tensor:
        """Every block by its rule; lanes that have diverged stay where they are."""
        gradient = torch.cat([part.reshape(len(flat), -1) for part in gradients], 1)
        moved = [self._moved(block, flat, gradient, step) for block in self.blocks]
        whole, rows = [slice(0, flat.shape[1])], [row for block in self.blocks for row in block.rows]
        if rows == list(range(len(flat))) and all(block.columns == whole for block in self.blocks):
            after = torch.cat(moved) if len(moved) > 1 else moved[0]
        else:
            after = flat.clone()
            for block, new in zip(self.blocks, moved, strict=True):
                for piece, columns in zip(new.split([_width(c) for c in block.columns], 1), block.columns, strict=True):
                    after[_rows(block.rows), columns] = piece
        return torch.where(diverged.unsqueeze(1), flat, after) if bool(diverged.any()) else after

    def _moved(self, block: _Block, flat: Tensor, gradient: Tensor, step: int) -> Tensor:
        part, slope = (_cut(values, block) for values in (flat, gradient))
        factors = [self.runs[row].factor for row in block.rows]
        numbers = block.numbers
        if any(factor != 1.0 for factor in factors):
            numbers = {**numbers, "lr": numbers["lr"] * torch.tensor(factors, dtype=torch.float64)}
        if block.state is None:
            block.state = block.rule.init(part, numbers, block.flags)
        new, block.state = block.rule.update(part, slope, block.state, numbers, block.flags, step)
        return new

    def keep(self, lanes: Sequence[int]) -> None:
        """Go on with these lanes alone."""
        self.runs = [self.runs[lane] for lane in lanes]
        place = {lane: k for k, lane in enumerate(lanes)}
        for block in self.blocks:
            inside = [k for k, row in enumerate(block.rows) if row in place]
            block.rows = [place[block.rows[k]] for k in inside]
            block.numbers = {name: value[inside] for name, value in block.numbers.items()}
            block.state = {n: value[inside] for n, value in block.state.items()} if block.state is not None else None
        self.blocks = [block for block in self.blocks if block.rows]


class OneByOne:
    """Each lane by its own torch optimizer, fused where torch has that."""

    def __init__(self, runs: Sequence[Training], names: Sequence[str], shapes: Sequence[torch.Size]) -> None:
        self.runs, self.names = list(runs), list(names)
        self._own = [self._parameters(run) for run in self.runs]
        for run in self.runs:
            assert run.optimizer is not None
            for group in run.optimizer.param_groups if type(run.optimizer) in FUSED else ():
                group.update(fused=True, foreach=False)

    def _parameters(self, run: Training) -> list[torch.nn.Parameter]:
        own = dict(run.model.named_parameters())
        return [own[name] for name in self.names]

    def step(self, flat: Tensor, gradients: Sequence[Tensor], diverged: Tensor, step: int) -> Tensor:
        """In place: the lanes' models hold the rows."""
        rows = zip(*(gradient.unbind() for gradient in gradients), strict=True)
        for run, own, row, out in zip(self.runs, self._own, rows, diverged.tolist(), strict=True):
            if out or run.optimizer is None:
                continue
            for parameter, part in zip(own, row, strict=True):
                parameter.grad = part
            run.schedule()
            run.optimizer.step()
        return flat

    def keep(self, lanes: Sequence[int]) -> None:
        """Go on with these lanes alone."""
        self.runs = [self.runs[lane] for lane in lanes]
        self._own = [self._own[lane] for lane in lanes]


def _cut(values: Tensor, block: _Block) -> Tensor:
    """The block of [lanes, n]: a view where its rows are neighbours and its columns all."""
    rows = values[_rows(block.rows)]
    if block.columns == [slice(0, values.shape[1])]:
        return rows
    return torch.cat([rows[:, columns] for columns in block.columns], 1)


def _rows(rows: list[int]) -> list[int] | slice:
    """The same rows as a slice where they are neighbours: lanes are best given sorted by optimizer."""
    return slice(rows[0], rows[-1] + 1) if rows[-1] - rows[0] == len(rows) - 1 else rows


def _joined(places: Sequence[slice]) -> list[slice]:
    """The same columns in as few slices as possible."""
    joined: list[slice] = []
    for place in sorted(places, key=lambda s: s.start):
        if joined and joined[-1].stop == place.start:
            joined[-1] = slice(joined[-1].start, place.stop)
        else:
            joined.append(place)
    return joined


def _width(columns: slice) -> int:
    return int(columns.stop - columns.start)
