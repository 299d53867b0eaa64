"""What the lecture's experiments say: frozen records, JSON in and out, like those of a report.

    lecture = Lecture.from_json(Path("lecture.json").read_bytes())
    [claim.held for experiment in lecture.experiments for claim in experiment.claims]
"""

from __future__ import annotations

from typing import Literal

import msgspec

from unstuck.records import Chart, Figure, encoded

SCHEMA = "unstuck.lecture/1"


class Claim(msgspec.Struct, frozen=True):
    """What the lecture says, as an inequality between two measured figures; `held` is null where their errors leave it
    open."""

    says: str
    left: Figure
    relation: Literal["<", ">"]
    right: Figure
    held: bool | None


class Experiment(msgspec.Struct, frozen=True):
    """One experiment of the lecture as it came out here. `text`: its page, in Markdown; `target`: the user's training
    it was made on, "" for the textbook case."""

    id: str
    title: str
    text: str
    claims: tuple[Claim, ...] = ()
    figures: tuple[Figure, ...] = ()
    charts: tuple[Chart, ...] = ()
    notes: tuple[str, ...] = ()
    target: str = ""
    seconds: float = 0.0


class Lecture(msgspec.Struct, frozen=True):
    """Experiments of the lecture (`unstuck lecture`), in its order, with their words in one language."""

    schema: str = SCHEMA
    language: Literal["en", "zh"] = "en"
    experiments: tuple[Experiment, ...] = ()

    def to_json(self) -> bytes:
        """This record as indented JSON; non-finite numbers become null."""
        return encoded(self)

    @classmethod
    def from_json(cls, data: bytes | str) -> Lecture:
        """The record that `to_json` wrote."""
        return msgspec.json.decode(data, type=cls)
