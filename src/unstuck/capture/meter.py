"""How much time watching may take, and has taken: `share` of the training's time plus a fixed start-up allowance.

The meter sums the seconds of our own work, and a constant a step for what is too short to time. `may_sample` says
whether the next step can afford to be recorded.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

ALLOWANCE_S = 0.03
"""Start-up allowance: the copy of a small model's initial state and its first tapes, half a millisecond to two each."""

PER_STEP_S = 2e-6
"""What a step costs that is only counted: the wrap of backward, the loss's value, the optimizer's hook (measured on
a training of 170 microseconds a step: 1.9)."""

PER_CALL_S = 2e-6
"""What keeping one torch call costs."""

USED = 0.15
"""Of the share, what recording takes: the rest is for what no clock here sees, and for the start-up allowance."""

TRUSTED = 10.0
"""Of what a recorded step took longer than plain ones, at most so many times what timers saw is ours."""

STRETCHES = 15

LOOK_UP_S = 5.0
"""So often at least, in seconds of plain steps, the account is settled anew: steps may have become longer."""


class Meter:
    """Seconds spent watching, against seconds of training since the first forward pass."""

    def __init__(self, share: float = 0.02) -> None:
        self.share = share
        self.spent = 0.0
        self.began: float | None = None
        self.ended: float | None = None
        self._last_step = 0.0
        self._spent_then = 0.0
        self._plain: deque[float] = deque(maxlen=STRETCHES)

    def begin(self) -> None:
        """The training's clock starts (once)."""
        if self.began is None:
            self.began = self._last_step = time.perf_counter()

    def pause(self, seconds: float) -> None:
        """So many seconds just past were not the training's."""
        if self.began is not None:
            self.began += seconds
        self._last_step += seconds

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

    def may_sample(self, cost_s: float) -> bool:
        """True if work of `cost_s` seconds still fits into the share."""
        return self.spent + cost_s <= ALLOWANCE_S + USED * self.share * self.elapsed

    def steps_until(self, cost_s: float) -> float:
        """In how many plain steps work of `cost_s` seconds will fit into the share, at most those of `LOOK_UP_S`."""
        missing = self.spent + cost_s - ALLOWANCE_S - USED * self.share * self.elapsed
        gain = USED * self.share * self.plain_s - PER_STEP_S
        if missing <= 0 or not self.plain_s:
            return 1.0
        longest = max(LOOK_UP_S / self.plain_s, 1.0)
        return min(max(missing / gain, 1.0), longest) if gain > 0 else longest

    @property
    def plain_s(self) -> float:
        """Seconds of a step that is not looked at (the median of the last stretches: pauses do not move it)."""
        return statistics.median(self._plain) if self._plain else 0.0

    def stepped(self, steps: int, plain: bool) -> None:
        """So many steps have ended, `plain` ones or one that was looked at.

        Recording makes every torch call of a step a little slower, and the step after it finds cold caches, which no
        timer inside them sees: what such a step takes longer than plain ones is ours, up to `TRUSTED` times the timed.
        """
        now = time.perf_counter()
        took, self._last_step = now - self._last_step, now
        timed = self.spent - self._spent_then
        self.spent += PER_STEP_S * steps
        if plain:
            self._plain.append(took / steps)
        elif self._plain:
            excess = took - steps * self.plain_s - timed
            self.spent += min(max(excess, 0.0), TRUSTED * timed)
        self._spent_then = self.spent

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Counts the body's seconds as our own."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.spent += time.perf_counter() - start
