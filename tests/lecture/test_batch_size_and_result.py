from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.small import clouds, mlp, written
from torch import Tensor, nn

from unstuck.lecture import batch_size_and_result as experiment
from unstuck.lecture.digits import digits
from unstuck.lecture.parts import Parts, english


def tick(what: str, share: float) -> None:
    pass


@pytest.fixture(scope="module")
def parts() -> Parts:
    """Fewer seeds than on the page: as many as the claims on the training need."""
    return experiment.shown(english, seeds=range(2))


def test_claims_on_the_training_hold(parts: Parts) -> None:
    *training, unseen = parts.claims
    assert [claim.held for claim in training] == [True] * 5
    assert unseen.held is not False  # two seeds may leave it open; five do not


def test_all_is_drawn(parts: Parts) -> None:
    assert [chart.curves[0].x for chart in parts.charts] == [(4.0, 16.0, 64.0, 256.0)] * 4


def test_an_end_is_what_a_plain_loop_comes_to() -> None:
    """The full batch, 12 updates from the recorded start: loss, accuracy, and λmax of the whole Hessian."""
    data = digits(experiment.SAMPLES, experiment.WRONG)
    problem = experiment.network(data)
    found = experiment.end(problem, data, experiment.SAMPLES, 12, [0])
    model = problem.twin()
    optimizer = torch.optim.SGD(model.parameters(), lr=experiment.RATE)
    for _ in range(12):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data.x), data.y).backward()
        optimizer.step()
    assert found.loss.mean == pytest.approx(nn.functional.cross_entropy(model(data.x), data.y).item(), rel=1e-4)
    right = model(data.others_x).argmax(1) == data.others_y
    assert found.others.mean == pytest.approx(right.double().mean().item(), abs=2e-3)
    assert found.steepest.mean == pytest.approx(_largest_eigenvalue(model, data.x, data.y), rel=0.05)


def _largest_eigenvalue(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """By power iteration on products from differences of gradients, in float64."""
    model = model.double()
    parameters = list(model.parameters())

    def slope() -> Tensor:
        loss = nn.functional.cross_entropy(model(x.double()), y)
        return torch.cat([part.flatten() for part in torch.autograd.grad(loss, parameters)])

    here = nn.utils.parameters_to_vector(parameters).detach()
    v = torch.randn(len(here), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for _ in range(60):
        v /= v.norm()
        ends = []
        for sign in (1, -1):
            nn.utils.vector_to_parameters(here + sign * 1e-6 * v, parameters)
            ends.append(slope())
        v = (ends[0] - ends[1]) / 2e-6
    return float(v.norm())


def test_a_fifth_of_the_labels_is_drawn_and_no_image_is_on_both_sides() -> None:
    plain, noisy = digits(1024), digits(1024, wrong=0.2)
    changed = float((plain.y != noisy.y).double().mean())
    assert changed == pytest.approx(0.2 * 0.9, abs=0.04)  # a tenth of those drawn anew are right by chance
    assert torch.equal(plain.x, noisy.x) and torch.equal(plain.others_y, noisy.others_y)
    distinct = torch.unique(torch.cat([plain.x, plain.others_x]), dim=0)
    assert len(plain.x) + len(plain.others_x) == 1797 == len(distinct)


def test_on_a_training_of_ones_own() -> None:
    x, y = clouds(1600)
    case = written(mlp(), x, y)
    case = replace(case, optimizer=case.optimizer.using(torch.optim.SGD, lr=0.05))
    parts = experiment.on(case, english, 6.0, tick)
    assert len(parts.claims) == 1 and "Your batches hold 32 samples" in parts.notes[0]
    small, *_, large = parts.charts[0].curves[0].x
    assert (small, large) == (4.0, 256.0)
    assert parts.claims[0].left.value == parts.charts[0].curves[0].y[0]


def test_a_training_without_an_optimizer_is_told_so() -> None:
    x, y = clouds(320)
    parts = experiment.on(replace(written(mlp(), x, y), optimizer=None), english, 2.0, tick)
    assert not parts.claims and parts.notes == ("Not measured: no optimizer with a learning rate was seen.",)
