"""Samples drawn again: noise and contradictions of known size."""

from dataclasses import replace

import pytest
import torch
from tests.small import clouds, mlp, written

from unstuck.errors import NotApplicable, UnstuckError
from unstuck.probes.redraw import calm, measure


def drawn(noise=0.0, relabelled=0.0, draws=9, rows=640):
    x, y = clouds(rows)
    x = x / x.std()
    case = written(mlp(), x, y)
    redraws = []
    for _ in range(draws):
        inputs = x + noise * torch.randn_like(x)
        labels = torch.where(torch.rand(rows) < relabelled, (y + 1) % 4, y)
        redraws.append(tuple(zip(inputs.split(32), labels.split(32), strict=True)))
    return replace(case, redraws=tuple(redraws)), x, y


def test_noise_is_its_share_of_the_variance():
    found = measure(drawn(noise=2.0)[0])
    assert found.noise == pytest.approx(4 / 5, abs=0.05) and found.contradictions == 0
    assert found.averaged > found.once + 0.05


def test_noise_that_hides_nothing_gives_nothing_when_averaged():
    case = drawn()[0]
    blank = tuple(tuple((torch.randn(32, 24), labels) for _, labels in batches) for batches in case.redraws)
    found = measure(replace(case, redraws=blank))
    assert found.noise == pytest.approx(1, abs=0.05) and abs(found.averaged - found.once) < 0.12


def test_labels_that_change_are_contradictions():
    found = measure(drawn(relabelled=0.3)[0])
    assert found.contradictions == pytest.approx(2 * 0.3 * 0.7, abs=0.06) and found.noise == 0


def test_inputs_that_repeat_cannot_contradict_each_other():
    case = drawn(relabelled=0.3)[0]
    same = tuple(tuple((torch.ones(32, 24), labels) for _, labels in batches) for batches in case.redraws)
    assert measure(replace(case, redraws=same)).contradictions == 0


def test_calm_batches_are_means_of_inputs_and_majorities_of_labels():
    case, x, y = drawn(noise=1.0, relabelled=0.2)
    batches = calm(case)
    inputs, labels = torch.cat([b[0] for b in batches]), torch.cat([b[1] for b in batches])
    assert float((inputs - x).std()) == pytest.approx(1 / 3, rel=0.05)
    assert float((labels == y).float().mean()) > 0.97


def test_nothing_random_or_another_shape_is_refused():
    case, *_ = drawn(draws=2)
    with pytest.raises(NotApplicable, match="the same"):
        measure(replace(case, redraws=()))
    with pytest.raises(UnstuckError, match="another shape"):
        measure(replace(case, redraws=(case.redraws[0], case.redraws[1][:3])))
