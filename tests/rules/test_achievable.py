"""What is achievable on the data: labels, inputs, capacity, regularization, overfitting; when a training is sound."""

from dataclasses import replace

import pytest
import torch
from tests.small import clouds, mlp, trained, written
from torch import nn

from unstuck.diagnose import PROBES, gather
from unstuck.evidence import Evidence
from unstuck.loop import Loop
from unstuck.probes.labels import Labels
from unstuck.probes.references import Reference, References
from unstuck.records import Finding
from unstuck.rules import (
    labels_wrong,
    over_regularized,
    overfitting,
    underfitting_capacity,
    uninformative_inputs,
)
from unstuck.rules.rule import Suspicion
from unstuck.settle import fine, headline, key_figures, share_of_reference, sound, unexplained

CHEAP = {"history", "level", "anatomy", "generalization", "redraw", "references", "one_batch", "labels"}
MINE = (labels_wrong, uninformative_inputs, underfitting_capacity, over_regularized, overfitting)


@pytest.fixture
def gathered(monkeypatch):
    """Evidence of the probes these rules rest on."""
    monkeypatch.setattr("unstuck.diagnose.PROBES", tuple(p for p in PROBES if p[0] in CHEAP))
    monkeypatch.setattr("unstuck.probes.references.OWN_S", 1.0)
    return lambda case: gather(case, case.loop, case.optimizer, float("inf"))[0]


def suspected(evidence):
    found = [m.RULE.judge(evidence) for m in MINE if all(getattr(evidence, need) is not None for need in m.RULE.needs)]
    return {s.cause: s for s in found if s is not None}


def test_a_sound_training_is_called_so_and_nothing_is_suspected(gathered):
    evidence = gathered(trained(written(mlp(), *clouds()), 120))
    assert not suspected(evidence) and sound(evidence)
    assert "healthy: it reaches an accuracy of" in headline(evidence, ()) and "samples it did not see" in headline(
        evidence, ()
    )
    assert "held-out accuracy of a linear model" in {f.name for f in key_figures(evidence)}


def test_a_tenth_of_wrong_labels_is_no_cause_and_sound(gathered):
    x, y = clouds()
    noisy = torch.where(torch.rand(len(y)) < 0.12, torch.randint(0, 4, (len(y),)), y)
    evidence = gathered(trained(written(mlp(), x, noisy), 100))
    assert not suspected(evidence) and sound(evidence)


def test_many_wrong_labels_are_named(gathered):
    x, y = clouds(1200, classes=5)
    noisy = torch.where(torch.rand(len(y)) < 0.6, torch.randint(0, 5, (len(y),)), y)
    found = suspected(gathered(trained(written(mlp(classes=5), x, noisy), 40)))
    assert list(found) == ["labels-wrong"] and found["labels-wrong"].remedies[0].id == "clean-labels"
    assert found["labels-wrong"].fault


def test_labels_out_of_step_are_named_and_noise_for_inputs_is_told_apart(gathered):
    x, y = clouds()
    shuffled = suspected(gathered(written(mlp(), x, y[torch.randperm(len(y))])))
    assert list(shuffled) == ["labels-wrong"] and shuffled["labels-wrong"].remedies[0].id == "align-labels"
    for inputs in (torch.randn_like(x), torch.ones_like(x)):
        assert list(suspected(gathered(written(mlp(), inputs, y)))) == ["uninformative-inputs"]


def test_targets_of_a_regression_out_of_step_are_named(gathered):
    x = clouds()[0]
    order = torch.randperm(len(x))
    assert list(suspected(gathered(written(nn.Linear(24, 1), x, x[order, :1], nn.MSELoss())))) == ["labels-wrong"]
    assert not suspected(gathered(trained(written(nn.Linear(24, 1), x, x[:, :1], nn.MSELoss()), 100)))


def test_hard_data_are_not_taken_for_wrong_labels(gathered):
    """Two columns of four classes that overlap: half of the labels can be foreseen, some surely, others not."""
    x, y = clouds(1200)
    evidence = gathered(trained(written(mlp(columns=3), x[:, :3] + 0.3 * torch.randn(1200, 3), y), 60))
    assert evidence.references.best.held_out < 0.85 and not suspected(evidence)


def drawn_again(case, x, y, noise=0.0, relabelled=0.0):
    found = []
    for _ in range(9):
        labels = torch.where(torch.rand(len(y)) < relabelled, (y + 1) % 4, y)
        found.append(tuple(zip((x + noise * torch.randn_like(x)).split(32), labels.split(32), strict=True)))
    return replace(case, redraws=tuple(found))


def test_labels_that_depend_on_the_batch_are_named(gathered):
    x, y = clouds(640)
    found = suspected(gathered(drawn_again(trained(written(mlp(), x, y), 60), x, y, relabelled=0.3)))
    assert list(found) == ["labels-wrong"] and found["labels-wrong"].remedies[0].id == "settle-labels"


