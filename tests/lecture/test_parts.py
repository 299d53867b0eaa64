from __future__ import annotations

import math

import pytest

from unstuck.lecture.parts import SAY, claim
from unstuck.records import Figure


@pytest.mark.parametrize(
    ("left", "right", "held"),
    [
        (Figure("a", 1.0), Figure("b", 2.0), True),
        (Figure("a", 2.0), Figure("b", 1.0), False),
        (Figure("a", 1.0), Figure("b", 1.0), False),
        (Figure("a", 1.0, error=0.4), Figure("b", 2.0, error=0.2), True),
        (Figure("a", 1.0, error=0.4), Figure("b", 2.0, error=0.4), None),
        (Figure("a", 2.0, error=0.2), Figure("b", 1.0, error=0.2), False),
        (Figure("a", math.nan), Figure("b", 1.0), None),
        (Figure("a", None), Figure("b", 1.0), None),
        (Figure("a", 1.0), Figure("b", math.inf), True),
    ],
)
def test_a_claim_holds_beyond_its_error(left: Figure, right: Figure, held: bool | None) -> None:
    assert claim("a is less than b", left, "<", right).held is held
    assert claim("b is more than a", right, ">", left).held is held


def test_the_reader_is_spoken_to_in_one_language() -> None:
    assert (SAY["en"]("hill", "山"), SAY["zh"]("hill", "山")) == ("hill", "山")
