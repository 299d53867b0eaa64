"""Rules of sections 5 and 6 (loss, outputs, inputs): sick problems fire with the right cause, look-alikes do not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
import torch.nn.functional as F
from tests.probes import test_loss as gradients
from torch import Tensor, nn
from torch.distributions import Categorical

from unstuck.criterion import prepared, weighed
from unstuck.errors import UnstuckError
from unstuck.evidence import Evidence
from unstuck.probes import anatomy, data, level, loss, objective
from unstuck.problem import Problem, state_of
from unstuck.rules import (
    activation_loss_mismatch,
    class_imbalance,
    class_weights_wrong,
    loss_mse_on_classification,
    nonfinite_data,
    output_range_mismatch,
    output_target_shape_mismatch,
    softmax_applied_twice,
    softmax_over_one_output,
    unscaled_inputs,
    unscaled_targets,
    wrong_loss_sign_or_scale,
)
from unstuck.rules.rule import Rule
from unstuck.training import Training

RULES: tuple[Rule, ...] = (
    loss_mse_on_classification.RULE,
    softmax_applied_twice.RULE,
    activation_loss_mismatch.RULE,
    softmax_over_one_output.RULE,
    output_range_mismatch.RULE,
    output_target_shape_mismatch.RULE,
    wrong_loss_sign_or_scale.RULE,
    class_weights_wrong.RULE,
    class_imbalance.RULE,
    unscaled_targets.RULE,
    unscaled_inputs.RULE,
    nonfinite_data.RULE,
)
PROBES = {"level": level, "anatomy": anatomy, "data": data, "objective": objective}

N, C = 60, 3
X = torch.randn(N, 4, generator=torch.Generator().manual_seed(1))
CLASSES = (X[:, 0] > 0).long() + (X[:, 1] > 0).long()
ONEHOT = F.one_hot(CLASSES, C).float()
BITS = (X[:, :1] > 0).float()
RARE = torch.zeros(N).index_fill(0, torch.tensor([3, 30, 50]), 1.0)
VALUES = X[:, :1] - X[:, 1:2]
TOKENS = torch.stack([CLASSES, CLASSES.flip(0)], 1)


class Pooled(nn.Module):
    """Attention pooling right before the loss: a softmax in the head that is none of the output's."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.query = nn.Linear(4, 2 * C), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        states = self.body(x).view(-1, 2, C)
        return (self.query(x).softmax(1)[:, :, None] * states).sum(1)


