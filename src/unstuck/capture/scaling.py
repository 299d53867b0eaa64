"""Gradient scaling and clipping as a training does them: which loss a scaled one came from, and whether gradients were
true when they were clipped."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

from torch import Tensor

from unstuck.capture.seen import Seen
from unstuck.loop import Clip

CLIPS = 100_000
"""So many calls of clipping are kept."""


class Scaling:
    """What the wraps report of `GradScaler` and of clipping; `loud` ends a quiet stretch of the watch."""

    def __init__(self, seen: Seen, loud: Callable[[], None]) -> None:
        self._seen, self._loud = seen, loud
        self._last: tuple[Any, Any, float] | None = None
        self._unscaled = False

    def scaled(self, loss: Any, scaled: Any) -> None:
        """Keep which loss a scaled one came from."""
        if isinstance(loss, Tensor) and isinstance(scaled, Tensor):
            self._loud()
            ratio = float(scaled.detach() / loss.detach()) if float(loss.detach()) != 0 else 1.0
            self._last = (loss, scaled, ratio)
            self._seen.scale = ratio if isfinite(ratio) else self._seen.scale

    def unscaled(self) -> None:
        """Gradients are true again."""
        self._unscaled = True

    def clipped(self, clip: Clip, norm: Any) -> None:
        """Keep bound and norm; note clipping of gradients that a scaler had not unscaled."""
        if self._last is not None and self._last[2] != 1.0 and not self._unscaled:
            self._seen.clip_unscaled = True
        if len(self._seen.clips) < CLIPS:
            self._seen.clips.append((clip, norm.detach() if isinstance(norm, Tensor) else norm))

    def original(self, loss: Tensor) -> tuple[Tensor, float]:
        """The loss as it was before a scaler multiplied it, and by how much."""
        if self._last is not None and self._last[1] is loss:
            return self._last[0], self._last[2]
        return loss, 1.0

    def stepped(self) -> None:
        """The step that these belonged to is made."""
        self._last, self._unscaled = None, False
