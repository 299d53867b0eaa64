"""How much time watching may take, and has taken: `share` of the training's time plus a fixed start-up allowance.

The meter sums the seconds of our own work, a constant a step for what is too short to time, and what a step that is
looked at takes beyond both. `may_sample` says whether the next step can afford to be recorded.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

ALLOWANCE_S = 0.02
"""Start-up allowance of each training: the copy of a small model's initial state and its first tapes, half a
millisecond to two each."""

DEVICE_ALLOWANCE_S = 0.4
"""And on a GPU, where the first copies and sums load their kernels: 0.2 s on an H200, once."""

PER_STEP_S = 2e-6
"""What a step costs that is only counted: the wrap of backward, the loss's value, the optimizer's hook (measured on
a training of 170 microseconds a step: 1.9)."""

PER_CALL_S = 2e-6
"""What keeping one torch call costs."""

USED, KEPT_FREE = 0.1, 0.6
"""Of the share, what recording steps takes, and up to where a validation may still be recorded (they are few, and steps
would else always be first). The rest is for what no clock here sees (a training of 3 to 11 ms a step was slower by 0.6
to 2.5 % of its time where the meter's account was 0.7 %), and for the start-up allowance."""

PAUSE = 3.0
"""A step that took so many plain ones had a pause of the training's own in it (a validation, a slow read)."""

STRETCHES = 15

LOOK_UP_S = 5.0
"""So often at least, in seconds of plain steps, the account is settled anew: steps may have become longer."""

own_clock = time.thread_time
"""Our own work by the time this thread ran: what else a busy machine did meanwhile is not ours, and one such pause, a
hundred times a look, would end all looking for minutes."""


class Meter:
    """Seconds that watching has cost (`spent`), against seconds of training since the first forward pass; `starts`:
    trainings that have begun."""

    def __init__(self, share: float = 0.02) -> None:
        self.share = share
        self.on_device = False
        self.starts = 1
        self.spent = 0.0
        self.began: float | None = None
        self.ended: float | None = None
        self._last_step = self._last_own = 0.0
        self._spent_then = 0.0
        self._plain: deque[float] = deque(maxlen=STRETCHES)
        self._plain_own: deque[float] = deque(maxlen=STRETCHES)
        self._looked_at: deque[float] = deque(maxlen=STRETCHES)

    def begin(self) -> None:
        """The training's clock starts (once)."""
        if self.began is None:
            self.began = self._last_step = time.perf_counter()
            self._last_own = own_clock()

    def pause(self, seconds: float) -> None:
        """So many seconds just past were not the training's."""
        if self.began is not None:
            self.began += seconds
        self._last_step += seconds
        self._last_own = own_clock()

    def end(self) -> None:
        """The training's clock stops."""
        self.ended = time.perf_counter()

    @property
    def elapsed(self) -> float:
        """Seconds of training so far."""
        return (self.ended or time.perf_counter()) - self.began if self.began is not None else 0.0

    @property
    def overhead(self) -> float:
        """Share of the training's own time that watching added."""
        return self.spent / max(self.elapsed - self.spent, 1e-9)

    @property
    def knows_plain(self) -> bool:
        """True once a step has been seen that was not recorded."""
        return bool(self._plain)

    def may_sample(self, cost_s: float, used: float = USED) -> bool:
        """True if work of `cost_s` seconds still fits into this part of the share."""
        return self.spent + cost_s + self.unseen_s <= self._allowance_s + used * self.share * self.elapsed

    def steps_until(self, cost_s: float) -> float:
        """In how many plain steps work of `cost_s` seconds will fit into the share, at most those of `LOOK_UP_S`."""
        missing = self.spent + cost_s + self.unseen_s - self._allowance_s - USED * self.share * self.elapsed
        gain = USED * self.share * self.plain_s - PER_STEP_S
        if missing <= 0 or not self.plain_s:
            return 1.0
        longest = max(LOOK_UP_S / self.plain_s, 1.0)
        return min(max(missing / gain, 1.0), longest) if gain > 0 else longest

    @property
    def _allowance_s(self) -> float:
        return self.starts * ALLOWANCE_S + (DEVICE_ALLOWANCE_S if self.on_device else 0.0)

    @property
    def plain_s(self) -> float:
        """Seconds of a step that is not looked at (the median of the last stretches: pauses do not move it)."""
        return statistics.median(self._plain) if self._plain else 0.0

    @property
    def unseen_s(self) -> float:
        """What a step that is looked at takes longer than a plain one, beyond what timers saw of our work in it.

        Recording makes every torch call a little slower, and what follows finds cold caches. A difference of means over
        the last such steps, because steps differ among themselves by more than it.
        """
        if not self._plain_own or not self._looked_at:
            return 0.0
        plain = statistics.median(self._plain_own)
        return max(0.0, statistics.fmean(min(rest, PAUSE * plain) for rest in self._looked_at) - plain)

    def stepped(self, steps: int, plain: bool) -> None:
        """So many steps have ended, `plain` ones or one that was looked at."""
        now, own = time.perf_counter(), own_clock()
        took, worked = now - self._last_step, own - self._last_own
        self._last_step, self._last_own = now, own
        timed = self.spent - self._spent_then
        self.spent += PER_STEP_S * steps
        if plain:
            self._plain.append(took / steps)
            self._plain_own.append(worked / steps)
        else:
            self._looked_at.append(worked - timed)
            # At the price of today: a later, lower estimate must not hand out a row of looks at once.
            self.spent += self.unseen_s
        self._spent_then = self.spent

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Counts the body's seconds as our own. A full garbage collection (some 0.05 s for the objects of torch and the
        script), were it due just then, is left to the training, which would have had it a little later anyway."""
        start, collects = own_clock(), gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if collects:
                gc.enable()
            self.spent += own_clock() - start