class Steps(nn.Module):
    """Two outputs a sample, classes last: [N, 2, C]."""

    def __init__(self, ending: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        super().__init__()
        self.body, self.ending = nn.Linear(4, 2 * C), ending

    def forward(self, x: Tensor) -> Tensor:
        return self.ending(self.body(x).view(-1, 2, C))


@dataclass(frozen=True)
class Case:
    name: str
    loss: Callable[[Tensor, Tensor], Tensor]
    target: Tensor
    causes: tuple[str, ...] = ()
    x: Tensor | None = None
    width: int = C
    model: Callable[[], nn.Module] | None = None
    optimizer: type[torch.optim.Optimizer] = torch.optim.SGD
    options: tuple[tuple[str, object], ...] = ()

    def __str__(self) -> str:
        return self.name


def evidence_of(case: Case, trained: int = 0) -> Evidence:
    torch.manual_seed(0)
    model = case.model() if case.model else nn.Linear(4, case.width)
    optimizer = case.optimizer(model.parameters(), lr=0.1, **dict(case.options))  # type: ignore[call-arg, arg-type]
    x = X if case.x is None else case.x
    problem = Problem(model, case.loss, [(x, case.target)], optimizer=optimizer)
    problem = prepared(problem)
    if trained:
        run = Training(problem)
        run.advance(trained)
        problem = replace(problem, last=state_of(run.model))
    problem = weighed(problem)
    found = {}
    for name, probe in PROBES.items():
        with contextlib.suppress(UnstuckError):
            found[name] = probe.measure(problem)
    return Evidence(problem.loop, problem, problem.optimizer, **found)


def causes_of(evidence: Evidence) -> dict[str, bool]:
    """Cause → whether it is a fault, of the rules under test."""
    judged = [r.judge(evidence) for r in RULES if all(getattr(evidence, n) is not None for n in r.needs)]
    return {s.cause: s.fault for s in judged if s is not None}


def bce(o: Tensor, t: Tensor) -> Tensor:
    return F.binary_cross_entropy(o.sigmoid(), t)


SICK = [
    Case("mse on softmax", lambda o, t: F.mse_loss(o.softmax(1), t), ONEHOT, ("loss-mse-on-classification",)),
    Case("l1 on sigmoid", lambda o, t: F.l1_loss(o.sigmoid(), t), BITS, ("loss-mse-on-classification",), width=1),
    Case("brier by hand", lambda o, t: (o.softmax(1) - t).pow(2).sum(1).mean(), ONEHOT,
         ("loss-mse-on-classification",)),
    Case("softmax in the loop", lambda o, t: F.cross_entropy(F.softmax(o, 1), t), CLASSES, ("softmax-applied-twice",)),
    Case("softmax in the model", F.cross_entropy, CLASSES, ("softmax-applied-twice",),
         model=lambda: nn.Sequential(nn.Linear(4, C), nn.Softmax(dim=-1))),
    Case("softmax in the model, dim left out", F.cross_entropy, CLASSES, ("softmax-applied-twice",),
         model=lambda: nn.Sequential(nn.Linear(4, C), nn.Softmax())),
    Case("softmax of tokens, then transposed", lambda o, t: F.cross_entropy(o.transpose(1, 2), t), TOKENS,
         ("softmax-applied-twice",), model=lambda: Steps(lambda x: x.softmax(-1))),
    Case("softmax of tokens, then flattened", lambda o, t: F.cross_entropy(o.flatten(0, 1), t.flatten()), TOKENS,
         ("softmax-applied-twice",), model=lambda: Steps(lambda x: x.softmax(-1))),
    Case("softmax, then log-softmax", lambda o, t: F.nll_loss(o.softmax(1).log_softmax(1), t), CLASSES,
         ("softmax-applied-twice",)),
    Case("softmax, then log-softmax, of tokens", lambda o, t: F.nll_loss(o.log_softmax(-1).mT, t), TOKENS,
         ("softmax-applied-twice",), model=lambda: Steps(lambda x: x.softmax(-1))),
    Case("sigmoid and bce with logits", lambda o, t: F.binary_cross_entropy_with_logits(o.sigmoid(), t), BITS,
         ("activation-loss-mismatch",), width=1),
    Case("sigmoid and cross-entropy", lambda o, t: F.cross_entropy(o.sigmoid(), t), CLASSES,
         ("activation-loss-mismatch",)),
    Case("tanh and cross-entropy", lambda o, t: F.cross_entropy(o.tanh(), t), CLASSES, ("activation-loss-mismatch",)),
    Case("softmax and nll", lambda o, t: F.nll_loss(o.softmax(1), t), CLASSES, ("activation-loss-mismatch",)),
    Case("logits and nll", F.nll_loss, CLASSES, ("activation-loss-mismatch",)),
    Case("probabilities into kl", lambda o, t: F.kl_div(o.softmax(1), t, reduction="batchmean"), 0.8 * ONEHOT + 0.2 / 3,
         ("activation-loss-mismatch",)),
    Case("picked without a logarithm", lambda o, t: -o.softmax(1)[torch.arange(len(t)), t].mean(), CLASSES,
         ("activation-loss-mismatch",)),
    Case("clamp and bce", lambda o, t: F.binary_cross_entropy(o.clamp(0, 1), t), BITS, ("activation-loss-mismatch",),
         width=1),
    Case("softmax of one output", lambda o, t: F.binary_cross_entropy(o.softmax(1), t), BITS,
         ("softmax-over-one-output",), width=1),
    Case("cross-entropy of one output", F.cross_entropy, BITS, ("softmax-over-one-output",), width=1),
    Case("cross-entropy over the samples", lambda o, t: F.cross_entropy(o.squeeze(1), t.squeeze(1)), BITS,
         ("softmax-over-one-output",), width=1),
    Case("log-softmax over the samples", lambda o, t: F.nll_loss(o.log_softmax(0), t), CLASSES,
         ("softmax-over-one-output",)),
    Case("log-softmax over the steps, flattened", lambda o, t: F.nll_loss(o.flatten(0, 1), t.flatten()), TOKENS,
         ("softmax-over-one-output",), model=lambda: Steps(lambda x: x.log_softmax(1))),
    Case("softmax over the samples, then cross-entropy", lambda o, t: F.cross_entropy(o.softmax(0), t), CLASSES,
         ("softmax-over-one-output",)),
    Case("relu before a regression", lambda o, t: F.mse_loss(o.relu(), t), VALUES, ("output-range-mismatch",), width=1),
    Case("sigmoid before wide values", lambda o, t: F.mse_loss(o.sigmoid(), t), VALUES, ("output-range-mismatch",),
         width=1),
    Case("sigmoid against −1 and 1", lambda o, t: ((o.sigmoid() - t) ** 2).mean(), 2 * BITS - 1,
         ("output-range-mismatch",), width=1),
    Case("bce with logits on values", F.binary_cross_entropy_with_logits, VALUES, ("output-range-mismatch",), width=1),
    Case("[N, 1] against [N]", F.mse_loss, VALUES[:, 0], ("output-target-shape-mismatch",), width=1),
    Case("[N] against [N, 1], by hand", lambda o, t: ((o.squeeze(1) - t) ** 2).mean(), VALUES,
         ("output-target-shape-mismatch",), width=1),
    Case("minus", lambda o, t: -F.cross_entropy(o, t), CLASSES, ("wrong-loss-sign-or-scale",)),
    Case("minus left out", lambda o, t: F.log_softmax(o, 1).gather(1, t[:, None]).mean(), CLASSES,
         ("wrong-loss-sign-or-scale",)),
    Case("minus left out of a product", lambda o, t: (t * o.softmax(1).log()).sum(1).mean(), ONEHOT,
         ("wrong-loss-sign-or-scale",)),
    Case("a distribution's log-probability, minus left out", lambda o, t: Categorical(logits=o).log_prob(t).mean(),
         CLASSES, ("wrong-loss-sign-or-scale",)),
    Case("maximize", F.mse_loss, VALUES, ("wrong-loss-sign-or-scale",), width=1, options=(("maximize", True),)),
    Case("sum", lambda o, t: F.mse_loss(o, t, reduction="sum"), VALUES, ("wrong-loss-sign-or-scale",), width=1),
    Case("divided once more", lambda o, t: F.cross_entropy(o, t) / N, CLASSES, ("wrong-loss-sign-or-scale",)),
    Case("weights squared", lambda o, t: F.cross_entropy(o, t, weight=torch.tensor([1.0, 400.0, 1.0])), CLASSES,
         ("class-weights-wrong",)),
    Case("pos_weight upside down",
         lambda o, t: F.binary_cross_entropy_with_logits(o, t, pos_weight=torch.tensor([0.01])), BITS,
         ("class-weights-wrong",), width=1),
    Case("three in sixty", lambda o, t: F.binary_cross_entropy_with_logits(o.squeeze(1), t), RARE, ("class-imbalance",),
         width=1),
    Case("targets in thousands", F.mse_loss, 1000 * VALUES + 4000, ("unscaled-targets",), width=1),
    Case("targets in thousandths", F.mse_loss, 0.001 * VALUES, ("unscaled-targets",), width=1),
    Case("pixels", F.cross_entropy, CLASSES, ("unscaled-inputs",), x=(X * 60 + 128).clamp(0, 255)),
    Case("one large column", F.cross_entropy, CLASSES, ("unscaled-inputs",), x=X * torch.tensor([1, 1e4, 1, 1])),
    Case("tiny", F.cross_entropy, CLASSES, ("unscaled-inputs",), x=X * 0.01),
    Case("a gap", F.cross_entropy, CLASSES, ("nonfinite-data",), x=X.where(X < 2, torch.nan)),
    Case("a gap in the targets", F.mse_loss, VALUES.where(VALUES < 2, torch.nan), ("nonfinite-data",), width=1),
]  # fmt: skip

HEALTHY = [
    Case("cross-entropy", F.cross_entropy, CLASSES),
    Case("log-softmax and nll", lambda o, t: F.nll_loss(o.log_softmax(1), t), CLASSES),
    Case("log-softmax and cross-entropy", lambda o, t: F.cross_entropy(o.log_softmax(1), t), CLASSES),
    Case("log-softmax twice", lambda o, t: F.nll_loss(o.log_softmax(1).log_softmax(1), t), CLASSES),
    Case("log of a softmax and nll", lambda o, t: F.nll_loss((o.softmax(1) + 1e-8).log(), t), CLASSES),
    Case("attention pooling at the end", F.cross_entropy, CLASSES, model=Pooled),
    Case("cross-entropy of tokens", lambda o, t: F.cross_entropy(o.transpose(1, 2), t), TOKENS, model=Steps),
    Case("nll of tokens", lambda o, t: F.nll_loss(o.flatten(0, 1), t.flatten()), TOKENS,
         model=lambda: Steps(lambda x: x.log_softmax(-1))),
    Case("picked by hand, classes last", lambda o, t: -o.log_softmax(-1).gather(-1, t[..., None]).mean(), TOKENS,
         model=Steps),
    Case("a distribution's log-probability", lambda o, t: -Categorical(logits=o).log_prob(t).mean(), CLASSES),
    Case("soft labels", F.cross_entropy, 0.9 * ONEHOT + 0.1 / 3),
    Case("sigmoid and bce", bce, BITS, width=1),
    Case("sigmoid, clamped, and bce", lambda o, t: F.binary_cross_entropy(o.sigmoid().clamp(1e-6, 1 - 1e-6), t), BITS,
         width=1),
    Case("bce by hand", lambda o, t: -(t * o.sigmoid().log() + (1 - t) * (1 - o.sigmoid()).log()).mean(), BITS,
         width=1),
    Case("several labels", F.binary_cross_entropy_with_logits, (X[:, :3] > 0).float()),
    Case("wide tanh of logits", lambda o, t: F.cross_entropy(30 * (o / 30).tanh(), t), CLASSES),
    Case("wide clamp of logits", lambda o, t: F.cross_entropy(o.clamp(-20, 20), t), CLASSES),
    Case("focal", lambda o, t: ((1 - (-F.cross_entropy(o, t, reduction="none")).exp()) ** 2
                                * F.cross_entropy(o, t, reduction="none")).mean(), CLASSES),
    Case("relu before positive values", lambda o, t: F.mse_loss(o.relu(), t), VALUES.abs(), width=1),
    Case("scaled sigmoid", lambda o, t: F.mse_loss(10 * o.sigmoid() - 5, t), VALUES, width=1),
    Case("reconstruction of ones and zeros", lambda o, t: F.mse_loss(o.sigmoid(), t), (X[:, :3] > 0).float()),
    Case("by hand", lambda o, t: (o - t).square().mean(), VALUES, width=1),
    Case("pairs on purpose", lambda o, t: (o[:, None] - t[None]).square().mean(), VALUES, width=1),
    Case("one target for all", F.mse_loss, torch.ones(1), width=1),
    Case("advantages", lambda o, t: -(o.log_softmax(1)[:, 0] * t).mean(), VALUES[:, 0]),
    Case("a small term to push away from", lambda o, t: F.cross_entropy(o, CLASSES) - 0.001 * F.mse_loss(o, t), ONEHOT),
    Case("sum under Adam", lambda o, t: F.mse_loss(o, t, reduction="sum"), VALUES, width=1, optimizer=torch.optim.Adam),
    Case("sum over the length", lambda o, t: F.cross_entropy(o, t, reduction="sum") / len(t), CLASSES),
    Case("minus and maximize", lambda o, t: -F.mse_loss(o, t), VALUES, width=1, options=(("maximize", True),)),
    Case("balanced weights", lambda o, t: F.cross_entropy(o, t, weight=len(t) / 3 / torch.bincount(t)), CLASSES),
    Case("a class left out", lambda o, t: F.cross_entropy(o, t, weight=torch.tensor([0.0, 1.0, 1.0])), CLASSES),
    Case("batch norm first", F.cross_entropy, CLASSES, x=1000 * X,
         model=lambda: nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, C))),
    Case("one-hot inputs", F.cross_entropy, CLASSES, x=F.one_hot(torch.arange(N) % 4, 4).float()),
    Case("prepared inside", F.cross_entropy, CLASSES, x=X * 60 + 128,
         model=lambda: nn.Sequential(Shifted(), nn.Linear(4, C))),
    Case("standardized values", F.mse_loss, (VALUES - VALUES.mean()) / VALUES.std(), width=1),
]  # fmt: skip


