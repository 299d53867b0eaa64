"""What no change to the training can mend: the user has to look at the data. Such a remedy is named, never raced."""

from __future__ import annotations

from unstuck.errors import UnstuckError
from unstuck.problem import Problem
from unstuck.remedies.remedy import Remedy


def look(id: str, text: str, code: str) -> Remedy:
    """A remedy outside of the training."""
    return Remedy(id, text, code, _cannot)


def _cannot(problem: Problem) -> Problem:
    raise UnstuckError("this is mended in the data, not in the training")
