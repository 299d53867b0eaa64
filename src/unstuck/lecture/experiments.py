"""All experiments, in the lecture's order, and how one is made: its parts, and the page around them.

    lecture = perform(("saddle", "momentum"), "en")
    lecture.experiments[0].claims[0].held
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import NamedTuple

from rich.table import Table

from unstuck.claims import Experiment, Lecture
from unstuck.criterion import prepared
from unstuck.errors import BadArgument, UnstuckError
from unstuck.lecture import (
    adaptive,
    batch_clock,
    batch_noise,
    batch_size_and_result,
    minima_are_rare,
    momentum,
    mse_against_cross_entropy,
    normalization,
    saddle,
    softmax,
    stuck_is_not_small_gradient,
)
from unstuck.lecture.parts import SAY, Language, Parts, Say, Tick, unmeasured
from unstuck.problem import Problem
from unstuck.race.heats import single_threaded
from unstuck.sandbox import sandbox


class Lesson(NamedTuple):
    """An experiment: `shown` makes the textbook case, `on` the same on a user's training, in so many seconds."""

    id: str
    shown: Callable[[Say], Parts]
    on: Callable[[Problem, Say, float, Tick], Parts]


LESSONS: tuple[Lesson, ...] = (
    Lesson("saddle", saddle.shown, saddle.on),
    Lesson("minima-are-rare", minima_are_rare.shown, minima_are_rare.on),
    Lesson("batch-noise", batch_noise.shown, batch_noise.on),
    Lesson("batch-clock", batch_clock.shown, batch_clock.on),
    Lesson("batch-size-and-result", batch_size_and_result.shown, batch_size_and_result.on),
    Lesson("momentum", momentum.shown, momentum.on),
    Lesson("stuck-is-not-small-gradient", stuck_is_not_small_gradient.shown, stuck_is_not_small_gradient.on),
    Lesson("adaptive", adaptive.shown, adaptive.on),
    Lesson("softmax", softmax.shown, softmax.on),
    Lesson("mse-against-cross-entropy", mse_against_cross_entropy.shown, mse_against_cross_entropy.on),
    Lesson("normalization", normalization.shown, normalization.on),
)
CHINESE_BREAK = re.compile(r"(?<=[^\x00-\x7f])\n(?=[^\x00-\x7f])")
"""A line's end between two Chinese characters: Markdown would make a space of it."""
IDS = tuple(lesson.id for lesson in LESSONS)


def perform(
    ids: Sequence[str] = IDS, language: Language = "en", problem: Problem | None = None, budget_s: float = 60.0,
    target: str = "", tick: Tick = lambda what, share: None,
) -> Lecture:  # fmt: skip
    """The experiments of these names: the textbook cases, or with a `problem` the same on it, in `budget_s` in all.

    Raises BadArgument for a name there is none of and a language it does not speak.
    """
    if language not in SAY:
        raise BadArgument(f"lecture: `language` must be one of {', '.join(SAY)}, got {language!r}")
    lessons = [_lesson(name) for name in ids]
    made = []
    for place, lesson in enumerate(lessons):
        tick(lesson.id, place / len(lessons))
        made.append(_performed(lesson, language, problem, budget_s / len(lessons), target, tick))
    return Lecture(language=language, experiments=tuple(made))


def named(names: str) -> tuple[str, ...]:
    """The ids that `all` or a list with commas names. Raises BadArgument for a name there is none of."""
    ids = IDS if names == "all" else tuple(name.strip() for name in names.split(","))
    for name in ids:
        _lesson(name)
    return ids


def table(language: Language) -> Table:
    """The names of all experiments and their titles."""
    listed = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name in IDS:
        listed.add_row(name, text(name, language)[0])
    return listed


def text(name: str, language: Language) -> tuple[str, str]:
    """The title and the page of an experiment, in Markdown."""
    page = (files("unstuck.lecture") / "texts" / language / f"{name}.md").read_text(encoding="utf-8")
    title, _, rest = CHINESE_BREAK.sub("", page).partition("\n")
    return title.removeprefix("# "), rest.strip()


def _lesson(name: str) -> Lesson:
    found = next((lesson for lesson in LESSONS if lesson.id == name), None)
    if found is None:
        raise BadArgument(f"lecture: there is no experiment {name!r}; there are {', '.join(IDS)}")
    return found


def _performed(
    lesson: Lesson, language: Language, problem: Problem | None, budget_s: float, target: str, tick: Tick
) -> Experiment:
    began = time.perf_counter()
    say = SAY[language]
    with sandbox(0), single_threaded():
        parts = lesson.shown(say) if problem is None else _own(lesson, prepared(problem), say, budget_s, tick)
    title, page = text(lesson.id, language)
    seconds = time.perf_counter() - began
    return Experiment(lesson.id, title, page, *parts, target, seconds)


def _own(lesson: Lesson, problem: Problem, say: Say, budget_s: float, tick: Tick) -> Parts:
    """The experiment on a user's training; where it cannot be made, why not: the others go on."""
    try:
        return lesson.on(problem, say, budget_s, tick)
    except Exception as error:  # the user's own model runs inside
        why = str(error).rstrip(".") if isinstance(error, UnstuckError) else f"{type(error).__name__}: {error}"
        return unmeasured(say, why)
