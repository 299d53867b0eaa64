"""Watching leaves a training bit-identical, sees what it should, and gives a problem that replays."""

import hashlib
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.networks import CASES
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from unstuck.capture.assemble import assemble
from unstuck.capture.watch import Watch
from unstuck.errors import StopTraining


def data(n=96):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(n, 1, 8, 8, generator=generator), torch.randint(0, 3, (n,), generator=generator)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.2), nn.Flatten(), nn.Linear(144, 3)
    )


def train(epochs=4, model=None):
    """BatchNorm, dropout, a shuffled loader and Adam; returns everything that could have changed."""
    random.seed(0), np.random.seed(0)
    model = model or network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    loader = DataLoader(TensorDataset(*data()), batch_size=16, shuffle=True)
    losses = []
    for _ in range(epochs):
        model.train()
        for x, y in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        model.eval()
        with torch.no_grad():
            F.cross_entropy(model(data()[0]), data()[1])
    return model, optimizer, losses


def fingerprint(model, optimizer, losses):
    digest = hashlib.sha256()
    for tensor in [*model.state_dict().values(), *(p.grad for p in model.parameters())]:
        digest.update(tensor.numpy().tobytes())
    for entry in optimizer.state_dict()["state"].values():
        digest.update(b"".join(v.numpy().tobytes() for v in entry.values()))
    digest.update(repr((losses, random.random(), np.random.rand(), torch.rand(3).tolist())).encode())
    return digest.hexdigest()


def test_a_watched_training_ends_bit_identical():
    plain = fingerprint(*train())
    with Watch(share=10.0) as watch:
        watched = fingerprint(*train())
    assert watch.seen.sampled > 10
    assert watched == plain


def test_nothing_is_left_behind():
    before = (torch.Tensor.backward, DataLoader.__iter__, nn.Module.eval, torch.nn.utils.clip_grad_norm_,
              torch.optim.Optimizer.__init__)  # fmt: skip
    with Watch() as watch:
        model, _, _ = train(1)
    assert watch.seen.backwards == 6
    after = (torch.Tensor.backward, DataLoader.__iter__, nn.Module.eval, torch.nn.utils.clip_grad_norm_,
             torch.optim.Optimizer.__init__)  # fmt: skip
    assert before == after
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not torch.nn.modules.module._global_forward_pre_hooks


def test_the_problem_has_the_losses_the_start_and_the_end():
    with Watch(share=10.0) as watch:
        model, _, losses = train()
    captured = assemble(watch)
    problem = captured.problem
    assert captured.loop.losses == pytest.approx(losses)
    assert all(torch.equal(a, b) for a, b in zip(problem.model.parameters(), network().parameters(), strict=True))
    assert all(torch.equal(problem.last[n], p) for n, p in model.named_parameters())
    assert problem.criterion.kind == "cross_entropy"
    assert (problem.optimizer.cls, problem.optimizer.lr) == (torch.optim.Adam, 0.01)
    assert (captured.loop.steps, captured.loop.uncleared, captured.loop.accumulate) == (24, 0.0, 1)


def test_more_rows_are_drawn_from_the_loaders_data_set():
    with Watch(share=10.0) as watch:
        train(2)
    problem = assemble(watch).problem
    drawn = torch.cat([batch[0] for batch in (*problem.data, *problem.held_out)])
    assert len(problem.rows) == 96
    assert len(torch.unique(drawn.flatten(1), dim=0)) == len(drawn)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_loops_of_many_kinds_are_replayable(case):
    torch.manual_seed(0)
    model, x, y = case.make(), case.inputs(), case.target()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with Watch(share=10.0) as watch:
        for _ in range(6):
            order = torch.randperm(len(x))
            optimizer.zero_grad()
            case.loss(model(x[order]), y[order]).backward()
            optimizer.step()
    captured = assemble(watch)
    assert captured.problem is not None, captured.skipped
    assert len(captured.problem.rows) == 12


