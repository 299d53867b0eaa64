"""Batch statistics against closed forms: σ/√n, σ²√(2/(n − 1)), (1 − m)^t, √(m/(2 − m)); errors against brute force."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from unstuck.probes.statistics import (
    LEFT,
    USUAL,
    Seen,
    against,
    by_batch,
    by_size,
    collect,
    fitting_momentum,
    left_of_start,
    noise,
    steadiness,
)
from unstuck.problem import Problem

GENERATOR = torch.Generator().manual_seed(0)


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def labelled(x: torch.Tensor, size: int = 32) -> Problem:
    """A network that begins with a normalization of these samples."""
    x, y = x.float(), torch.arange(len(x)) % 2
    norm = nn.BatchNorm1d(x.shape[1]) if x.dim() == 2 else nn.BatchNorm2d(x.shape[1])
    model = nn.Sequential(norm, nn.Flatten(), nn.Linear(x[0].numel(), 2))
    return Problem(model, nn.CrossEntropyLoss(), list(zip(x.split(size), y.split(size), strict=True)))


def test_of_independent_values_the_mean_moves_by_one_over_root_n_and_the_variance_as_a_normal_one() -> None:
    found = by_size(labelled(random(4096, 24)))
    assert [one.size for one in found.layers["0"]] == [2, 4, 8, 16, 32, 64, 128, 256]
    for one in found.layers["0"]:
        # Of k batches a standard deviation is on average short by 1/4k of itself.
        short = 1 - 1 / (4 * (one.batches - 1))
        assert one.mean == pytest.approx(short / math.sqrt(one.size), abs=4 * one.mean_error)
        assert one.count == one.size and one.worth == pytest.approx(one.mean**-2)
        if one.size >= 32:
            assert one.variance == pytest.approx(short * math.sqrt(2 / (one.size - 1)), abs=4 * one.variance_error)


def test_positions_that_are_alike_are_worth_one() -> None:
    x = random(1024, 8, 1, 1).expand(1024, 8, 5, 5).clone()
    for one in by_size(labelled(x)).layers["0"]:
        assert one.count == 25 * one.size
        if one.batches >= 16:
            assert one.mean == pytest.approx(1 / math.sqrt(one.size), abs=0.02 + 4 * one.mean_error)


def test_sizes_that_cannot_be_normalized_are_refused_and_time_and_rows_bound_the_others() -> None:
    found = by_size(labelled(random(256, 4)))
    (size, why), = found.refused
    assert size == 1 and "Expected more than 1 value per channel" in why
    assert max(one.size for one in found.layers["0"]) == 32  # of 192 that are trained on
    assert by_size(labelled(random(256, 4)), budget_s=0.0).layers == {}


def test_data_that_cannot_be_cut_into_rows_has_no_sizes() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(3, 2))
    lengths = [(random(8, 3, k).float(), torch.arange(8) % 2) for k in (4, 5, 6, 7)]
    assert by_size(Problem(model, nn.CrossEntropyLoss(), lengths)).layers == {}


def test_noise_and_its_error_are_those_of_brute_force() -> None:
    seen = Seen(random(9, 5), 1 + random(9, 5).square(), 6)
    found = noise(seen)
    sigma = (seen.variances.mean(0) + seen.means.var(0, unbiased=False)).sqrt()

    def spread(rows: torch.Tensor) -> float:
        return float((rows.std(0) / sigma).mean())

    assert found.mean == pytest.approx(spread(seen.means))
    assert found.mean_error == pytest.approx(jackknife([spread(without(seen.means, k)) for k in range(9)]))
    unbiased = seen.variances * 6 / 5 / sigma
    assert found.variance == pytest.approx(spread(unbiased))
    assert found.variance_error == pytest.approx(jackknife([spread(without(unbiased, k)) for k in range(9)]))


def test_of_few_batches_and_of_constant_channels_no_error_is_claimed() -> None:
    assert noise(Seen(random(2, 3), torch.ones(2, 3), 4)).mean_error == math.inf
    still = noise(Seen(torch.ones(4, 3), torch.zeros(4, 3), 4))
    assert (still.mean, still.worth) == (0.0, math.inf)


def without(rows: torch.Tensor, k: int) -> torch.Tensor:
    return torch.cat([rows[:k], rows[k + 1 :]])


def jackknife(parts: list[float]) -> float:
    mean = sum(parts) / len(parts)
    return math.sqrt((len(parts) - 1) / len(parts) * sum((part - mean) ** 2 for part in parts))


def test_running_statistics_are_held_against_the_batches() -> None:
    seen, norm = Seen(random(12, 5), 2 + random(12, 5).square(), 8), nn.BatchNorm1d(5)
    sigma = (seen.variances.mean(0) + seen.means.var(0, unbiased=False)).sqrt()
    norm.running_mean = seen.means.mean(0) + 2 * sigma * torch.tensor([1, -1, 1, -1, 1.0])
    norm.running_var = 4 * seen.variances.mean(0) * 8 / 7
    found = against(seen, norm)
    assert found.mean == pytest.approx(2) and found.variance == pytest.approx(4)
    off = (norm.running_mean - seen.means) / sigma
    parts = [float(without(off, k).mean(0).square().mean().sqrt()) for k in range(12)]
    assert found.mean_error == pytest.approx(jackknife(parts))
    ratios = [float((norm.running_var / (without(seen.variances, k).mean(0) * 8 / 7)).log().mean()) for k in range(12)]
    assert found.variance_error == pytest.approx(4 * jackknife(ratios))


def test_exact_running_statistics_are_at_no_distance_and_untracked_ones_at_none() -> None:
    case = labelled(random(512, 6))
    model = by_batch(case)
    model[0].momentum = None
    model[0].reset_running_stats()
    seen = collect(case, model, case.data)["0"]
    found = against(seen, model[0])
    assert found.mean == pytest.approx(0, abs=1e-6) and found.variance == pytest.approx(1, rel=1e-5)
    assert against(seen, nn.BatchNorm1d(6, track_running_stats=False)) is None
    assert against(Seen(torch.ones(3, 6), torch.zeros(3, 6), 4), model[0]) is None


@pytest.mark.parametrize("momentum", [0.001, 0.1, 0.7])
@pytest.mark.parametrize("updates", [1, 10, 60])
def test_what_is_left_of_the_start_is_what_a_real_layer_keeps(momentum: float, updates: int) -> None:
    norm = nn.BatchNorm1d(3, momentum=momentum, dtype=torch.float64)
    norm.running_mean.fill_(1.0)
    batch = random(8, 3)
    for _ in range(updates):
        norm(batch - batch.mean(0))
    assert norm.running_mean.tolist() == pytest.approx([left_of_start(momentum, updates)] * 3)


def test_plain_averages_forget_their_start_at_once() -> None:
    assert [left_of_start(None, t) for t in (0, 1, 5)] == [1.0, 0.0, 0.0]
    assert steadiness(None, 25) == 0.2


def test_a_running_mean_keeps_the_noise_of_its_weights() -> None:
    for m in (0.01, 0.1, 0.9):
        weights = [m * (1 - m) ** k for k in range(5000)]
        assert steadiness(m, 0) == pytest.approx(math.sqrt(sum(w * w for w in weights)))


def test_the_fitting_momentum_is_the_least_that_forgets_the_start() -> None:
    assert fitting_momentum(1000) == USUAL
    for updates in (1, 3, 10, 25):
        found = fitting_momentum(updates)
        assert left_of_start(found, updates) <= LEFT + 1e-12
        assert left_of_start(found - 0.01, updates) > LEFT
