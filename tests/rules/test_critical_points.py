"""Saddle, minimum, plateau and ill-conditioning: found where they were made, silent on what trains."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.curvature.test_saddle import whitened
from tests.curvature.test_scan import normal
from tests.small import clouds, mlp, trained, written
from torch import Tensor, nn

from unstuck.diagnose import diagnose
from unstuck.evidence import Evidence
from unstuck.probes import curvature, history, level, references
from unstuck.problem import Problem
from unstuck.recipe import recipe_of
from unstuck.rules import flat_region, ill_conditioning, local_minimum, saddle_point

RULES = (saddle_point.RULE, local_minimum.RULE, flat_region.RULE, ill_conditioning.RULE)
CAUSES = {rule.cause for rule in RULES}
PROBES = {"curvature": curvature, "history": history, "level": level, "references": references}


def with_sgd(case: Problem, model: nn.Module, lr: float, **options) -> Problem:
    names = {id(p): name for name, p in model.named_parameters()}
    return replace(case, optimizer=recipe_of(torch.optim.SGD(model.parameters(), lr, **options), names))


def measured(case: Problem, *names: str) -> Evidence:
    return Evidence(case.loop, case, **{name: PROBES[name].measure(case) for name in names or ("curvature",)})


class Gained(nn.Module):
    """An odd network without biases, times a gain that begins at 0, with biases that begin at 0."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = mlp()
        self.layers[1] = nn.Tanh()
        nn.init.zeros_(self.layers[0].bias), nn.init.zeros_(self.layers[2].bias)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.gain * self.layers(x)


def at_a_saddle() -> Problem:
    """Every input comes in both signs with one label: all first derivatives cancel, gain and biases bend down."""
    x, y = clouds(640)
    both, labels = torch.stack([x, -x], 1).reshape(-1, 24), y.repeat_interleave(2)
    model = Gained()
    return trained(with_sgd(written(model, both, labels, size=64), model, 0.1), 100)


def regression(scales: list[float], lr: float, target: list[float], **options) -> Problem:
    """White inputs scaled by column, the weights at 0; the Hessian is 2 diag(scales²)."""
    scale = torch.tensor(scales)
    x = whitened(256, len(scales), batches=8).float() * scale
    model = nn.Linear(len(scales), 1, bias=False)
    nn.init.zeros_(model.weight)
    case = written(model, x, x @ torch.tensor(target).unsqueeze(1), nn.MSELoss())
    return with_sgd(case, model, lr, **options)


# --- end to end -------------------------------------------------------------------------------------------------------


def test_a_training_that_stands_at_a_saddle_is_led_out_of_it():
    case = at_a_saddle()
    assert case.loop.losses[-1] == pytest.approx(1.386, abs=0.01)
    report = diagnose(case, case.loop, budget_s=12)
    assert [finding.cause for finding in report.findings][:1] == ["saddle-point"], (report.findings, report.skipped)
    found = report.findings[0]
    assert found.severity == "problem" and found.remedy.id == "escape"
    assert "unstuck.escape(" in found.remedy.code and "negative curvature" in found.remedy.text
    assert found.verdict.outcome in {"cured", "helped"}
    assert found.verdict.remedied > found.verdict.control
    assert any("escape" in curve.name for chart in report.charts for curve in chart.curves)


@pytest.mark.parametrize("kind", ["classes", "regression"])
def test_what_trains_has_none_of_the_four(kind):
    if kind == "classes":
        case = trained(written(mlp(), *clouds(320)), 120)
    else:
        x = normal(320, 6).float()
        case = trained(written(mlp(6, 1), x, x[:, :1] + x[:, 1:2].tanh(), nn.MSELoss()), 300)
    report = diagnose(case, case.loop, budget_s=8, cure=False)
    assert report.healthy
    assert not CAUSES & {finding.cause for finding in report.findings}


def test_every_rule_says_what_it_needs_and_what_it_means():
    for rule in RULES:
        assert "curvature" in rule.needs and rule.lesson and rule.told_by and rule.cures


# --- one by one -------------------------------------------------------------------------------------------------------


def test_saddle_point():
    evidence = measured(at_a_saddle())
    found = saddle_point.judge(evidence)
    away = evidence.curvature.away
    assert found.cause == "saddle-point" and found.where == "after step 100"
    assert f"from {away.loss:.4g} to {away.after:.4g}" in found.summary and away.after < away.loss
    assert [figure.name for figure in found.evidence][-1] == "loss after one step along it"
    (remedy,) = found.remedies
    assert remedy.against == "from the end" and remedy.on == "train"
    case = evidence.problem
    beyond = remedy.apply(case)
    assert torch.stack([case.value(beyond.twin(), batch) for batch in case.data]).mean() < away.loss
    assert saddle_point.judge(replace(evidence, curvature=replace(evidence.curvature, away=None))) is None


