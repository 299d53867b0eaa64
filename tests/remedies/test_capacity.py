"""Remedies for capacity, regularization, labels and overfitting: each changes one thing, and does what it says."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from tests.small import clouds, mlp, written
from torch import nn

from unstuck.errors import UnstuckError
from unstuck.remedies.clean_labels import keep_believed, settle_labels
from unstuck.remedies.early_stopping import stop_early
from unstuck.remedies.look import look
from unstuck.remedies.regularization import drop_dropout, drop_noise, turn_down_input_noise
from unstuck.remedies.wider import COPIES, LEAST, hidden_layers, widen, wider, width
from unstuck.trace import trace
from unstuck.training import Training


def images(rows=64):
    torch.manual_seed(0)
    return torch.randn(rows, 1, 8, 8), torch.arange(rows) % 4


def loss(case, model):
    return float(case.value(model, case.data[0]).detach())


def weights(model):
    return {n: tuple(p.shape) for n, p in model.named_parameters()}


def test_a_wider_chain_keeps_its_ends():
    case = written(mlp(hidden=3), *clouds(64))
    remedy = widen(case)
    changed = remedy.apply(case)
    assert weights(changed.model) == {
        "0.weight": (LEAST, 24),
        "0.bias": (LEAST,),
        "2.weight": (4, LEAST),
        "2.bias": (4,),
    }
    assert remedy.id == "widen" and "0 has 3 units" in remedy.text and remedy.on == "train"
    assert weights(case.model)["0.weight"] == (3, 24)  # the problem itself is as it was
    run = Training(changed)
    run.advance(20)
    assert run.losses[-1] < run.losses[0]


def test_convolutions_and_their_normalization_widen_together():
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(), nn.Linear(8, 4)
    )
    changed = widen(written(net, *images())).apply(written(net, *images()))
    assert weights(changed.model)["0.weight"][0] == LEAST // 4 == weights(changed.model)["1.weight"][0]
    assert weights(changed.model)["5.weight"] == (4, LEAST)  # 16 channels of 2 × 2


def test_recurrent_layers_widen():
    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.GRU(8, 2, batch_first=True), nn.Linear(2, 4)

        def forward(self, x):
            return self.head(self.body(x)[0][:, -1])

    x, y = images()
    case = written(Reader(), x[:, 0], y)
    shapes = weights(widen(case).apply(case).model)
    assert shapes["body.weight_hh_l0"] == (3 * LEAST, LEAST) and shapes["head.weight"] == (4, LEAST)


def test_a_single_layer_gets_a_hidden_one():
    case = written(nn.Linear(24, 4), *clouds(64))
    remedy = widen(case)
    changed = remedy.apply(case)
    assert remedy.id == "add-hidden-layer" and weights(changed.model)["0.weight"] == (LEAST, 24)
    named = {n for _, names in changed.optimizer.groups for n in names}
    assert named == set(weights(changed.model))
    assert changed.value(changed.model, case.data[0]).shape == ()


def test_layers_are_listed_in_the_order_of_their_calls():
    class Crossed(nn.Module):
        def __init__(self):
            super().__init__()
            self.last, self.first = nn.Linear(5, 4), nn.Linear(24, 5)

        def forward(self, x):
            return self.last(self.first(x))

    case = written(Crossed(), *clouds(64))
    assert [(name, width(m), wider(m)) for name, m in hidden_layers(case)] == [("first", 5, LEAST)]


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(24, 24), nn.Linear(24, 4)

    def forward(self, x):
        return self.head(x + self.body(x))


class Bound(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(24, 4), nn.GroupNorm(2, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.head(self.norm(self.first(x)))


def grouped():
    return nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(144, 4))


@pytest.mark.parametrize("net", [Residual, Bound, grouped])
def test_where_widths_are_tied_copies_stand_side_by_side(net):
    x, y = images()
    case = written(net(), *((x.repeat(1, 4, 1, 1), y) if net is grouped else clouds(64)))
    changed = widen(case).apply(case)
    one, many = case.twin(), changed.twin()
    assert sum(p.numel() for p in many.parameters()) == COPIES * sum(p.numel() for p in one.parameters())
    inputs = case.data[0][0]
    outputs = torch.stack([copy(inputs) for copy in many.copies])
    assert torch.allclose(outputs[0], one(inputs))
    assert torch.allclose(many(inputs), outputs.sum(0) / COPIES**0.5)
    assert not torch.allclose(outputs[1], outputs[2])
    held = {name for _, names in changed.optimizer.groups for name in names}
    assert held == {name for name, _ in many.named_parameters()}


class Two(Bound):
    """Gives two outputs, of which the loss takes one."""

    def forward(self, x):
        return super().forward(x), x


def test_a_network_that_can_neither_be_widened_nor_doubled_says_why():
    case = written(Two(), *clouds(64), loss=lambda output, target: F.cross_entropy(output[0], target))
    with pytest.raises(UnstuckError, match="tie the widths of layers together; and copies"):
        widen(case).apply(case)


def test_a_single_layer_that_is_not_linear_is_refused():
    x, y = images()
    case = written(nn.Sequential(nn.Conv2d(1, 4, 8), nn.Flatten()), x, y)
    with pytest.raises(UnstuckError, match="before a linear layer"):
        widen(case).apply(case)


def test_a_network_without_layers_and_a_layer_without_width_are_refused():
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4))

        def forward(self, x):
            return x[:, :4] * self.scale

    case = written(Scale(), *clouds(64))
    with pytest.raises(UnstuckError, match="no linear"):
        widen(case).apply(case)
    with pytest.raises(UnstuckError, match="no width"):
        width(nn.ReLU())


def test_without_dropout_training_and_evaluation_agree():
    net = nn.Sequential(nn.Linear(24, 32), nn.ReLU(), nn.Dropout(0.9), nn.Linear(32, 4))
    case = written(net, *clouds(64))
    keys = [c.key for c in trace(case, case.twin(), case.data[0]).calls if c.name == "dropout"]
    changed = drop_dropout(case, keys, 0.9, "2 (Dropout)").apply(case)
    one, two = (loss(changed, changed.twin()) for _ in range(2))
    assert one == two == loss(case, case.twin().eval())
    assert loss(case, case.twin()) != one


def test_dropout_inside_recurrent_layers_goes_too():
    net = nn.LSTM(8, 4, num_layers=2, dropout=0.9)

    class Reader(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = net

        def forward(self, x):
            return self.body(x)[0][:, -1]

    x, y = images()
    case = written(Reader(), x[:, 0], y)
    assert drop_dropout(case, (), 0.9, "body").apply(case).model.body.dropout == 0.0 and net.dropout == 0.9


def test_noise_of_the_model_becomes_nothing():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp()

        def forward(self, x):
            return self.net(x + 5 * torch.randn_like(x) if self.training else x)

    case = written(Noisy(), *clouds(64))
    keys = [c.key for c in trace(case, case.twin(), case.data[0]).calls if c.name == "randn_like"]
    changed = drop_noise(keys, "the model").apply(case)
    assert loss(changed, changed.twin()) == pytest.approx(loss(case, case.twin().eval()))


def redrawn(case, noise, relabelled, draws=5):
    x, y = torch.cat([b[0] for b in case.data]), torch.cat([b[1] for b in case.data])
    found = []
    for _ in range(draws):
        labels = torch.where(torch.rand(len(y)) < relabelled, (y + 1) % 4, y)
        found.append(tuple(zip((x + noise * torch.randn_like(x)).split(32), labels.split(32), strict=True)))
    return replace(case, redraws=tuple(found))


def test_averages_and_majorities_replace_the_data():
    case = redrawn(written(mlp(), *clouds(320)), 1.0, 0.2)
    calmed, settled = turn_down_input_noise(case).apply(case), settle_labels(5).apply(case)
    truth = {tuple(row.tolist()): int(label) for xs, ys in case.data for row, label in zip(xs, ys, strict=True)}
    x = torch.cat([b[0] for b in case.data])[:32]
    assert float((calmed.data[0][0] - x).std()) == pytest.approx(5**-0.5, rel=0.1)
    right = [truth[tuple(r.tolist())] == int(k) for r, k in zip(x, settled.data[0][1], strict=True)]
    assert sum(right) >= 28 and len(calmed.data) + len(calmed.held_out) == len(case.redraws[0])


def test_too_few_redrawn_samples_are_refused():
    case = redrawn(written(mlp(), *clouds(64)), 1.0, 0.0)
    for remedy in (turn_down_input_noise(case), settle_labels(5)):
        with pytest.raises(UnstuckError, match="too few"):
            remedy.apply(case)


def test_believed_labels_are_the_true_ones():
    x, y = clouds(800)
    noisy = torch.where(torch.rand(800) < 0.5, torch.randint(0, 4, (800,)), y)
    case = written(mlp(), x, noisy)
    changed = keep_believed().apply(case)
    truth = {tuple(row.tolist()): int(label) for row, label in zip(x, y, strict=True)}
    for batches in (changed.data, changed.held_out):
        kept = [(truth[tuple(r.tolist())], int(k)) for xs, ys in batches for r, k in zip(xs, ys, strict=True)]
        assert sum(a == b for a, b in kept) > 0.93 * len(kept) > 0


def test_samples_that_cannot_be_told_apart_are_refused(monkeypatch):
    case = written(mlp(), *clouds(256))
    monkeypatch.setattr("unstuck.remedies.clean_labels.Rows.of", lambda *a: None)
    with pytest.raises(UnstuckError, match="told apart"):
        keep_believed().apply(case)


def test_stopping_early_is_no_step_later():
    case = written(mlp(), *clouds(64))
    run, stopped = Training(case), Training(stop_early(7).apply(case))
    run.advance(7)
    stopped.advance(20)
    for name, parameter in run.model.named_parameters():
        assert torch.equal(parameter, dict(stopped.model.named_parameters())[name])
    assert stop_early(7, per_epoch=2).text.startswith("stop after 7 steps (about epoch 4)")


def test_stopping_early_keeps_the_schedule_until_then():
    case = written(mlp(), *clouds(64))
    case = replace(case, loop=replace(case.loop, schedule=(1.0, 0.5)))
    assert stop_early(4).apply(case).loop.schedule == (1.0, 0.5, 0.5, 0.5, 0.0)


def test_what_is_mended_in_the_data_is_never_raced():
    with pytest.raises(UnstuckError, match="in the data"):
        look("id", "text", "code").apply(None)
