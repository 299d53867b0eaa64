"""What an experiment is made of, and in whose words: claims with their figures, charts, English and Chinese.

    def shown(say: Say) -> Parts:
        small, large = Figure(say("at the top", "在顶部"), 0.0), Figure(say("beside it", "在旁边"), 1.0)
        return Parts(claims=(claim(say("The top is flat.", "顶部是平的。"), small, "<", large),))
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

from unstuck.claims import Claim
from unstuck.records import Chapter, Chart, Figure

Say = Callable[[str, str], str]
"""The one of two texts, English and Chinese, that the reader has asked for."""

Tick = Callable[[str, float], None]
Language = Literal["en", "zh"]
ERRORS = 2.0
"""So many standard errors apart, two figures are different."""


def english(en: str, zh: str) -> str:
    """The English text."""
    return en


def chinese(en: str, zh: str) -> str:
    """The Chinese text."""
    return zh


SAY: dict[Language, Say] = {"en": english, "zh": chinese}


class Parts(NamedTuple):
    """What an experiment found, before its page is put around it."""

    claims: tuple[Claim, ...] = ()
    figures: tuple[Figure, ...] = ()
    charts: tuple[Chart, ...] = ()
    notes: tuple[str, ...] = ()


def unmeasured(say: Say, why: str) -> Parts:
    """An experiment that could not be made, and why (its reason is English)."""
    return Parts(notes=(say(f"Not measured: {why}.", f"没有测量：{why}。"),))


def of_chapter(chapter: Chapter) -> Parts:
    """A chapter of `unstuck examine` as what an experiment on the same training found (its words are English)."""
    return Parts(figures=chapter.figures, charts=chapter.charts, notes=chapter.sentences)


def claim(says: str, left: Figure, relation: Literal["<", ">"], right: Figure) -> Claim:
    """The claim, with whether it held.

        held = right − left > 2 √(error_left² + error_right²)         for "<"

    It failed where the difference is as sure the other way (equal figures without an error: failed), and is undecided
    in between, or where a figure is missing or NaN.

    >>> claim("One is less than two.", Figure("one", 1.0), "<", Figure("two", 2.0)).held
    True
    """
    return Claim(says, left, relation, right, _held(left, right) if relation == "<" else _held(right, left))


def share(name: str, count: int, among: int) -> Figure:
    """A share as a figure, with its standard error; two successes and two failures are added, so that 0 of n has one
    (Agresti & Coull 1998).

    >>> share("of coins", 0, 12).value
    0.125
    """
    p = (count + 2) / (among + 4)
    return Figure(name, p, error=math.sqrt(p * (1 - p) / (among + 4)), samples=among)


def _held(small: Figure, large: Figure) -> bool | None:
    if small.value is None or large.value is None or math.isnan(small.value) or math.isnan(large.value):
        return None
    doubt = ERRORS * math.hypot(small.error or 0.0, large.error or 0.0)
    if large.value > small.value + doubt:
        return True
    return False if large.value <= small.value - doubt else None
