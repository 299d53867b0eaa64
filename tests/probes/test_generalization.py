"""The course of training and validation, on a network that learns few samples by heart."""

import math
from dataclasses import replace

import pytest
import torch
from tests.small import clouds, mlp, trained, written

from unstuck.errors import NotApplicable, UnstuckError
from unstuck.probes.generalization import Generalization, Point, measure, same_targets


def case(rows, steps, seed=1):
    x, y = clouds(rows)
    torch.manual_seed(seed)
    y = torch.where(torch.rand(rows) < 0.3, torch.randint(0, 4, (rows,)), y)
    fresh = clouds(320, seed=5)
    validation = tuple(zip(fresh[0].split(32), fresh[1].split(32), strict=True))
    return trained(replace(written(mlp(hidden=128), x, y, size=16), validation=validation), steps)


def test_learning_noise_by_heart_shows_as_a_rise():
    found = measure(case(64, 160))
    rise, error = found.rise
    assert found.best.step < 160 and rise > 3 * error > 0 and found.last.step == 160
    assert found.last.train_loss < 0.3 * found.best.train_loss and found.samples == 320


def test_one_large_validation_batch_has_a_standard_error_too():
    made = case(64, 160)
    whole = replace(made, validation=(tuple(torch.cat(leaves) for leaves in zip(*made.validation, strict=True)),))
    several, one = measure(made), measure(whole)
    assert one.last.loss == pytest.approx(several.last.loss, rel=1e-4) and one.samples == several.samples
    assert 0 < one.rise[1] < 3 * several.rise[1]


def test_a_copy_is_trained_where_few_states_were_kept():
    sparse = case(64, 160)
    found = measure(replace(sparse, loop=replace(sparse.loop, snapshots=sparse.loop.snapshots[-1:])))
    assert len(found.points) > 5 and found.best.step < 160


def test_the_rise_is_a_mean_over_pairs_of_batches():
    points = (Point(1, 1, 0, 2.0, 0, (1.0, 3.0)), Point(2, 0, 1, 3.0, 0, (2.5, 3.5)))
    rise, error = Generalization("accuracy", points, 2).rise
    assert rise == 1 and error == pytest.approx(math.sqrt(0.5 / 2))
    single = Generalization("accuracy", (Point(1, 1, 0, 2.0, 0, (2.0,)), Point(2, 0, 1, 3.0, 0, (3.0,))), 1)
    assert single.rise == (1.0, math.inf)


def test_without_validation_or_course_it_is_refused():
    full = case(64, 40)
    with pytest.raises(NotApplicable, match="validation"):
        measure(replace(full, validation=()))
    with pytest.raises(UnstuckError, match="too short"):
        measure(replace(full, loop=replace(full.loop, snapshots=(), steps=0)))


def test_validation_data_of_another_task_are_not_taken_for_this_one():
    x, y = clouds(400)
    for fresh, same in ((y.flip(0), True), (torch.zeros_like(y), False)):
        made = trained(written(mlp(), x, y, size=16), 20)
        made = replace(made, validation=tuple(zip(x.split(16), fresh.split(16), strict=True)))
        assert same_targets(made, made.data, made.validation) is same
    with pytest.raises(NotApplicable, match="another task"):
        measure(made)