def test_flat_region():
    """A loss that gives up on large errors, begun far out."""
    model = nn.Linear(4, 1)
    nn.init.constant_(model.bias, 30.0)

    def bounded(output: Tensor, target: Tensor) -> Tensor:
        return (1 - torch.exp(-0.5 * (output - target).square())).mean()

    x = normal(256, 4).float()
    case = with_sgd(written(model, x, x[:, :1], bounded), model, 0.1)
    found = flat_region.judge(measured(trained(case, 40)))
    assert found.cause == "flat-region"
    assert [remedy.id for remedy in found.remedies] == ["squared-error", "reinitialize"]
    assert "changes the loss by less than a hundredth" in found.summary
    near = nn.Linear(4, 1)
    assert flat_region.judge(measured(trained(with_sgd(written(near, x, x[:, :1], bounded), near, 0.1), 40))) is None


def narrow() -> tuple[Problem, Problem]:
    """Labels that a line cannot tell apart, a linear model at its optimum; and the same where it can."""
    cases = []
    for separable in (False, True):
        x = normal(640, 2).float()
        y = x[:, :1] if separable else x[:, :1] * x[:, 1:2]
        model = nn.Linear(2, 1)
        with torch.no_grad():
            columns = torch.cat([x, torch.ones(640, 1)], 1).double()
            solution = torch.linalg.lstsq(columns, y.double() + 0.01 * normal(640, 1, seed=2)).solution.float()
            model.weight.copy_(solution[:2].T), model.bias.copy_(solution[2])
        case = with_sgd(written(model, x, y + 0.01 * normal(640, 1, seed=2).float(), nn.MSELoss()), model, 0.01)
        cases.append(trained(case, 16))
    return cases[0], cases[1]


def test_local_minimum_only_where_the_data_allow_of_more():
    stuck, fine = narrow()
    evidence = measured(stuck, "curvature", "level", "references", "history")
    assert evidence.curvature.point.verdict == "minimum"
    found = local_minimum.judge(evidence)
    assert found.cause == "local-minimum" and "no direction goes down" in found.summary
    assert [remedy.id for remedy in found.remedies] == ["another-start", "another-start"]
    lower = replace(evidence.history, first=2 * evidence.history.last, lowest=evidence.history.last / 3, noise=0.0)
    assert lower.rose and local_minimum.judge(replace(evidence, history=lower)) is None
    bounces = replace(evidence.curvature, sharpness=2.5)
    assert local_minimum.judge(replace(evidence, curvature=bounces)) is None
    reached = measured(fine, "curvature", "level", "references")
    assert reached.curvature.point.verdict == "minimum" and local_minimum.judge(reached) is None


def test_ill_conditioning_on_standardized_but_correlated_inputs():
    """Two columns of variance 1 and correlation ρ: eigenvalues 2 (1 ± ρ), what differs between them is left."""
    rho, lr = 0.999, 0.45
    a, b = whitened(256, 2, batches=8).float().unbind(1)
    x = torch.stack([a, rho * a + (1 - rho**2) ** 0.5 * b], 1)
    assert torch.allclose(x.var(0, unbiased=False), torch.ones(2), atol=0.2)
    model = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(model.weight)
    case = written(model, x, 30 * (x[:, :1] - x[:, 1:]), nn.MSELoss())
    evidence = measured(trained(with_sgd(case, model, lr), 40))
    steepest = 2 * (1 + rho)
    assert evidence.curvature.sharpness == pytest.approx(lr * steepest / 2, rel=0.05)
    assert evidence.curvature.flat_left > 0.99
    found = ill_conditioning.judge(evidence)
    assert found.cause == "ill-conditioning"
    assert [remedy.label.split()[0] for remedy in found.remedies][1:] == ["change-optimizer"] * 2
    assert len(found.remedies) == 3
    assert f"{100 * evidence.curvature.sharpness:.0f} % of what the steepest direction allows" in found.summary


@pytest.mark.parametrize(
    ("scales", "lr", "target"),
    [
        ([3.0, 1.0], 0.1, [1.0, 1.0]),
        ([3.0, 0.1], 0.01, [1.0, 100.0]),
        ([3.0, 0.1], 0.1, [100.0, 1.0]),
        ([3.0, 0.1], 0.3, [1.0, 100.0]),
    ],
    ids=["well conditioned", "a small step", "steep is left", "a step far too large"],
)
def test_ill_conditioning_needs_a_large_step_and_flat_directions(scales, lr, target):
    assert ill_conditioning.judge(measured(regression(scales, lr, target))) is None
    assert ill_conditioning.judge(measured(regression([3.0, 0.1], 0.1, [1.0, 100.0]))) is not None


def test_adaptive_steps_and_momentum():
    case = regression([3.0, 0.1], 0.1, [1.0, 100.0])
    fast = regression([3.0, 0.1], 0.19, [1.0, 100.0], momentum=0.9)
    assert measured(fast).curvature.sharpness == pytest.approx(0.19 * 18 / 3.8, rel=1e-4)
    found = ill_conditioning.judge(measured(fast))
    assert found is not None and all("change-optimizer" in remedy.label for remedy in found.remedies)
    model = nn.Linear(2, 1, bias=False)
    adam = recipe_of(torch.optim.Adam(model.parameters(), 0.1), {id(model.weight): "weight"})
    assert ill_conditioning.judge(measured(replace(case, optimizer=adam))) is None
