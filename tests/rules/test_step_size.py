"""Causes of the step on a small problem: each named by its own evidence, and silent beside it."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from unstuck.criterion import prepared
from unstuck.diagnose import PROBES, gather
from unstuck.evidence import Evidence
from unstuck.loop import Clip
from unstuck.problem import Problem
from unstuck.recipe import recipe_of
from unstuck.rules import (
    adaptive_step_exhausted,
    clipping_before_unscale,
    clipping_too_tight,
    learning_rate_too_high,
    learning_rate_too_low,
    learning_rate_zero,
    momentum_misconfigured,
    optimizer_unsuited,
    saturated_activations,
    schedule_decays_too_early,
    weight_decay_too_strong,
)
from unstuck.training import Training

ALL = (
    adaptive_step_exhausted, clipping_before_unscale, clipping_too_tight, learning_rate_too_high,
    learning_rate_too_low, learning_rate_zero, momentum_misconfigured, optimizer_unsuited,
    schedule_decays_too_early, weight_decay_too_strong,
)  # fmt: skip


def problem(make, steps=60, loss=F.cross_entropy, bends=nn.ReLU, wide=1.0, **loop):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 16), bends(), nn.Linear(16, 3))
    with torch.no_grad():
        model[0].weight.mul_(wide)
    x = torch.randn(256, 10)
    y = x[:, :3].argmax(1)
    data = list(zip(x.split(32), y.split(32), strict=True))
    case = Problem(model, loss, data, optimizer=make(model.parameters()))
    case = prepared(case)
    case = replace(case, loop=replace(case.loop, **{"steps": steps, **loop}))
    run = Training(case)
    run.advance(steps)
    state = recipe_of(run.optimizer, {id(p): n for n, p in run.model.named_parameters()}).state
    rate = case.optimizer.lr
    return replace(
        case,
        last={n: p.detach().clone() for n, p in run.model.named_parameters()},
        optimizer=replace(case.optimizer, state=state),
        loop=replace(
            case.loop, losses=tuple(run.losses), lrs=tuple(rate * f for f in case.loop.schedule or (1.0,) * steps)
        ),
    )


def causes(case, monkeypatch):
    """Strength of every cause of this section that has a suspicion."""
    evidence = measured(case, monkeypatch)
    found = [m.RULE.judge(evidence) for m in ALL]
    assert all(s.cause == m.RULE.cause for s, m in zip(found, ALL, strict=True) if s)
    return {s.cause: s for s in found if s}


def measured(case, monkeypatch):
    wanted = {"history", "level", "anatomy", "data", "objective", "activations", "gradients", "rates"}
    monkeypatch.setattr("unstuck.diagnose.PROBES", tuple(p for p in PROBES if p[0] in wanted))
    evidence, missing = gather(case, case.loop, case.optimizer, float("inf"))
    assert not missing
    return evidence


def sgd(**options):
    return lambda p: torch.optim.SGD(p, **{"lr": 0.3, **options})


@pytest.mark.parametrize(
    ("cause", "make", "loop"),
    [
        ("learning-rate-too-high", sgd(lr=100.0), {}),
        ("learning-rate-too-high", lambda p: torch.optim.Adam(p, lr=3.0), {}),
        ("learning-rate-too-low", sgd(lr=1e-4), {}),
        ("learning-rate-too-low", lambda p: torch.optim.Adam(p, lr=1e-7), {}),
        ("learning-rate-zero", sgd(lr=0.0), {}),
        ("learning-rate-zero", sgd(), {"schedule": (0.0,) * 60}),
        ("schedule-decays-too-early", sgd(), {"schedule": tuple(0.3**i for i in range(60))}),
        ("schedule-decays-too-early", sgd(), {"schedule": tuple((i + 1) / 1e5 for i in range(60))}),
        ("adaptive-step-exhausted", lambda p: torch.optim.Adagrad(p, lr=0.003), {}),
        ("momentum-misconfigured", sgd(lr=0.01, momentum=0.999), {}),
        ("momentum-misconfigured", lambda p: torch.optim.Adam(p, lr=1e-2, betas=(0.999, 0.9)), {}),
        ("momentum-misconfigured", lambda p: torch.optim.Adam(p, lr=1e-3, eps=10.0), {}),
        ("clipping-too-tight", sgd(), {"clip": Clip("norm", 1e-3), "clip_active": 1.0, "clip_factor": 2e-3}),
        ("clipping-too-tight", sgd(), {"clip": Clip("value", 1e-5)}),
        (
            "clipping-before-unscale",
            sgd(),
            {"clip": Clip("norm", 1.0), "clip_factor": 2e-5, "clip_before_unscale": True, "loss_scale": 65536.0},
        ),
        ("weight-decay-too-strong", sgd(lr=0.1, weight_decay=5.0), {}),
        ("weight-decay-too-strong", lambda p: torch.optim.AdamW(p, lr=3e-3, weight_decay=30.0), {}),
    ],
)  # fmt: skip
def test_the_cause_is_the_strongest(cause, make, loop, monkeypatch):
    found = causes(problem(make, **loop), monkeypatch)
    assert cause in found
    assert found[cause].strength == max(s.strength for s in found.values())
    assert found[cause].remedies
    assert 2 <= len(found[cause].evidence) <= 4


@pytest.mark.parametrize(("wide", "first"), [(1.0, "learning-rate-too-high"), (60.0, "saturated-activations")])
def test_large_steps_that_saturate_units_are_the_cause_and_units_saturated_at_first_are(wide, first, monkeypatch):
    evidence = measured(problem(sgd(lr=30.0), bends=nn.Tanh, wide=wide), monkeypatch)
    rate, units = learning_rate_too_high.judge(evidence), saturated_activations.judge(evidence)
    assert max((s for s in (rate, units) if s is not None), key=lambda s: s.strength).cause == first
    assert units is not None and (units.strength > saturated_activations.DRIVEN) == (wide > 1)


@pytest.mark.parametrize(("factor", "times"), [(1.0, 1.0), (1e-3, 0.5)])
def test_where_the_loss_sends_little_the_rate_may_be_a_consequence(factor, times, monkeypatch):
    """The same steps, by a small rate or by a small loss: of the second the rule is half as sure."""
    case = problem(sgd(lr=1e-4 / factor), loss=lambda o, t: factor * F.cross_entropy(o, t))
    assert causes(case, monkeypatch)["learning-rate-too-low"].strength == pytest.approx(0.9 * times)


@pytest.mark.parametrize(
    ("make", "loop"),
    [
        (sgd(), {}),
        (sgd(lr=0.1, momentum=0.9, weight_decay=5e-4), {"schedule": tuple(1 - i / 60 for i in range(60))}),
        (lambda p: torch.optim.Adam(p, lr=1e-2), {"schedule": tuple(min(1.0, (i + 1) / 10) for i in range(60))}),
        (lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1), {"clip": Clip("norm", 1.0), "clip_active": 0.3}),
        (sgd(), {"clip": Clip("value", 0.1)}),
        (lambda p: torch.optim.Adagrad(p, lr=0.1), {}),
        (lambda p: torch.optim.RMSprop(p, lr=3e-3), {}),
    ],
)
def test_nothing_is_said_of_sound_trainings(make, loop, monkeypatch):
    assert causes(problem(make, **loop), monkeypatch) == {}


def test_remedied_rates_lie_between_the_sick_ones(monkeypatch):
    for lr, cause in ((100.0, "learning-rate-too-high"), (1e-4, "learning-rate-too-low")):
        case = problem(sgd(lr=lr))
        remedies = causes(case, monkeypatch)[cause].remedies
        rates = [remedy.apply(case).optimizer.lr for remedy in remedies]
        assert all(0.01 <= rate <= 10 for rate in rates)
        assert len(set(rates)) == 2


def cosine(share):
    return 0.5 * (1 + math.cos(math.pi * share))


def cycle(share, rise=0.3, first=0.04):
    if share < rise:
        return first + (1 - first) * (1 - cosine(share / rise))
    return cosine((share - rise) / (1 - rise))


def of_course(course, steps=100, lr=0.1):
    """What the rule makes of a factor as a function of the share of the steps made."""
    model = nn.Linear(2, 2)
    data = [(torch.zeros(4, 2), torch.zeros(4, dtype=torch.long))] * 2
    case = Problem(model, nn.CrossEntropyLoss(), data, optimizer=torch.optim.SGD(model.parameters(), lr=lr))
    loop = replace(case.loop, steps=steps, schedule=tuple(course(i / steps) for i in range(steps)))
    return schedule_decays_too_early.RULE.judge(Evidence(loop, replace(case, loop=loop)))


@pytest.mark.parametrize(
    "course",
    [
        cosine,
        cycle,
        lambda share: 1 - share,
        lambda share: 1.0 if share < 1 / 2 else 0.1 if share < 3 / 4 else 0.01,
        lambda share: 1.0 if share < 0.7 else 0.05,
        lambda share: min(1.0, 10 * share + 0.01),
        lambda share: min(1.0, 2 * share + 0.01),
    ],
)
def test_courses_that_are_usual_are_not_suspected(course):
    assert of_course(course) is None


@pytest.mark.parametrize(("cut", "strength"), [(0.4, 0.6), (0.55, 0.6), (0.08, 0.8), (0.01, 0.8)])
def test_a_rate_that_is_cut_early_is_suspected_the_more_the_earlier(cut, strength):
    found = of_course(lambda share: 1.0 if share < cut else 0.05)
    assert (found.strength, found.fault) == (strength, False)
    assert f"After {round(100 * cut)} of 100 steps" in found.summary
    assert [r.id for r in found.remedies] == ["constant-schedule"]
    assert found.remedies[0].steps == min(round(1.5 * 100 * cut), 100)


def test_a_tenth_is_a_tenth_whatever_its_last_digit():
    assert 0.7 * 0.1 / 0.7 < 0.1
    assert of_course(lambda share: 1.0 if share < 1 / 2 else 0.7 * 0.1 / 0.7) is None