def test_noise_that_hides_the_inputs_is_over_regularization_and_a_little_is_not(gathered):
    x, y = clouds(960)
    x = x / x.std()
    for noise, causes in ((6.0, ["over-regularized"]), (0.2, [])):
        case = written(mlp(), x + noise * torch.randn_like(x), y)
        assert list(suspected(gathered(drawn_again(trained(case, 60), x, y, noise)))) == causes, noise


@pytest.mark.parametrize(("share", "fires"), [(0.95, True), (0.5, False)])
def test_dropout_is_strong_from_what_nobody_uses(gathered, share, fires):
    net = nn.Sequential(nn.Linear(24, 32), nn.ReLU(), nn.Dropout(share), nn.Linear(32, 4))
    found = suspected(gathered(trained(written(net, *clouds(480)), 30)))
    assert ("over-regularized" in found) == fires
    if fires:
        assert found["over-regularized"].where == "2 (Dropout)" and found["over-regularized"].evidence[0].value == 0.95


def test_noise_inside_the_model_counts_only_if_evaluation_is_free_of_it(gathered):
    class Noisy(nn.Module):
        def __init__(self, always):
            super().__init__()
            self.first, self.last, self.always = nn.Linear(24, 32), nn.Linear(32, 4), always

        def forward(self, x):
            h = torch.relu(self.first(x))
            return self.last(h + 5 * torch.randn_like(h) if self.training or self.always else h)

    for always in (False, True):  # noise in evaluation too is what a variational autoencoder does
        found = suspected(gathered(trained(written(Noisy(always), *clouds(480)), 60)))
        assert ("over-regularized" in found) == (not always)


def test_a_bottleneck_is_named_and_a_wide_network_that_trains_badly_is_not(gathered):
    x, y = clouds(classes=8)
    narrow = nn.Sequential(nn.Linear(24, 1), nn.Linear(1, 8))
    found = suspected(gathered(trained(written(narrow, x, y), 120)))
    assert list(found) == ["underfitting-capacity"] and found["underfitting-capacity"].where == "0 (Linear)"
    stuck = gathered(trained(written(mlp(classes=8), x, y), 1))
    assert not suspected(stuck) and not sound(stuck)


def test_no_hidden_layer_is_named_where_a_network_reads_more(gathered):
    torch.manual_seed(0)
    x = torch.randn(1600, 2)
    y = ((x[:, 0] * x[:, 1]) > 0).long()  # exclusive or: no straight border
    found = suspected(gathered(trained(written(nn.Linear(2, 2), x, y), 60)))
    assert found["underfitting-capacity"].remedies[0].id == "add-hidden-layer"


def few_by_heart(rows, steps, wrong):
    x, y = clouds(rows)
    torch.manual_seed(1)
    y = torch.where(torch.rand(rows) < wrong, torch.randint(0, 4, (rows,)), y)
    fresh = clouds(320, seed=5)
    validation = tuple(zip(fresh[0].split(32), fresh[1].split(32), strict=True))
    return trained(replace(written(mlp(hidden=128), x, y, size=16), validation=validation), steps)


def test_overfitting_is_named_and_makes_a_perfect_training_unsound(gathered):
    evidence = gathered(few_by_heart(64, 240, 0.4))
    found = suspected(evidence)["overfitting"]
    assert evidence.level.train.value == 1 and not sound(evidence) and found.fault
    assert found.remedies[0].id == "stop-early" and found.remedies[0].steps > evidence.generalization.best.step
    assert "overfitting" not in suspected(gathered(few_by_heart(640, 120, 0.0)))


def references(held_out, chance=0.25, error=0.01, own=float("nan"), kind="rows"):
    models = (
        Reference("bigram table", 0.5, 0.3),
        Reference("trigram table", 0.6, held_out),
        Reference("4-gram", 0.9, 0.9),
    )
    models = models if kind == "tokens" else (Reference("linear model", held_out, held_out),)
    return References("accuracy", kind, models, chance, error, 800, 200, 0.5, 0.0, own)


def test_sound_means_close_to_the_reference_or_to_perfect(gathered):
    evidence = gathered(trained(written(mlp(), *clouds(320)), 2))
    own = evidence.level.train.value
    assert 0.3 < own < 0.9
    above, below = references(own - 0.02), references(min(1.0, own + 0.5))
    assert sound(replace(evidence, references=above)) and not sound(replace(evidence, references=below))
    assert not sound(replace(evidence, references=None))
    assert sound(replace(evidence, references=references(own, kind="tokens")))  # of texts the trigram table is the mark
    assert share_of_reference(replace(evidence, references=references(0.26))) is None  # no better than a constant
    assert not sound(replace(evidence, level=None))


