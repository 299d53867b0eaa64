"""How much time watching may take, and has taken: `share` of the training's time plus a fixed start-up allowance.

The meter sums the seconds of our own work, and the calls whose cost is too small to time (a constant each, measured
once at start). `may_sample` says whether the next step can afford to be recorded.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

ALLOWANCE_S = 0.05
"""Start-up allowance: the first tape and the copy of the initial state of a small model take about this much."""

PER_HOOK_S = 2e-6
"""One wrap's own cost, measured on a 2 GHz core: two Python calls and an append."""

TRUSTED = 10.0
NUDGE = 1.02


class Meter:
    """Seconds spent watching, against seconds of training since the first forward pass."""

    def __init__(self, share: float = 0.02) -> None:
        self.share = share
        self.spent = 0.0
        self.hooks = 0
        self.began: float | None = None
        self.ended: float | None = None
        self._last_step = 0.0
        self._spent_then = 0.0
        self._plain_s = 0.0

    def begin(self) -> None:
        """The training's clock starts (once)."""
        if self.began is None:
            self.began = time.perf_counter()

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
    def own(self) -> float:
        """Seconds spent watching so far."""
        return self.spent + self.hooks * PER_HOOK_S

    @property
    def overhead(self) -> float:
        """Share of the training's own time that watching added."""
        return self.own / max(self.elapsed - self.own, 1e-9)

    def may_sample(self, cost_s: float) -> bool:
        """True if work of `cost_s` seconds still fits into the share (half of it: the rest is reserve)."""
        return self.own + cost_s <= ALLOWANCE_S + 0.5 * self.share * self.elapsed

    def stepped(self, sampled: bool) -> None:
        """A step has ended. What a sampled one took longer than plain ones do is ours, beyond what was timed already.

        Recording makes every torch call of the step a little slower, which no timer inside it sees. The excess counts
        up to `TRUSTED` times what was timed: a validation or a pause of the machine is not ours.
        """
        now = time.perf_counter()
        took, self._last_step = now - self._last_step, now
        timed, self._spent_then = self.spent - self._spent_then, self.spent
        if not sampled:
            # A running median: pauses (a validation, another process) do not move it more than any other step.
            self._plain_s = self._plain_s * (NUDGE if took > self._plain_s else 1 / NUDGE) if self._plain_s else took
        elif self._plain_s:
            excess = took - self._plain_s - timed
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
