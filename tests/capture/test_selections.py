"""Samples found in the script's own tensors: rows and windows, wherever a number tells where it lies."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from unstuck.capture.origin import _redrawn
from unstuck.capture.seen import Origin
from unstuck.capture.selections import _places, samples_of
from unstuck.recorder import Recorder
from unstuck.tape import link

COUNT, SIZE, LENGTH = 40_000, 16, 8
SERIES = torch.arange(COUNT)
"""The number at each place is the place."""


def origin_of(make: Callable[[], tuple[Tensor, Tensor]]) -> Origin:
    """The origin of a step whose loss takes what `make` returns."""
    torch.manual_seed(0)
    with Recorder(10_000) as recorder:
        x, y = make()
    linked = link(recorder.calls)
    numbers = linked.number(x), linked.number(y)
    assert None not in numbers
    return Origin(linked, numbers, None, ())  # type: ignore[arg-type]


def starts(size: int = SIZE, end: int = COUNT - LENGTH - 1) -> Tensor:
    return torch.randint(0, end, (size,))


def stacked() -> tuple[Tensor, Tensor]:
    at = starts()
    return torch.stack([SERIES[s : s + LENGTH] for s in at]), torch.stack([SERIES[s + 1 : s + LENGTH + 1] for s in at])


def stacked_at_numbers() -> tuple[Tensor, Tensor]:
    at = starts().tolist()
    x = torch.stack([SERIES[s : s + LENGTH] for s in at], dim=0)
    return x.float(), torch.stack([SERIES[s + 1 : s + LENGTH + 1] for s in at], dim=0)


def one_piece() -> tuple[Tensor, Tensor]:
    piece = torch.stack([SERIES[s : s + LENGTH + 1] for s in starts().tolist()])
    return piece[:, :-1], piece[:, 1:]


def matrix() -> tuple[Tensor, Tensor]:
    at = starts()[:, None] + torch.arange(LENGTH)
    return SERIES[at], SERIES[at + 1]


def matrix_flat() -> tuple[Tensor, Tensor]:
    at = starts()[:, None] + torch.arange(LENGTH)
    return SERIES[at], SERIES[at + 1].reshape(-1)


def next_only() -> tuple[Tensor, Tensor]:
    at = starts()
    return torch.stack([SERIES[s : s + LENGTH] for s in at]), SERIES[at + LENGTH]


def next_stacked() -> tuple[Tensor, Tensor]:
    at = starts().tolist()
    return torch.stack([SERIES[s : s + LENGTH] for s in at]), torch.stack([SERIES[s + LENGTH] for s in at])


def channels() -> tuple[Tensor, Tensor]:
    table, at = torch.stack([SERIES, -SERIES], 1), starts()
    return torch.stack([table[s : s + LENGTH] for s in at]), SERIES[at + LENGTH]


def pairs() -> tuple[Tensor, Tensor]:
    at = starts()
    return SERIES[at], SERIES[at + 1]


def one_sample() -> tuple[Tensor, Tensor]:
    at = starts(1)
    return torch.stack([SERIES[s : s + LENGTH] for s in at]), torch.stack([SERIES[s + 1 : s + LENGTH + 1] for s in at])


def one_window() -> tuple[Tensor, Tensor]:
    s = int(starts(1))
    return SERIES[s : s + LENGTH].unsqueeze(0), SERIES[s + 1 : s + LENGTH + 1].unsqueeze(0)


def one_window_flat() -> tuple[Tensor, Tensor]:
    s = int(starts(1))
    return SERIES[s : s + LENGTH].view(1, -1), SERIES[s + 1 : s + LENGTH + 1]


def one_window_of_places() -> tuple[Tensor, Tensor]:
    at = starts(1) + torch.arange(LENGTH)
    return SERIES[at][None], SERIES[at + LENGTH][None]


WINDOWS = (
    stacked, stacked_at_numbers, one_piece, matrix, matrix_flat, next_only, next_stacked, channels, pairs, one_sample,
    one_window, one_window_flat, one_window_of_places,
)  # fmt: skip


@pytest.mark.parametrize("make", WINDOWS, ids=lambda make: make.__name__)
def test_each_label_follows_its_window(make: Callable[[], tuple[Tensor, Tensor]]) -> None:
    origin = origin_of(make)
    size = len(origin.linked.tensors[origin.numbers[0]])
    batches = _redrawn(origin, size)
    assert sum(len(x) for x, _ in batches) > 1000
    seen = origin.linked.tensors[origin.numbers[0]], origin.linked.tensors[origin.numbers[1]]
    far = _last(seen[1], size) - _first(seen[0], size)  # between a window's first place and its label's last
    for x, y in batches:
        assert x.shape[1:] == seen[0].shape[1:]
        assert torch.equal(_last(y, size) - _first(x, size), far)


def _first(x: Tensor, size: int) -> Tensor:
    return x.reshape(size, -1)[:, 0].long()


def _last(y: Tensor, size: int) -> Tensor:
    return y.reshape(size, -1)[:, -1].long()


def test_windows_do_not_overlap_where_the_text_is_long_enough() -> None:
    """Else what is held out would be known from its neighbours."""
    taken = torch.cat([torch.cat([x, y[:, -1:]], 1) for x, y in _redrawn(origin_of(stacked), SIZE)])
    assert len(taken.unique()) == taken.numel()


def test_windows_of_a_short_text_are_as_many_as_it_has() -> None:
    text = SERIES[:100]
    batches = _redrawn(origin_of(lambda: (text[i := starts(16, 91)[:, None] + torch.arange(8)], text[i + 1])), 16)
    found = torch.cat([x for x, _ in batches])[:, 0]
    assert len(found.unique()) == len(found) == 80  # of 92; a ragged rest is dropped
    assert int(found.max()) <= 91


def test_what_the_script_keeps_for_validation_is_not_drawn() -> None:
    """Sixteen starts that all lie in the first half were not drawn from the whole."""
    part = origin_of(lambda: (SERIES[i := starts(16, COUNT // 2)[:, None] + torch.arange(8)], SERIES[i + 1]))
    assert max(int(y.max()) for _, y in _redrawn(part, 16)) <= COUNT // 2 + 8
    whole = samples_of(origin_of(matrix), SIZE)
    assert whole is not None and int(whole.places.max()) > 0.99 * COUNT - 100


def unrelated() -> tuple[Tensor, Tensor]:
    one, other = starts(), starts()
    return SERIES[one[:, None] + torch.arange(LENGTH)], SERIES[other]


def unordered() -> tuple[Tensor, Tensor]:
    at = torch.randint(0, COUNT, (SIZE, LENGTH))
    return SERIES[at], SERIES[starts()]


def sequence() -> tuple[Tensor, Tensor]:
    return SERIES[100 : 100 + SIZE], SERIES[101 : 101 + SIZE]


def other_tables() -> tuple[Tensor, Tensor]:
    at = starts(SIZE, 60)
    return torch.randn(60, 3)[at], SERIES[at]


def along_the_second() -> tuple[Tensor, Tensor]:
    at = starts(SIZE)
    x, y = [SERIES[s : s + SIZE] for s in at], [SERIES[s + 1 : s + SIZE + 1] for s in at]
    return torch.stack(x, 1), torch.stack(y, 1)


def masked() -> tuple[Tensor, Tensor]:
    """A mask over all entries of a table: what it picks are no rows."""
    table = torch.randn(SIZE, LENGTH)
    mask = table > 0
    return table[mask][:SIZE], SERIES[starts()]


def two_tensors_one_sample() -> tuple[Tensor, Tensor]:
    return SERIES[starts(1)[:, None] + torch.arange(LENGTH)], (SERIES + 0)[starts(1)]


REFUSED = (unrelated, unordered, sequence, other_tables, along_the_second, masked, two_tensors_one_sample)


@pytest.mark.parametrize("make", REFUSED, ids=lambda make: make.__name__)
def test_nothing_is_drawn_where_labels_could_stand_beside_other_inputs(
    make: Callable[[], tuple[Tensor, Tensor]],
) -> None:
    origin, size = origin_of(make), 1 if make is two_tensors_one_sample else SIZE
    assert _redrawn(origin, size) == []


@pytest.mark.parametrize(
    "pick",
    [
        slice(3, 7), slice(None), slice(-4, None), slice(1, 9, 3), slice(20, 30), 2, -1, [0, 4, -2], [True, False] * 5,
        np.array([1, 1, 8]), torch.tensor([[0, 9], [-1, 3]]), torch.arange(10) > 6, torch.tensor(5),
        slice(torch.tensor(2), 5),
    ],
    ids=str,
)  # fmt: skip
def test_the_places_are_those_that_the_pick_takes(pick: object) -> None:
    assert torch.equal(_places(10, pick), torch.arange(10)[pick])  # type: ignore[arg-type, index]


@pytest.mark.parametrize("pick", [(slice(1), 0), None, ..., True, torch.ones(10, 2, dtype=torch.bool)], ids=str)
def test_what_picks_more_than_rows_has_no_places(pick: object) -> None:
    assert _places(10, pick) is None


def test_a_mask_over_all_entries_is_no_choice_of_rows() -> None:
    """Said before anything is drawn: where it raised, no copy of the training was made."""
    table = torch.randn(SIZE, LENGTH)
    origin = origin_of(lambda: (table[table > 0] * 2, table[table > 0] + 1))
    assert samples_of(origin, SIZE) is None
