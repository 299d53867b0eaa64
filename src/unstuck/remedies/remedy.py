"""What a remedy is: one change to a Problem, which can say itself as the line of code the user would write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from unstuck.problem import Problem
from unstuck.records import RemedyLine


@dataclass(frozen=True)
class Remedy:
    """`apply` makes the changed problem (never changes the one it gets); `text` says what, `code` the line to write.

    `on`: where its effect must show: the score on "held-out" or "train" batches, on held-out samples "one by one" (each
    a batch of its own), or the "loss" on validation data.
    `steps`: in a race of fewer it cannot show. `variant`: what tells it from another one of the same id (its figure).
    `against`: the control that it is compared with begins "anew" with each seed (another draw of its start where that
    changes nothing), keeps its "own start" (the remedy is another one), goes on "from the end", or stays "as left" at
    the end: no step is taken, both are scored as they stand. `pace`: updates it makes for each of the control's: what
    is done to the batch size is compared at as many samples.
    """

    id: str
    text: str
    code: str
    apply: Callable[[Problem], Problem]
    on: str = "held-out"
    steps: int = 0
    variant: str = ""
    against: Literal["anew", "own start", "from the end", "as left"] = "anew"
    pace: float = 1.0

    @property
    def label(self) -> str:
        """The id with the variant: `change-learning-rate 0.01`."""
        return f"{self.id} {self.variant}".rstrip()

    @property
    def line(self) -> RemedyLine:
        """The remedy as the report prints it."""
        return RemedyLine(self.id, self.text, self.code)
