"""Rules of section 7, on measured and on made-up records."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from unstuck.criterion import Score, prepared
from unstuck.diagnose import _race
from unstuck.evidence import Evidence
from unstuck.probes.normalization import Layer, Normalization, measure
from unstuck.probes.statistics import Noise, left_of_start
from unstuck.problem import Problem, state_of
from unstuck.rules import batchnorm_frozen, batchnorm_small_batch, batchnorm_train_eval_gap
from unstuck.training import Training

RULES = (batchnorm_frozen, batchnorm_small_batch, batchnorm_train_eval_gap)


def problem(**facts):
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    made = Problem(model, nn.CrossEntropyLoss(), [(torch.randn(8, 3), torch.zeros(8, dtype=torch.long))] * 2,
                   optimizer=torch.optim.SGD(model.parameters(), 0.1))  # fmt: skip
    return replace(made, loop=replace(made.loop, steps=50, backwards=50, **facts))


def accuracy(value, loss=0.3):
    return Score("accuracy", value, loss, 512)


def record(batch=64, momentum=0.1, trains=True, fresh_start=True, fresh_end=False, own=(0.9, 0.3), run=0.9, again=0.9,
           large=None, strays=0, updates=50, worth=None):  # fmt: skip
    left = left_of_start(momentum, updates)
    layer = Layer("1", trains, True, momentum, fresh_start, fresh_end, 0.5, batch, updates, left)
    by_large = accuracy(*large) if large else None
    if worth is not None:
        spread = Noise(batch, worth**-0.5, 0.02, worth**-0.5, 0.02, batch, 40)
        layer, by_large = replace(layer, spread=spread), accuracy(*own)
    return Normalization((layer,), (), batch, accuracy(*own), accuracy(run), accuracy(again), by_large, strays)


def causes(norms, **facts):
    made = problem(**facts)
    found = [rule.RULE.judge(Evidence(made.loop, made, normalization=norms)) for rule in RULES]
    return {s.cause: s for s in found if s is not None}


SICK = {
    "frozen": ("batchnorm-frozen", record(trains=False, fresh_end=True), True),
    "small": ("batchnorm-small-batch", record(batch=2, own=(0.6, 1.2), large=(0.85, 0.6)), False),
    "small, by score": ("batchnorm-small-batch", record(batch=4, own=(0.8, 0.6), large=(0.9, 0.55)), False),
    "slow": ("batchnorm-train-eval-gap", record(momentum=1e-4, run=0.6), True),
    "fast": ("batchnorm-train-eval-gap", record(momentum=1.0, run=0.6), True),
    "few batches": ("batchnorm-train-eval-gap", record(updates=8, run=0.6), True),
    "gap": ("batchnorm-train-eval-gap", record(run=0.6), False),
    "gap after a few looks": ("batchnorm-train-eval-gap", record(run=0.6, strays=5), False),
    "batches unlike each other": ("batchnorm-train-eval-gap", record(run=0.6, again=0.62), True),
    "unlike, and moved elsewhere": ("batchnorm-train-eval-gap", record(run=0.6, again=0.62, strays=40), True),
    "noise half of the signal": ("batchnorm-small-batch", record(batch=2, worth=3.8), False),
    "moved elsewhere": ("batchnorm-train-eval-gap", record(run=0.6, strays=6), True),
}


@pytest.mark.parametrize("name", SICK)
def test_fires_alone(name):
    cause, norms, fault = SICK[name]
    found = causes(norms)
    assert list(found) == [cause]
    assert found[cause].fault == fault
    assert found[cause].where.startswith("1 (BatchNorm)")
    assert found[cause].remedies


HEALTHY = {
    "sound": record(),
    "frozen late": record(trains=False),
    "pretrained and frozen": record(trains=False, fresh_start=False),
    "slow but fitting": record(momentum=1e-3),
    "few batches, and fitting": record(updates=8),
    "a small gap that recalibration leaves": record(run=0.82, again=0.84),
    "a gap half of which is left": record(run=0.75, again=0.81),
    "a little noise": record(batch=8, worth=10.8),
    "moved elsewhere, without harm": record(strays=40),
    "small but harmless": record(batch=4, own=(0.9, 0.30), large=(0.91, 0.28)),
    "large": record(batch=64, own=(0.6, 1.2), large=(0.85, 0.6)),
    "no batchnorm": Normalization((), (), 2),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_silent(name):
    assert causes(HEALTHY[name]) == {}


def test_a_model_in_eval_mode_as_a_whole_is_another_cause():
    assert causes(record(trains=False, fresh_end=True), eval_share=1.0) == {}


@pytest.mark.parametrize(("strays", "fires"), [(0, False), (30, True)])
def test_statistics_moved_by_passes_on_other_data_are_a_fault(strays, fires):
    torch.manual_seed(0)
    x = torch.randn(512, 6)
    y = (x[:, 0] > x[:, 1]).long()
    model = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 2))
    data = list(zip(x.split(32), y.split(32), strict=True))
    made = Problem(model, nn.CrossEntropyLoss(), data, optimizer=torch.optim.Adam(model.parameters(), 0.02))
    made = prepared(made)
    run = Training(made)
    run.advance(120)
    for _ in range(strays):
        run.model(5 * x[:32] + 20)
    made = replace(made, last=state_of(run.model), loop=replace(made.loop, steps=120, backwards=120))
    norms = measure(made)
    found = batchnorm_train_eval_gap.RULE.judge(Evidence(made.loop, made, normalization=norms))
    assert norms.strays == strays and (found is not None) == fires
    if fires:
        assert found.fault and found.strength > 0.9 and "30 forward passes" in found.summary
        assert found.remedies[0].id == "eval-mode-elsewhere" and found.evidence[0].value == 30
        raced = _race(Evidence(made.loop, made, normalization=norms), [found], 5, lambda what, share: None)
        verdict = raced.verdicts[found.lanes[0][0]]
        assert verdict.outcome == "cured" and verdict.steps == verdict.seeds == 0 and raced.curves == ()
        assert verdict.control == pytest.approx(norms.by_running.value, abs=0.1)
        assert verdict.remedied == pytest.approx(norms.recalibrated.value, abs=0.1)
        assert verdict.interval[0] < verdict.remedied - verdict.control < verdict.interval[1]


def test_the_momentum_that_is_offered_forgets_the_start():
    found = causes(record(updates=8, run=0.6))["batchnorm-train-eval-gap"]
    (remedy,) = found.remedies
    assert left_of_start(remedy.apply(problem()).model[1].momentum, 8) <= 0.05
    assert "momentum 0.1, which after 8 batches keeps 43% of their start" in found.summary


def test_a_gap_without_a_fault_offers_slower_weights_and_exact_statistics():
    found = causes(record(run=0.6))["batchnorm-train-eval-gap"]
    assert [remedy.id for remedy in found.remedies] == ["change-learning-rate", "exact-statistics"]


def test_small_batches_offer_what_does_not_depend_on_them():
    found = causes(record(batch=2, own=(0.6, 1.2), large=(0.85, 0.6)))["batchnorm-small-batch"]
    assert [remedy.id for remedy in found.remedies] == ["group-norm", "larger-batch", "layer-norm"]
