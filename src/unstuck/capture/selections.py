"""Which samples a script picks of its tensors: rows of a table, or windows of a text or a series.

`X[idx]`, `torch.stack([text[s : s + 64] for s in starts])` and `text[starts[:, None] + torch.arange(64)]` all say for
each sample where it lies in a tensor. Where inputs and labels lie at a constant distance (labels one character on), any
other place gives a sample as good as the script's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unstuck.capture.seen import Origin
from unstuck.recorder import name_of
from unstuck.tape import Linked

PICKS = frozenset({"__getitem__", "index_select"})
DISJOINT = 2048
"""Windows are drawn without overlap where that leaves so many of them; else as near to each other as gives so many."""
UNLIKELY = 1e-3


@dataclass(frozen=True)
class Cut:
    """What one call picked of `base`: for sample i the row `starts[i]`, or the `length` rows from there on; `alone`:
    the one window of a batch of one, as it was cut, with no dimension for the sample."""

    number: int
    base: Tensor
    starts: Tensor
    length: int | None
    alone: bool = False

    @property
    def reach(self) -> int:
        """How many rows of `base` a sample takes."""
        return self.length or 1

    def at(self, starts: Tensor) -> Tensor:
        """The same call with samples at other starts: [len(starts), …], [len(starts), length, …], [length, …] alone."""
        if self.length is not None:
            starts = starts[:, None] + torch.arange(self.length)
        picked = self.base[starts.to(self.base.device)].detach()
        return picked[0] if self.alone else picked


@dataclass(frozen=True)
class Samples:
    """A batch's samples as places in the script's tensors; `offsets[k]` is where cut k begins from a place.

    `places` are those of all samples that there are, `ordered` says that the script takes them one after the other.
    """

    cuts: tuple[Cut, ...]
    offsets: tuple[int, ...]
    places: Tensor
    ordered: bool

    def __len__(self) -> int:
        return len(self.places)

    def take(self, index: Tensor) -> dict[int, Tensor]:
        """The picked tensors, by number, for these samples."""
        places = self.places[index]
        return {cut.number: cut.at(places + far) for cut, far in zip(self.cuts, self.offsets, strict=True)}


def samples_of(origin: Origin, size: int) -> Samples | None:
    """All samples that the step's `size` ones are of; None where it does not show where they lie."""
    found = map(_one, _cuts(origin)) if size == 1 else _cuts(origin)
    cuts = tuple(cut for cut in found if len(cut.starts) == size)
    if not cuts:
        return None
    offsets = _offsets(cuts)
    if offsets is None:
        return None
    rows = all(cut.length is None for cut in cuts)
    consecutive = size > 1 and bool((cuts[0].starts.diff() == 1).all())
    if rows and consecutive and any(offsets):
        return None  # a piece of a sequence and the piece that follows: its rows are no samples
    low = max(-far for far in offsets)
    high = min(len(cut.base) - cut.reach - far for cut, far in zip(cuts, offsets, strict=True))
    if rows:
        return Samples(cuts, offsets, torch.arange(low, high + 1), consecutive)
    span = max(cut.reach + far for cut, far in zip(cuts, offsets, strict=True)) - min(offsets)
    return Samples(cuts, offsets, _spaced(*_drawn_from(cuts[0].starts, low, high), span), False)


