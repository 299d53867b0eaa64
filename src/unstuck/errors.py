"""The exceptions a user of `unstuck` can meet.

    UnstuckError
    ├── BadArgument        a call got something it cannot use: which argument, what arrived, what to do
    ├── NotReplayable      a recorded loss cannot be computed again on a copy; the report says why
    ├── NotMeasurable      a quantity that cannot be measured on this problem; the message names what stands in the way
    ├── NotApplicable      a probe has nothing to measure here (no validation data, nothing random); not worth a word
    ├── LaneLost           a process that trained lanes of a race ended before its time, or failed
    └── TargetNotFound     `unstuck examine FILE:NAME` names nothing that exists

`StopTraining` is no error: it ends a watched script early (a loss that is not finite, `--steps N`).
"""

from __future__ import annotations


class UnstuckError(Exception):
    """Base of everything `unstuck` raises on purpose."""


class BadArgument(UnstuckError, ValueError):
    """An argument that a call cannot use: which argument of which call, what arrived, what to do."""


class NotReplayable(UnstuckError):
    """The recorded loss cannot be computed again on a copy of the model; the message says why."""


class NotMeasurable(UnstuckError):
    """A quantity that cannot be measured on this problem (no gradient, not finite, not the same twice), and why."""


class NotApplicable(UnstuckError):
    """A probe that has nothing to measure on this problem: no fault, and not worth a word in the report."""


class LaneLost(UnstuckError):
    """A process that trained lanes of a race ended before its time, or what it was told to do failed there."""


class TargetNotFound(UnstuckError):
    """A target such as `model.py:problem` that names no file, or nothing in it."""


class StopTraining(BaseException):
    """Ends the watched script from inside; like KeyboardInterrupt it passes through `except Exception`."""
