from __future__ import annotations

import pytest
import torch
from tests.small import clouds, mlp, trained, written

from unstuck.errors import NotMeasurable
from unstuck.lecture import batch_noise
from unstuck.lecture.parts import Parts, english
from unstuck.lecture.plane import gradient


@pytest.fixture(scope="module")
def parts() -> Parts:
    return batch_noise.shown(english)


def silent(what: str, share: float) -> None:
    """No progress bar."""


def test_every_claim_holds(parts: Parts) -> None:
    assert len(parts.claims) == 9 and all(claim.held for claim in parts.claims)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_claim_rests_on_luck(seed: int) -> None:
    assert all(claim.held for claim in batch_noise.shown(english, seed).claims)


def test_the_samples_gradients_are_those_of_the_loss() -> None:
    data = batch_noise.tumours()
    for place in ((0.0, 0.0), (-2.0, 0.7)):
        mean = data.gradients(torch.tensor(place, dtype=torch.float64)).mean(0)
        assert torch.allclose(mean, gradient(data.loss, place))


def test_an_epoch_sees_each_sample_once() -> None:
    """At a rate of zero length the steps of an epoch add up to the gradient of all samples."""
    data = batch_noise.tumours()
    small = batch_noise.Data(data.x[:6], data.y[:6])
    path = batch_noise.walked(small, 2, 0)
    steps = -(path.places[1:] - path.places[:-1]) / batch_noise.RATE
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0)).split(2)
    for place, batch, step in zip(path.places, order, steps, strict=False):
        expected = gradient(batch_noise.Data(small.x[batch], small.y[batch]).loss, place)
        assert torch.allclose(step, expected)
    assert sorted(torch.cat(order).tolist()) == list(range(6)) and len(steps) == 3


def test_the_formula_is_the_mean_over_all_batches_there_are() -> None:
    data = batch_noise.tumours()
    few = batch_noise.Data(data.x[:7], data.y[:7])
    each = few.gradients(torch.zeros(2, dtype=torch.float64))
    batches = torch.combinations(torch.arange(7), 3)
    off = (each[batches].mean(1) - each.mean(0)).square().sum(1).mean()
    assert batch_noise.expected(few, 3) == pytest.approx(float(off))
    assert batch_noise.expected(few, 7) == 0.0


def test_angles_are_measured_from_the_way_down() -> None:
    data = batch_noise.tumours()
    path = batch_noise.walked(data, 1, 0)
    step, slope = path.places[1] - path.places[0], path.slopes[0]
    cosine = torch.nn.functional.cosine_similarity(step, -slope, dim=0)
    assert batch_noise.angles(path)[0] == pytest.approx(float(torch.rad2deg(torch.arccos(cosine))))


def test_the_tilts_cancel_over_an_epoch() -> None:
    noise = batch_noise.tilted(3)
    total = sum(noise(step) for step in range(batch_noise.BATCHES))
    assert float(total.norm()) < 1e-12  # type: ignore[union-attr]


def test_on_a_training_the_noise_falls_with_the_batch() -> None:
    x, y = clouds(800)
    case = trained(written(mlp(), x, y), 40)
    parts = batch_noise.on(case, english, 5.0, silent)
    first, last = (claim.held for claim in parts.claims)
    assert first and last is not False  # few samples make all of the noise that is left at the end: open
    assert [curve.name for curve in parts.charts[0].curves] == ["at the start", "where it was left"]
    one, four, sixteen = (figure for figure in parts.figures if "at the start" in figure.name)
    for smaller, larger in ((one, four), (four, sixteen)):
        error = ((smaller.error / 4) ** 2 + larger.error**2) ** 0.5  # type: ignore[operator]
        assert abs(smaller.value / 4 - larger.value) < 4 * error  # type: ignore[operator]


def test_its_noise_is_that_of_single_samples() -> None:
    """tr Σ over all samples, brute force, against the estimate from 256 batches of one."""
    x, y = clouds(800)
    case = written(mlp(), x, y)
    (figure, *_) = batch_noise.on(case, english, 5.0, silent).figures
    model = case.twin()
    rows = [(x[k : k + 1], y[k : k + 1]) for k in range(600)]
    each = torch.stack([batch_noise._flat(case, model, row) for row in rows])
    exact = float((each - each.mean(0)).square().sum(1).mean())
    assert abs(figure.value - exact) < 4 * figure.error  # type: ignore[operator]


def test_where_time_is_up_two_sizes_are_measured() -> None:
    x, y = clouds(800)
    parts = batch_noise.on(written(mlp(), x, y), english, 1e-9, silent)
    assert len(parts.figures) == 2 and parts.charts[0].curves[0].x == (1.0, 4.0)


def test_too_little_data_is_refused() -> None:
    x, y = clouds(100)
    with pytest.raises(NotMeasurable, match="32 batches of two sizes"):
        batch_noise.on(written(mlp(), x, y), english, 5.0, silent)


def test_batch_normalization_is_not_given_single_samples() -> None:
    x, y = clouds(800)
    model = torch.nn.Sequential(torch.nn.BatchNorm1d(24), mlp())
    with pytest.raises(NotMeasurable):  # 16 samples, at the least, leave one size
        batch_noise.on(written(model, x, y), english, 5.0, silent)