def loop(facts, steps=8):
    """A plain loop with one peculiarity; what watching made of it."""
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Watch(share=10.0) as watch:
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = 0.1 * facts.get("decay", 1.0) ** step
            for _ in range(facts.get("accumulate", 1)):
                loss = F.cross_entropy(model(torch.randn(16, 4)), torch.randint(0, 3, (16,)))
                loss.backward()
            if "clip" in facts:
                nn.utils.clip_grad_norm_(model.parameters(), *facts["clip"])
            if facts.get("step", True):
                optimizer.step()
            if facts.get("clear", True):
                optimizer.zero_grad()
    return assemble(watch).loop


def test_accumulation_is_counted():
    assert loop({"accumulate": 3}).accumulate == 3


def test_gradients_never_cleared_are_seen():
    assert loop({"clear": False}).uncleared == 1.0


def test_clipping_is_seen_with_its_bound_and_factor():
    facts = loop({"clip": (1e-3,)})
    assert facts.clip == ("norm", 1e-3, 2.0)
    assert loop({"clip": (1e-3, 1)}).clip == ("norm", 1e-3, 1.0)
    assert facts.clip_active == 1.0
    assert facts.clip_factor < 0.01


def test_a_schedule_is_seen():
    assert loop({"decay": 0.5}).lrs == pytest.approx([0.1 * 0.5**k for k in range(8)])


def test_a_loop_that_never_steps_is_seen():
    facts = loop({"step": False})
    assert (facts.stepping, facts.steps, facts.backwards) == (False, 0, 8)


def test_a_loss_that_is_not_finite_stops_the_script():
    model = nn.Linear(2, 1)
    with Watch() as watch, pytest.raises(StopTraining, match="not finite"):
        (model(torch.ones(1, 2)) * float("nan")).sum().backward()
    assert watch.why_stopped


@pytest.mark.parametrize(("steps", "share"), [(5, 0.02), (100, 1e-9), (100, 10.0)])
def test_so_many_steps_and_no_more(steps, share, monkeypatch):
    monkeypatch.setattr("unstuck.capture.meter.ALLOWANCE_S", 0.01)
    with Watch(steps=steps, share=share) as watch, pytest.raises(StopTraining, match=f"{steps} optimizer steps"):
        train(60)
    assert sum(watch.seen.steps.values()) == len(watch.seen.losses) == len(watch.seen.lrs) == steps


@pytest.mark.parametrize("every", [1, 3])
def test_a_quiet_stretch_counts_what_a_close_look_counts(every, monkeypatch):
    """Losses, learning rates and backwards a step, with the pulse alone from the first steps on and with every step
    recorded; the script breaks off in the midst of a step."""
    monkeypatch.setattr("unstuck.capture.meter.ALLOWANCE_S", 0.01)

    def loop():
        model, (x, y) = network(), data()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 7, 0.5)
        for step in range(61):
            for _ in range(every if step < 60 else every - 1):
                F.cross_entropy(model(x), y).backward()
            if step < 60:
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()

    with Watch(share=1e-9) as quiet:
        loop()
    with Watch(share=1e9) as close:
        loop()
    assert quiet.seen.sampled < 45 < close.seen.sampled
    assert quiet.seen.losses == close.seen.losses
    assert quiet.seen.lrs == close.seen.lrs
    assert quiet.seen.lrs[0] == 0.1 and len(set(quiet.seen.lrs)) == 9
    assert dict(quiet.seen.per_step) == dict(close.seen.per_step) == {every: 60}


def test_sampling_keeps_to_its_share():
    with Watch(share=0.02) as watch:
        train(60)
    assert watch.seen.sampled < 360
    assert watch.meter.spent <= 0.05 + 0.03 * watch.meter.elapsed + 0.05