def test_a_reference_left_far_behind_does_not_keep_a_sure_suspicion_from_the_race(gathered):
    evidence = gathered(trained(written(mlp(), *clouds(320)), 2))
    own = evidence.level.train.value
    sure, likely = (Suspicion("optimizer-unsuited", strength, "model", "") for strength in (0.95, 0.8))
    near, outgrown = (replace(evidence, references=references(own / by, chance=0.0)) for by in (1.02, 3.0))
    assert sound(near) and sound(outgrown)
    assert fine(near, sure) and fine(outgrown, likely) and not fine(outgrown, sure)
    perfect = replace(evidence.level, train=replace(evidence.level.train, value=0.99))
    assert fine(replace(outgrown, level=perfect), sure)
    assert not fine(replace(evidence, references=None), likely)


def test_a_training_that_holds_only_in_training_mode_is_not_sound(gathered):
    evidence = gathered(trained(written(mlp(), *clouds(320)), 120))
    collapsed = replace(evidence.level, train=replace(evidence.level.train, value=0.3))
    assert sound(evidence) and not sound(replace(evidence, level=collapsed))


def test_without_a_scale_the_share_of_the_loss_that_is_gone_decides(gathered):
    evidence = gathered(trained(written(mlp(), *clouds(320)), 60))
    start = replace(evidence.level.initial, metric="negative loss", loss=1.0)
    for loss, verdict in ((0.2, True), (0.4, False), (-3.0, False)):
        train = replace(evidence.level.train, metric="negative loss", value=-loss, loss=loss)
        level = replace(evidence.level, metric="negative loss", initial=start, train=train, chance=0.0)
        assert sound(replace(evidence, level=level)) == verdict
        assert not verdict or "a loss of 0.2" in headline(replace(evidence, level=level), ())
    assert headline(replace(evidence, level=level), ()).startswith("Nothing wrong was found: the loss went from")


def test_what_falls_short_without_a_proven_cause_is_undecided_not_healthy(gathered):
    evidence = gathered(trained(written(mlp(), *clouds()), 120))
    assert not unexplained(evidence, ())
    poor = replace(evidence, level=replace(evidence.level, train=replace(evidence.level.train, value=0.3)))
    doubt = Finding("dead-units", "warning", 0.5, "", "")
    assert unexplained(poor, ()) and unexplained(poor, (doubt,))
    assert not unexplained(poor, (Finding("dead-units", "problem", 0.9, "", ""),))
    assert headline(poor, ()).startswith("No cause was found")
    assert headline(poor, (doubt,)).startswith("Undecided: dead-units is suspected")


def test_a_training_that_lost_what_it_had_learnt_is_not_sound(gathered):
    evidence = gathered(trained(written(mlp(), *clouds(320)), 120))
    level, history = evidence.level, evidence.history
    assert sound(evidence) and not history.rose
    risen = replace(history, last=max(3 * history.lowest, 0.8 * history.first))
    assert risen.rose and not sound(replace(evidence, history=risen))
    assert not sound(replace(evidence, history=replace(history, finite=False)))
    assert sound(replace(evidence, history=None))
    worse = replace(level, train=replace(level.train, loss=1.01 * level.initial.loss))
    assert not sound(replace(evidence, level=worse))


def doubted(**options):
    facts = {"noise": 0.64, "error": 0.014, "agreement": 0.24, "sure": 0.39, "spread": 0.95, "classes": 10,
             "samples": 1200, "own": 0.25, **options}  # fmt: skip
    evidence = Evidence(Loop(), labels=Labels(**facts), references=references(0.25, chance=0.1))
    return labels_wrong.RULE.judge(evidence)


def test_three_of_four_random_labels_are_named_though_the_surest_are_met_oftener():
    found = doubted()
    assert found.fault and found.remedies[0].id == "clean-labels" and found.evidence[1].value == 0.39


@pytest.mark.parametrize(
    "options", [{"sure": 0.6}, {"agreement": 0.5, "sure": 0.8}, {"spread": 0.8}, {"own": 0.7}, {"noise": 0.27}]
)
def test_hard_data_and_a_little_noise_are_not(options):
    assert doubted(**options) is None


def test_a_training_that_maximizes_may_be_sound(gathered):
    loss = lambda o, y: -nn.functional.cross_entropy(o, y)  # noqa: E731
    case = written(mlp(), *clouds(320), loss)
    case = replace(case, optimizer=case.optimizer.with_options(maximize=True))
    evidence = gathered(trained(case, 120))
    assert evidence.level.train.value > 0.95 and sound(evidence)


def test_a_linear_network_behind_a_linear_model_is_not_too_small(gathered):
    x, y = clouds()
    assert "underfitting-capacity" not in suspected(gathered(trained(written(nn.Linear(24, 4), x, y), 2)))
