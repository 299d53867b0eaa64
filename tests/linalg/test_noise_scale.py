"""The gradient noise scale: brute force over all pairs, no bias, intervals that hold, sums that merge."""

import math

import pytest
import torch

from unstuck.errors import BadArgument
from unstuck.linalg.moments import merge, of
from unstuck.linalg.noise_scale import of_gradients, of_products, of_steps, step


def drawn(seed, count=24, columns=40, size=8, length=1.0):
    """Means of `size` draws N(G, 1) with ‖G‖ = `length`: tr Σ = columns."""
    generator = torch.Generator().manual_seed(seed)
    mean = torch.full((columns,), length / math.sqrt(columns), dtype=torch.float64)
    return list(mean + torch.randn(count, columns, generator=generator, dtype=torch.float64) / math.sqrt(size))


def by_pairs(gradients, size):
    k = len(gradients)
    signal = sum(float(a @ b) for i, a in enumerate(gradients) for j, b in enumerate(gradients) if i != j) / k / (k - 1)
    return size * (sum(float(g @ g) for g in gradients) / k - signal), signal


def test_it_is_the_mean_over_all_pairs_and_its_jackknife():
    gradients = drawn(0, count=10)
    found = of_gradients(gradients, 8)
    assert (found.noise, found.signal) == pytest.approx(by_pairs(gradients, 8), rel=1e-12)
    left = torch.tensor(
        [by_pairs(gradients[:i] + gradients[i + 1 :], 8) for i in range(10)], dtype=torch.float64
    )
    expected = 9 / 10 * (left - left.mean(0)).T @ (left - left.mean(0))
    assert torch.allclose(torch.tensor(found.covariance, dtype=torch.float64), expected, rtol=1e-9)
    assert found.freedom == 9


def test_estimates_have_no_bias_and_a_sum_over_samples_changes_nothing():
    found = [of_gradients(drawn(seed), 8) for seed in range(300)]
    for name, truth in (("noise", 40.0), ("signal", 1.0)):
        values = torch.tensor([getattr(f, name) for f in found])
        assert abs(float(values.mean()) - truth) < 3.5 * float(values.std()) / math.sqrt(300)
    summed = of_gradients([8 * g for g in drawn(0)], 8).scale
    assert summed == pytest.approx(found[0].scale, rel=1e-9)


@pytest.mark.parametrize(("length", "size", "count"), [(3.0, 8, 24), (1.0, 8, 48), (0.5, 1, 64), (0.05, 32, 8)])
def test_intervals_hold_the_truth(length, size, count):
    held = 0
    for seed in range(200):
        scale = of_gradients(drawn(seed, count, 40, size, length), size).scale
        held += scale.low <= 40 / length**2 <= scale.high
    assert held >= 0.93 * 200


def test_a_gradient_of_nothing_but_noise_has_no_upper_end():
    scales = [of_gradients(drawn(seed, length=0.0), 8).scale for seed in range(40)]
    assert sum(scale.high == math.inf for scale in scales) >= 38
    assert all(scale.low > 20 for scale in scales)


def test_a_higher_confidence_gives_a_wider_interval():
    found = of_gradients(drawn(3, length=3.0), 8)
    assert found.at(0.99).low < found.scale.low <= found.scale.value <= found.scale.high < found.at(0.99).high


def test_ranks_that_share_the_sum_and_the_products_get_the_same():
    gradients = drawn(5, count=12)
    total = sum(gradients)
    ours, others = ([(float(g @ g), float(g @ total)) for g in part] for part in (gradients[:5], gradients[5:]))
    squares, inner = zip(*ours, *others, strict=True)
    assert of_products(squares, inner, 8).scale == pytest.approx(of_gradients(gradients, 8).scale, rel=1e-12)


def accumulated(seed, parts=4, size=8):
    """One step of `parts` microbatches: squared norm of the first gradient, and of the mean of all."""
    gradients = drawn(seed, count=parts, size=size, length=2.0)
    mean = sum(gradients) / parts
    return step(float(gradients[0] @ gradients[0]), size, float(mean @ mean), parts * size)


def test_norms_of_accumulated_steps_tell_the_same_and_merge():
    found = of_steps(of(torch.stack([accumulated(seed) for seed in range(400)])))
    assert found.scale.low <= 10.0 <= found.scale.high
    assert found.scale.high / found.scale.low < 1.5
    parts = [of(torch.stack([accumulated(seed) for seed in block])) for block in (range(100), range(100, 400))]
    assert of_steps(merge(*parts)).scale == pytest.approx(found.scale, rel=1e-9)


def test_intervals_from_steps_hold_the_truth():
    held = 0
    for trial in range(200):
        scale = of_steps(of(torch.stack([accumulated(1000 * trial + k) for k in range(30)]))).scale
        held += scale.low <= 10.0 <= scale.high
    assert held >= 0.93 * 200


@pytest.mark.parametrize(("count", "size"), [(0, 8), (3, 8), (8, 0)])
def test_too_few_gradients_are_refused(count, size):
    with pytest.raises(BadArgument, match=f"at least 4 batches of `size` ≥ 1 .* got {count} of {size}"):
        of_gradients(drawn(0, count) if count else [], size)


def test_a_step_needs_a_part_of_it():
    with pytest.raises(BadArgument, match="`size` must be from 1 to below `samples`, got 8 and 8"):
        step(1.0, 8, 1.0, 8)
    with pytest.raises(BadArgument, match=r"at least 4 of `step`'s \[3\], got 3 of \[3\]"):
        of_steps(of(torch.ones(3, 3)))