class Shifted(nn.Module):
    """The model's own preparation."""

    def forward(self, x: Tensor) -> Tensor:
        return (x - 128) / 60


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", SICK, ids=str)
def test_the_cause_is_named_and_no_other(case):
    assert tuple(causes_of(evidence_of(case))) == case.causes


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", HEALTHY, ids=str)
def test_look_alikes_are_silent(case):
    assert causes_of(evidence_of(case)) == {}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", SICK, ids=str)
def test_every_remedy_can_be_applied_and_evaluated(case):
    evidence = evidence_of(case)
    assert evidence.problem is not None
    judged = [r.judge(evidence) for r in RULES if all(getattr(evidence, n) is not None for n in r.needs)]
    for suspicion in filter(None, judged):
        assert suspicion.remedies and suspicion.where and 2 <= len(suspicion.evidence) + 1 <= 5
        for remedy in suspicion.remedies:
            changed = remedy.apply(evidence.problem)
            value = changed.value(changed.twin(), changed.data[0])
            assert value.requires_grad and (value.isfinite() or "nonfinite-data" in case.causes)


@pytest.mark.parametrize(
    ("name", "on"),
    [("log-softmax over the samples", "one by one"), ("log-softmax over the steps, flattened", "held-out")],
)
def test_a_softmax_over_the_batch_is_judged_on_samples_alone(name, on):
    """Over the batch an output depends on the others in it; over the steps of a sample it does not."""
    case = next(case for case in SICK if case.name == name)
    found = softmax_over_one_output.judge(evidence_of(case))
    assert [remedy.on for remedy in found.remedies] == [on]


