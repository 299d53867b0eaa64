"""What every experiment of the lecture must have: both texts, words in both languages, and a name that is known."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from unstuck.census import searched
from unstuck.chapters.optimizers import RULES
from unstuck.errors import BadArgument
from unstuck.lecture import batch_size_and_result, experiments, minima_are_rare
from unstuck.lecture.experiments import LESSONS, Lesson, named, perform, text
from unstuck.problem import Problem

ORDER = (
    "saddle", "minima-are-rare", "batch-noise", "batch-clock", "batch-size-and-result", "momentum",
    "stuck-is-not-small-gradient", "adaptive", "softmax", "mse-against-cross-entropy", "normalization",
)  # fmt: skip
CHINESE, WORDS = re.compile("[一-鿿]"), re.compile("[A-Za-z]{4}")
QUICK = {
    "minima-are-rare": lambda say: minima_are_rare.told(say, searched(minima_are_rare.digits(), 8, 60.0)),
    "batch-size-and-result": lambda say: batch_size_and_result.shown(say, 1, 20, range(2)),
}
"""Of the long ones as much as their words need."""


def test_they_stand_in_the_lectures_order() -> None:
    assert [name for name in ORDER if name in experiments.IDS] == list(experiments.IDS)


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.id)
def test_each_has_a_page_in_both_languages(lesson: Lesson) -> None:
    title, page = text(lesson.id, "en")
    assert title and not CHINESE.search(title + page)
    assert all(f"**{part}.**" in page for part in ("What", "Why", "What to look at"))
    title, page = text(lesson.id, "zh")
    assert CHINESE.search(title) and all(f"**{part}。**" in page for part in ("做什么", "为什么", "看什么"))


@pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.id)
def test_every_sentence_is_said_in_both_languages(lesson: Lesson) -> None:
    """Everything that a reader sees goes through `say`, but for symbols and the names of optimizers."""
    said: list[str] = []

    def both(en: str, zh: str) -> str:
        assert CHINESE.search(zh) or zh == en, (en, zh)
        said.append(zh)
        return zh

    parts = QUICK.get(lesson.id, lesson.shown)(both)
    sentences = [claim.says for claim in parts.claims] + [chart.title for chart in parts.charts]
    assert parts.claims and parts.charts and all(CHINESE.search(sentence) for sentence in sentences)
    sides = [side.name for claim in parts.claims for side in (claim.left, claim.right)]
    curves = [curve.name for chart in parts.charts for curve in chart.curves]
    axes = [axis for chart in parts.charts for axis in (chart.x, chart.y, chart.note)]
    for name in (*sides, *curves, *axes):
        assert CHINESE.search(name) or name in said or name.lower() in RULES or not WORDS.search(name), name


def test_a_name_there_is_none_of_is_refused() -> None:
    with pytest.raises(BadArgument, match="there is no experiment 'hill'"):
        named("saddle,hill")
    with pytest.raises(BadArgument, match="`language` must be one of en, zh"):
        perform(("saddle",), "de")  # type: ignore[arg-type]


def test_what_cannot_be_measured_is_a_note_and_the_others_go_on() -> None:
    """A regression without an optimizer has no momenta to race and no classes, but a clock it has."""
    x = torch.randn(32, 3)
    problem = Problem(nn.Linear(3, 1), nn.MSELoss(), [(x, x[:, :1])])
    made = perform(("momentum", "softmax", "batch-clock"), "en", problem, 6.0).experiments
    assert all(one.notes[0].startswith("Not measured: ") and not one.charts for one in made[:2])
    assert made[2].charts
