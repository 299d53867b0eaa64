from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tests.small import clouds, mlp, trained, written
from torch import Tensor, nn

from unstuck.errors import NotMeasurable
from unstuck.lecture import softmax
from unstuck.lecture.answers import answers
from unstuck.lecture.parts import Parts, english
from unstuck.problem import Problem
from unstuck.race.contest import prepared


def tick(what: str, share: float) -> None:
    pass


@pytest.fixture(scope="module")
def parts() -> Parts:
    return softmax.shown(english)


def test_every_claim_holds(parts: Parts) -> None:
    assert len(parts.claims) == 11 and all(claim.held for claim in parts.claims)


def test_the_pictures_are_the_closed_form(parts: Parts) -> None:
    exps = [math.exp(z) for z in softmax.LOGITS]
    assert [curve.y[0] for curve in parts.charts[0].curves] == pytest.approx(exps)
    assert [curve.y[0] for curve in parts.charts[1].curves] == pytest.approx([e / sum(exps) for e in exps])
    both, slope = parts.charts[2].curves, parts.charts[4].curves[0]
    for curve in both:
        assert curve.y == pytest.approx([1 / (1 + math.exp(-z)) for z in curve.x])
    assert slope.y == pytest.approx([-1 / (1 + math.exp(z)) for z in slope.x])
    for logit, curve in zip(softmax.LOGITS, parts.charts[3].curves, strict=True):
        for heat, p in zip(curve.x[::10], curve.y[::10], strict=True):
            assert p == pytest.approx(math.exp(logit / heat) / sum(math.exp(z / heat) for z in softmax.LOGITS))


def learnt(model: nn.Module, loss: nn.Module, y: Tensor | None = None, steps: int = 60) -> Problem:
    x, labels = clouds(320)
    return trained(written(model, x, labels if y is None else y, loss), steps)


def by_hand(case: Problem) -> Tensor:
    """The model's outputs at the last state."""
    with torch.no_grad():
        return case.twin(last=True).eval()(torch.cat([x for x, _ in case.data])).double()


def test_logits_log_probabilities_and_probabilities_give_the_same_answers() -> None:
    y = clouds(320)[1]
    hot = nn.functional.one_hot(y).float()
    logits = learnt(mlp(), nn.CrossEntropyLoss())
    logs = learnt(nn.Sequential(mlp(), nn.LogSoftmax(1)), nn.NLLLoss())
    shares = learnt(nn.Sequential(mlp(), nn.Softmax(1)), nn.MSELoss(), hot)
    wanted = by_hand(logits).log_softmax(1), by_hand(logs), by_hand(shares).log()
    for case, expected in zip((logits, logs, shares), wanted, strict=True):
        log_p, labels = answers(case)
        assert torch.allclose(log_p, expected, atol=1e-5)
        assert torch.equal(labels, y[: len(labels)])


def test_one_output_is_two_classes() -> None:
    y = (clouds(320)[1] > 1).float()[:, None]
    for head, loss in ((nn.Identity(), nn.BCEWithLogitsLoss()), (nn.Sigmoid(), nn.BCELoss())):
        case = learnt(nn.Sequential(mlp(classes=1), head), loss, y)
        log_p, labels = answers(case)
        z = by_hand(case).flatten()
        p = z if isinstance(head, nn.Sigmoid) else z.sigmoid()
        assert torch.allclose(log_p.exp(), torch.stack([1 - p, p], 1), atol=1e-6)
        assert torch.equal(labels, y.flatten()[: len(labels)].long())


def test_on_a_training_of_ones_own() -> None:
    case = learnt(mlp(), nn.CrossEntropyLoss(), steps=20)
    parts = softmax.on(case, english, 5.0, tick)
    assert [claim.held for claim in parts.claims] == [True, True]
    p, y = by_hand(case).softmax(1), torch.cat([y for _, y in case.data])
    spread, sure, saturated, right = (figure.value for figure in parts.figures)
    assert spread == pytest.approx(by_hand(case).std(1).mean().item(), rel=1e-5)
    assert sure == pytest.approx(p.amax(1).mean().item(), rel=1e-5)
    assert saturated == pytest.approx((p.amax(1) > 0.99).double().mean().item())
    assert right == pytest.approx((p.argmax(1) == y).double().mean().item())
    assert sum(sum(curve.y) for curve in parts.charts[0].curves) == pytest.approx(1.0)
    assert sum(parts.charts[0].curves[0].y) == pytest.approx(right)


def test_where_all_is_right_nothing_is_claimed_of_mistakes() -> None:
    y = torch.arange(4).repeat(16)
    case = trained(written(nn.Linear(4, 4), 5 * torch.eye(4)[y], y), 60)
    parts = softmax.on(case, english, 5.0, tick)
    assert parts.figures[3].value == 1.0 and [claim.held for claim in parts.claims] == [True]


def test_a_regression_is_told_so() -> None:
    x, _ = clouds(320)
    case = written(mlp(classes=1), x, x[:, :1], nn.MSELoss())
    parts = softmax.on(case, english, 5.0, tick)
    assert not parts.claims and parts.notes == ("Not measured: the task is no choice between classes (regression).",)


def test_outputs_of_another_kind_are_refused() -> None:
    y = clouds(320)[1]
    hot, two = nn.functional.one_hot(y).float(), (y > 1).float()[:, None]
    for model, target in ((mlp(), hot), (mlp(classes=1), two)):
        with pytest.raises(NotMeasurable, match="neither logits nor probabilities"):
            answers(learnt(model, nn.MSELoss(), target))


def test_a_criterion_that_is_not_called_is_told_so() -> None:
    case = learnt(mlp(), nn.CrossEntropyLoss(), steps=8)
    lost = replace(case, criterion=replace(case.criterion, key=("cross_entropy", 7)))
    with pytest.raises(NotMeasurable, match="was not seen again"):
        answers(lost)


def test_a_problem_whose_criterion_is_unknown_is_prepared_first() -> None:
    case = learnt(mlp(), nn.CrossEntropyLoss())
    plain = replace(case, criterion=Problem.criterion)
    assert softmax.on(plain, english, 5.0, tick).claims == softmax.on(case, english, 5.0, tick).claims
    assert prepared(plain).criterion.kind == "cross_entropy"
