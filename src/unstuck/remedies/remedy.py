"""What a remedy is: one change to a Problem, which can say itself as the line of code the user would write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from unstuck.problem import Problem
from unstuck.records import RemedyLine


@dataclass(frozen=True)
class Remedy:
    """`apply` makes the changed problem (never changes the one it gets); `text` says what, `code` the line to write.

    `on`: where its effect must show: the score on "held-out" or "train" batches, or the "loss" on validation data.
    `steps`: in a race of fewer it cannot show. `variant`: what tells it from another one of the same id (its figure).
    `resumes`: it goes on from where the training was left, and is compared with a control that does.
    """

    id: str
    text: str
    code: str
    apply: Callable[[Problem], Problem]
    on: str = "held-out"
    steps: int = 0
    variant: str = ""
    resumes: bool = False

    @property
    def label(self) -> str:
        """The id with the variant: `change-learning-rate 0.01`."""
        return f"{self.id} {self.variant}".rstrip()

    @property
    def line(self) -> RemedyLine:
        """The remedy as the report prints it."""
        return RemedyLine(self.id, self.text, self.code)