def test_squared_error_that_learns_everything_is_left_to_the_race():
    """A matter of degree: the rule may speak, but it is no fault, so a sound training gets no problem."""
    assert causes_of(evidence_of(SICK[0])) == {"loss-mse-on-classification": False}


def test_a_network_that_finds_the_rare_class_has_no_imbalance():
    x = X.clone()
    x[:, 0] = 8 * RARE - 4
    case = replace(SICK[[c.name for c in SICK].index("three in sixty")], x=x)
    assert causes_of(evidence_of(case, trained=400)) == {}
    assert "class-imbalance" in causes_of(evidence_of(case))


@pytest.mark.parametrize("name", ["softmax, then log-softmax", "softmax, then log-softmax, of tokens"])
def test_without_the_extra_softmax_the_loss_is_cross_entropy(name):
    evidence = evidence_of(SICK[[c.name for c in SICK].index(name)])
    found, problem = softmax_applied_twice.RULE.judge(evidence), evidence.problem
    assert found.fault and [r.id for r in found.remedies] == ["drop-extra-softmax"]
    assert found.evidence[0].value == pytest.approx(1)
    cured, model = found.remedies[0].apply(problem), problem.twin()
    x, y = problem.data[0]
    logits = model.body(x) if isinstance(model, Steps) else model(x)
    expected = F.cross_entropy(logits.view(-1, C), y.flatten())
    torch.testing.assert_close(cured.value(cured.twin(), cured.data[0]), expected)


