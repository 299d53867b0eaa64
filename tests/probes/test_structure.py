"""Structure in the inputs: closed forms, of numbers and of token ids."""

import numpy as np
import pytest
from tests.small import table

from unstuck.probes.structure import structure


def test_structure_is_nothing_for_noise_and_all_for_copies_of_one_column():
    noise = np.random.default_rng(0).normal(size=(600, 40))
    assert structure(table(noise, np.zeros(600))) == 0
    assert structure(table(np.repeat(noise[:, :1], 10, 1), np.zeros(600))) == pytest.approx(1)
    assert structure(table(np.ones((600, 5)), np.zeros(600))) == 0


def test_structure_of_tokens_is_what_one_tells_of_the_next():
    first = np.random.default_rng(0).integers(0, 5, 4000)
    chained = np.stack([first, first, (first + 1) % 5], 1)
    unrelated = np.random.default_rng(1).integers(0, 5, (4000, 3))
    assert structure(table(chained, first, "tokens")) == pytest.approx(1, abs=0.02)
    assert structure(table(unrelated, first, "tokens")) < 0.01