def test_raw_tensors_become_a_problem():
    w, b = torch.zeros(4, requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.SGD([w, b], lr=0.1)
    x, y = torch.randn(64, 4), torch.randn(64)
    with Watch(share=10.0) as watch:
        for _ in range(8):
            optimizer.zero_grad()
            ((x @ w + b - y) ** 2).mean().backward()
            optimizer.step()
    captured = assemble(watch)
    assert captured.problem is not None, captured.skipped
    assert captured.problem.criterion.kind == "mse"
    assert sum(p.numel() for p in captured.problem.model.parameters()) == 5


def test_two_models_in_one_loss_become_one_bundle():
    encoder, decoder = nn.Linear(4, 2), nn.Linear(2, 4)
    optimizer = torch.optim.SGD([*encoder.parameters(), *decoder.parameters()], lr=0.1)
    x = torch.randn(32, 4)
    with Watch(share=10.0) as watch:
        for _ in range(6):
            optimizer.zero_grad()
            F.mse_loss(decoder(torch.tanh(encoder(x))), x).backward()
            optimizer.step()
    captured = assemble(watch)
    assert captured.problem is not None, captured.skipped
    assert {name.split(".")[0] for name, _ in captured.problem.model.named_parameters()} == {"encoder", "decoder"}


def test_tied_weights_start_where_they_started():
    torch.manual_seed(0)
    tied = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9, bias=False))
    tied[1].weight = tied[0].weight
    before = tied[0].weight.detach().clone()
    optimizer = torch.optim.SGD(tied.parameters(), lr=0.5)
    with Watch(share=10.0) as watch:
        for _ in range(6):
            tokens = torch.randint(0, 9, (16,))
            optimizer.zero_grad()
            F.cross_entropy(tied(tokens), tokens).backward()
            optimizer.step()
    problem = assemble(watch).problem
    assert torch.equal(problem.model[0].weight, before)
    assert problem.model[1].weight is problem.model[0].weight


def test_what_a_data_set_does_to_make_a_batch_is_not_recorded():
    """Not even where it runs a network of its own; the training is replayable from the batches as they were drawn."""
    features, model, recorded = nn.Linear(4, 3).requires_grad_(False), nn.Linear(3, 2), []

    def collate(rows):
        return features(torch.stack([x for x, _ in rows])), torch.stack([y for _, y in rows])

    torch.manual_seed(0)
    pairs = TensorDataset(torch.randn(64, 4), torch.randint(0, 2, (64,)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Watch(share=10.0) as watch:
        for x, y in DataLoader(pairs, batch_size=8, shuffle=True, collate_fn=collate):
            optimizer.zero_grad()
            recorded += watch._recording.calls
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    assert watch.seen.sampled > 3
    assert not any(call.function in (features, torch.stack) for call in recorded)
    problem = assemble(watch).problem
    assert problem is not None
    assert [tuple(p.shape) for p in problem.model.parameters()] == [(2, 3), (2,)]


def test_the_rate_of_a_one_cycle_schedule_is_its_peak():
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.5, total_steps=20)
    with Watch(share=10.0) as watch:
        for _ in range(20):
            optimizer.zero_grad()
            F.cross_entropy(model(torch.randn(16, 4)), torch.randint(0, 3, (16,))).backward()
            optimizer.step()
            schedule.step()
    captured = assemble(watch)
    course = captured.problem.loop.schedule
    assert captured.problem.optimizer.lr == pytest.approx(0.5)
    assert max(course) == pytest.approx(1) and course[0] == pytest.approx(1 / 25) and len(course) == 20
    assert captured.problem.loop.lrs == pytest.approx([0.5 * factor for factor in course])
    assert captured.loop.schedule == course


@pytest.mark.parametrize(("spent", "recorded"), [(0.9, True), (1.4, False)])
def test_a_validation_is_recorded_where_steps_have_used_up_their_part(spent, recorded):
    """Of a hundred seconds two may go to watching: 0.8 to steps, and up to 1.2 while there is a validation to see."""
    torch.manual_seed(0)
    model, x, y = nn.Linear(4, 3), torch.randn(64, 4), torch.randint(0, 3, (64,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Watch(share=0.02) as watch:
        for part in range(6):
            at = slice(8 * part, 8 * part + 8)
            optimizer.zero_grad()
            F.cross_entropy(model(x[at]), y[at]).backward()
            optimizer.step()
        watch.meter.began -= 100
        watch.meter.spent = spent
        assert not watch.meter.may_sample(0.01)
        model.eval()
        with torch.no_grad():
            F.cross_entropy(model(x[48:]), y[48:])
    problem = assemble(watch).problem
    assert len(problem.validation) == recorded
    assert all(torch.equal(batch[0], x[48:]) and torch.equal(batch[1], y[48:]) for batch in problem.validation)