POSITIVE = torch.zeros(N, 1).index_fill(0, torch.arange(0, N, 10), 1.0)
"""Six in sixty."""


@pytest.mark.parametrize(
    ("weight", "fires"), [(6 / 54, True), (0.15, True), (54 / 6, False), (3.0, False), (None, False)]
)
def test_the_weight_of_positives_upside_down(weight, fires):
    def loss(o, t):
        return F.binary_cross_entropy_with_logits(o, t, pos_weight=None if weight is None else torch.tensor([weight]))

    evidence = evidence_of(Case("", loss, POSITIVE, width=1))
    found = class_weights_wrong.RULE.judge(evidence)
    assert (found is not None) == fires
    if fires:
        assert found.fault and "Class 1" in found.summary
        assert found.evidence[0].value == pytest.approx(0.1)
        # weight · 0.1 of weight · 0.1 + 0.9
        assert found.evidence[1].value == pytest.approx(0.1 * weight / (0.1 * weight + 0.9), rel=1e-5)
        assert [r.id for r in found.remedies] == ["drop-class-weights", "balanced-weights"]


@pytest.mark.parametrize(
    ("rule", "function", "target"),
    [
        (loss_mse_on_classification, F.mse_loss, gradients.HOT),
        (softmax_applied_twice, F.cross_entropy, gradients.CLASSES),
    ],
)
def test_the_rules_cite_the_dead_share(rule, function, target) -> None:
    case = gradients.posed(function, target, gradients.confident(14.0, nn.Softmax(1)), gradients.WRONG)
    probes = {"objective": objective, "level": level, "anatomy": anatomy}
    known = {name: probe.measure(case) for name, probe in probes.items()}
    plain = rule.judge(Evidence(case.loop, case, **known))
    cited = rule.judge(Evidence(case.loop, case, loss=loss.measure(case), **known))
    assert cited.evidence[:-1] == plain.evidence and cited.evidence[-1].value == 1.0
    assert cited.evidence[-1].samples == 32 and 0 < cited.evidence[-1].error < 0.05
