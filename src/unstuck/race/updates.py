"""How the lanes of a stack are moved all at once, by our update rules.

That is faster than one by one where a lane is small: an operation serves all of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from unstuck.optim.rule import Flags, Number, Rule, State
from unstuck.optim.rules import counterpart
from unstuck.problem import Problem
from unstuck.training import Training


class Updates(Protocol):
    """One way to move the rows."""

    def step(self, flat: Tensor, gradients: Sequence[Tensor], out: Sequence[int], step: int) -> None:
        """Move the parameters [lanes, n] where they are, along the gradient [lanes, …] of each of them; lanes that are
        `out` stay as they are."""
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
    hyper: dict[str, Number] = field(default_factory=dict)

    def settle(self) -> None:
        """Note the numbers as the rule is to have them: what all lanes share as a float."""
        self.hyper = {
            name: float(value[0]) if name != "lr" and bool((value == value[0]).all()) else value
            for name, value in self.numbers.items()
        }


class Together:
    """All lanes at once, by `unstuck.optim`; lanes of different optimizers are different blocks."""

    def __init__(self, runs: Sequence[Training], names: Sequence[str], shapes: Sequence[torch.Size]) -> None:
        self.runs = list(runs)
        ends = list(itertools.accumulate((shape.numel() for shape in shapes), initial=0))
        places = {name: slice(a, b) for name, (a, b) in zip(names, itertools.pairwise(ends), strict=True)}
        self.blocks: list[_Block] = []
        self.width = ends[-1]
        for lane, run in enumerate(self.runs):
            kinds = _kinds(run)
            assert run.problem.optimizer is not None
            held = [[n for n in names_ if n in places] for _, names_ in run.problem.optimizer.groups]
            for group, ((rule, flags, numbers), own) in enumerate(zip(kinds, [h for h in held if h], strict=False)):
                self._add(lane, rule, flags, numbers, group, _joined([places[n] for n in own]))
        self._settle()

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

    def step(self, flat: Tensor, gradients: Sequence[Tensor], out: Sequence[int], step: int) -> None:
        """Every block by its rule; lanes that are out stay where they are."""
        gradient = torch.cat([part.reshape(len(flat), -1) for part in gradients], 1)
        moved = [self._moved(block, flat, gradient, step) for block in self.blocks]
        still = flat[out] if out else None
        if self._tiled:
            torch.cat(moved, out=flat)
        else:
            for block, new in zip(self.blocks, moved, strict=True):
                for piece, columns in zip(new.split([_width(c) for c in block.columns], 1), block.columns, strict=True):
                    flat[_rows(block.rows), columns] = piece
        if still is not None:
            flat[out] = still

    def _settle(self) -> None:
        """Note what does not change from step to step."""
        rows = [row for block in self.blocks for row in block.rows]
        whole = all(block.columns == [slice(0, self.width)] for block in self.blocks)
        self._tiled = whole and rows == list(range(len(self.runs)))
        self._scheduled = any(run.problem.loop.schedule for run in self.runs)
        for block in self.blocks:
            block.settle()

    def _moved(self, block: _Block, flat: Tensor, gradient: Tensor, step: int) -> Tensor:
        part, slope = (_cut(values, block) for values in (flat, gradient))
        hyper: Mapping[str, Number] = block.hyper
        if self._scheduled:
            factors = torch.tensor([self.runs[row].factor for row in block.rows], dtype=torch.float64)
            hyper = {**hyper, "lr": hyper["lr"] * factors}
        if block.state is None:
            block.state = block.rule.init(part, hyper, block.flags)
        new, block.state = block.rule.update(part, slope, block.state, hyper, block.flags, step)
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
        self._settle()


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
