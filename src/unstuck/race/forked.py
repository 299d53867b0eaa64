"""Lanes dealt to forked processes: each builds its own heat and obeys over a pipe.

Forked, not spawned: a child has the problem as it is, whatever its model is made of (a class of the user's script
cannot be pickled), and torch need not be loaded again (2 s). It keeps to one thread, since a pool of threads does not
survive a fork, and it ignores Ctrl-C, which is for the parent. Memory it has freed it keeps, where the C library lets
it: to give back and ask anew for the same 10 MB at every step costs as much as to compute with them.
"""

from __future__ import annotations

import ctypes
import itertools
import multiprocessing
import signal
import weakref
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

import torch

from unstuck.criterion import Score
from unstuck.errors import LaneLost

_LIVING: weakref.WeakSet[Forked] = weakref.WeakSet()
"""All of them: a child inherits the ends of every one, and would keep the others' children waiting."""


class Forked:
    """The lanes of several processes as one heat. `order`: the lane at each place, process after process; left out,
    lanes were dealt as they come."""

    def __init__(
        self, makes: Sequence[Callable[[], Any]], counts: Sequence[int], order: Sequence[int] | None = None
    ) -> None:
        context = multiprocessing.get_context("fork")
        self.counts = list(counts)
        self._order = list(range(sum(counts)) if order is None else order)
        self.workers: list[Any] = []
        self._ends: list[Connection] = []
        for make in makes:
            ours, theirs = context.Pipe()
            self._ends.append(ours)
            inherited = [*self._ends, *(end for other in _LIVING for end in other._ends)]
            worker = context.Process(target=_serve, args=(make, theirs, inherited), daemon=True)
            worker.start()
            theirs.close()
            self.workers.append(worker)
        self._finalizer = weakref.finalize(self, _end, self.workers, self._ends)
        _LIVING.add(self)

    @property
    def curves(self) -> list[list[float]]:
        """The losses of each lane."""
        return self._gathered("curves")

    @property
    def diverged(self) -> list[bool]:
        """Lanes whose loss stopped being finite."""
        return self._gathered("diverged")

    def scores(self) -> list[Score]:
        """Each lane's score."""
        return self._gathered("scores")

    def advance(self, steps: int) -> None:
        """Make so many steps in every lane, in all processes at once."""
        self._all("advance", [(steps,)] * len(self.workers))

    def check(self, steps: int) -> list[Any]:
        """Make so many steps, and say how each lane stands."""
        return self._gathered("check", steps)

    def keep(self, lanes: Sequence[int]) -> None:
        """Go on with these lanes alone; a process that is left without any rests."""
        now, told, order = {lane: k for k, lane in enumerate(lanes)}, [], []
        for own in self._dealt():
            told.append(([k for k, lane in enumerate(own) if lane in now],))
            order += [now[lane] for lane in own if lane in now]
        self._all("keep", told)
        self.counts, self._order = [len(kept) for (kept,) in told], order

    def each(self, what: str, *arguments: Any, first: int | None = None) -> list[Any]:
        """What each process (or the `first` of them) answers when its heat is asked for this."""
        return self._all(what, [arguments] * len(self.workers), first)

    def close(self) -> None:
        """End the processes. Done by itself when the heat is let go."""
        self._finalizer()

    def _dealt(self) -> list[list[int]]:
        """The lanes of each process."""
        ends = list(itertools.accumulate(self.counts, initial=0))
        return [self._order[a:b] for a, b in itertools.pairwise(ends)]

    def _gathered(self, what: str, *arguments: Any) -> list[Any]:
        found = [one for part in self.each(what, *arguments) for one in part]
        return [found[place] for place in sorted(range(len(found)), key=self._order.__getitem__)]

    def _all(self, what: str, arguments: Sequence[tuple[Any, ...]], first: int | None = None) -> list[Any]:
        """Tell every process (or the `first` of them), then hear them all: they work at the same time."""
        busy = [k for k, count in enumerate(self.counts) if count][:first]
        try:
            for k in busy:
                self._ends[k].send((what, arguments[k]))
            heard = [self._ends[k].recv() for k in busy]
        except (EOFError, OSError) as error:
            why = type(error).__name__
            raise LaneLost(f"race: a process that trained lanes was lost ({why}); out of memory?") from None
        wrong = next((answer for good, answer in heard if not good), None)
        if wrong is not None:
            raise LaneLost(f"race: a lane failed in its process: {wrong}")
        return [answer for _, answer in heard]


def _serve(make: Callable[[], Any], pipe: Connection, others: Sequence[Connection]) -> None:
    """A child's life: build the heat, then do as told until the parent closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    _keep_memory()
    for other in others:  # the parent's ends, inherited: with them open, no end would ever be seen
        other.close()
    heat: Any = None
    try:
        while True:
            what, arguments = pipe.recv()
            try:
                heat = make() if heat is None else heat
                answer = (True, _obeyed(heat, what, arguments))
            except Exception as error:  # the user's own model may raise anything
                answer = (False, f"{type(error).__name__}: {error}")
            pipe.send(answer)
    except (EOFError, OSError):  # the parent is gone
        return


def _obeyed(heat: Any, what: str, arguments: tuple[Any, ...]) -> Any:
    """The answer; a heat that is to keep no lane is left as it is, and not asked again."""
    if what == "keep" and not arguments[0]:
        return None
    asked = getattr(heat, what)
    return asked(*arguments) if callable(asked) else asked


def _keep_memory() -> None:
    """glibc: allocations of any size from the heap, which is not trimmed (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(-3, 1 << 30)
    mallopt(-1, 1 << 30)


def _end(workers: Sequence[Any], ends: Sequence[Connection]) -> None:
    for end in ends:
        end.close()
    for worker in workers:
        worker.join(timeout=1.0)
        if worker.is_alive():
            worker.terminate()