def _spaced(low: int, high: int, span: int) -> Tensor:
    return torch.arange(low, high + 1, max(1, min(span, (high - low) // DISJOINT)))


def _one(cut: Cut) -> Cut:
    """Of a batch of one sample: several rows that follow each other are its window."""
    if cut.length is not None or len(cut.starts) < 2 or bool((cut.starts.diff() != 1).any()):
        return cut
    return Cut(cut.number, cut.base, cut.starts[:1], len(cut.starts), alone=True)


def _offsets(cuts: Sequence[Cut]) -> tuple[int, ...] | None:
    """How far from the first cut's start each one begins, if that is the same for every sample. One sample alone shows
    it only where all is cut of one tensor side by side, or at one place."""
    first = cuts[0]
    gaps = [cut.starts - first.starts for cut in cuts]
    if any(bool((gap != gap[0]).any()) for gap in gaps):
        return None
    offsets = tuple(int(gap[0]) for gap in gaps)
    if len(first.starts) == 1 and any(offsets):
        near = all(cut.base is first.base and abs(far) <= first.reach for cut, far in zip(cuts, offsets, strict=True))
        return offsets if near else None
    same = {len(cut.base) for cut in cuts}
    return offsets if len(same) == 1 or any(cut.length is not None for cut in cuts) else None


def _drawn_from(starts: Tensor, low: int, high: int) -> tuple[int, int]:
    """`low` and `high`, or the range seen where starts drawn from all would hardly have missed the rest (a script that
    validates on the end of the tensor it trains on)."""
    count, least, most = len(starts), int(starts.min()), int(starts.max())
    share = (most - least) / max(1, high - low)
    chance = count * share ** (count - 1) - (count - 1) * share**count  # of the range of `count` uniform draws
    mixed = bool((starts.diff() < 0).any()) and bool((starts.diff() > 0).any())
    return (least, most) if mixed and chance < UNLIKELY else (low, high)


def _cuts(origin: Origin) -> Iterator[Cut]:
    """The cuts that the leaves descend from, the nearest ones."""
    linked, open_, known = origin.linked, list(origin.numbers), set(origin.numbers)
    while open_:
        number = open_.pop()
        cut = _cut(linked, number)
        if cut is not None:
            yield cut
            continue
        index = linked.producer.get(number)
        for read in linked.reads(index) if index is not None else ():
            if read not in known:
                known.add(read)
                open_.append(read)


def _cut(linked: Linked, number: int) -> Cut | None:
    found = _stacked(linked, number) or _picked(linked, number)
    if found is None:
        return None
    base, places = found
    if places.dim() == 1:
        return Cut(number, base, places, None) if len(places) else None
    if places.dim() != 2 or not places.numel():
        return None
    starts, length = places[:, 0], places.shape[1]
    runs = bool((places == starts[:, None] + torch.arange(length)).all())
    return Cut(number, base, starts, length) if runs else None


def _picked(linked: Linked, number: int) -> tuple[Tensor, Tensor] | None:
    """The tensor that call picked rows of, and the rows' places, shaped as the pick is."""
    index = linked.producer.get(number)
    call = linked.calls[index] if index is not None else None
    if call is None or name_of(call.function) not in PICKS or not call.args or not isinstance(call.args[0], Tensor):
        return None
    base, pick = call.args[0], call.args[-1]
    if base.dim() == 0 or not len(base) or not isinstance(call.output, Tensor):
        return None
    if name_of(call.function) == "index_select" and call.args[1:2] != (0,):
        return None
    places = _places(len(base), pick)
    return (base, places) if places is not None and call.output.shape == (*places.shape, *base.shape[1:]) else None


def _places(count: int, pick: Any) -> Tensor | None:
    """Which of `count` rows are picked, in the shape of the pick; None where it picks more than rows (a mask over all
    entries, a tuple). Costs what is picked: a text may have a hundred million letters."""
    if isinstance(pick, slice):
        rows = range(count)[pick]
        return torch.arange(rows.start, rows.stop, rows.step)
    if not isinstance(pick, (int, list, np.ndarray, Tensor)):
        return None
    index = torch.as_tensor(pick).detach().cpu()
    if index.dtype in (torch.bool, torch.uint8):
        return index.nonzero().flatten() if index.shape == (count,) else None
    return index.long() % count


def _stacked(linked: Linked, number: int) -> tuple[Tensor, Tensor] | None:
    """The same of pieces picked one by one of one tensor and stacked."""
    index = linked.producer.get(number)
    call = linked.calls[index] if index is not None else None
    if call is None or name_of(call.function) != "stack" or linked.tensors[number].dim() == 0:
        return None
    pieces = [_picked(linked, part) for part in linked.reads(index)]  # type: ignore[arg-type]
    found = [piece for piece in pieces if piece is not None]
    if not found or len(found) < len(pieces) or any(base is not found[0][0] for base, _ in found):
        return None
    along = call.args[1] if len(call.args) > 1 else call.kwargs.get("dim", 0)
    return (found[0][0], torch.stack([places for _, places in found])) if along == 0 else None
