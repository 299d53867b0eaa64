"""Facts of a loop, each seen on a loop that has the fault and absent from one that has not."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from unstuck.capture.assemble import assemble
from unstuck.capture.watch import Watch

X = torch.randn(128, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


def net():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))


def seen(loop):
    """What watching `loop()` gives."""
    torch.manual_seed(0)
    with Watch(share=1.0) as watch:
        loop()
    return assemble(watch)


def steps(model, optimizer, count=12, loss=None, before=lambda: None, every=1, clear=True):
    for i in range(count):
        at = torch.randint(0, 128, (16,))
        before()
        if clear:
            optimizer.zero_grad()
        value = loss(model, X[at], Y[at]) if loss else F.cross_entropy(model(X[at]), Y[at])
        value.backward()
        if every and (i + 1) % every == 0:
            optimizer.step()


def test_a_sound_loop_has_no_fault():
    def loop():
        model = net()
        steps(model, torch.optim.Adam(model.parameters()))

    facts = seen(loop).loop
    assert (facts.uncleared, facts.unheld, facts.foreign, facts.frozen, facts.detached) == (0.0, (), 0, (), "")
    assert (facts.without_gradient, facts.hidden, facts.resting, facts.eval_share) == ((), (), (), 0.0)
    assert facts.stepping and not facts.by_hand and facts.discarded == 0.0


def test_a_replaced_layer_is_unheld_and_its_forerunner_foreign():
    def loop():
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        model[2] = nn.Linear(8, 2)
        steps(model, optimizer, before=model.zero_grad)

    facts = seen(loop).loop
    assert facts.unheld == ("2.weight", "2.bias")
    assert facts.foreign == 2


def test_another_model_in_the_optimizer():
    def loop():
        model = net()
        steps(copy.deepcopy(model), torch.optim.SGD(model.parameters(), 0.1))

    captured = seen(loop)
    assert len(captured.loop.unheld) == 4
    assert captured.loop.foreign == 4
    assert all(not names for _, names in captured.recipe.groups)


class Listed(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = [nn.Linear(6, 8)]
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.body[0](x).relu())


@pytest.mark.parametrize("all_of_it", [False, True])
def test_layers_in_a_list_are_named_and_held_where_the_user_did_so(all_of_it):
    def loop():
        model = Listed()
        extra = list(model.body[0].parameters()) if all_of_it else []
        steps(model, torch.optim.SGD([*model.parameters(), *extra], 0.1))

    captured = seen(loop)
    assert captured.loop.hidden == ("body[0].weight", "body[0].bias")
    assert captured.loop.unheld == (() if all_of_it else captured.loop.hidden)
    assert set(captured.loop.hidden) <= {n for n, _ in captured.problem.model.named_parameters()}
    assert ("body[0].weight" in captured.recipe.groups[0][1]) == all_of_it


def test_a_model_that_is_no_module_is_several():
    class Plain:
        def __init__(self):
            self.layers = [nn.Linear(6, 8), nn.Linear(8, 2)]

        def __call__(self, x):
            return self.layers[1](self.layers[0](x).relu())

    def loop():
        model = Plain()
        steps(model, torch.optim.SGD(model.layers[1].parameters(), 0.1))

    captured = seen(loop)
    assert captured.problem is not None
    assert [name.rpartition(".")[2] for name in captured.loop.unheld] == ["weight", "bias"]


def test_a_resting_optimizer():
    def loop():
        model = net()
        first = torch.optim.SGD(model[0].parameters(), 0.1)
        torch.optim.SGD(model[2].parameters(), 0.1)
        steps(model, first, before=model.zero_grad)

    facts = seen(loop).loop
    assert facts.resting == ("2.weight", "2.bias")
    assert facts.unheld == ()


def test_two_optimizers_that_step_together_make_one_recipe():
    def loop():
        model = net()
        both = [torch.optim.SGD(model[i].parameters(), 0.1 * (i + 1)) for i in (0, 2)]
        for _ in range(12):
            for optimizer in both:
                optimizer.zero_grad()
            F.cross_entropy(model(X[:16]), Y[:16]).backward()
            for optimizer in both:
                optimizer.step()

    captured = seen(loop)
    assert {n for _, names in captured.recipe.groups for n in names} == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert captured.loop.accumulate == 1


@pytest.mark.parametrize("every", [0, 4])
def test_missing_and_rare_steps(every):
    def loop():
        model = net()
        steps(model, torch.optim.SGD(model.parameters(), 0.1), count=24, every=every)

    facts = seen(loop).loop
    assert facts.stepping == bool(every)
    assert facts.backwards == 24
    assert (facts.discarded, facts.accumulate) == ((1.0, 4) if every else (0.0, 1))


def test_steps_by_hand():
    def loop():
        model = net()
        for _ in range(8):
            model.zero_grad()
            F.cross_entropy(model(X[:16]), Y[:16]).backward()
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0.1 * p.grad

    facts = seen(loop).loop
    assert facts.by_hand
    assert facts.steps == 0


def test_a_loss_made_anew_replays_as_the_one_it_was_made_of():
    def loop():
        model = net()

        def anew(model, x, y):
            return torch.tensor(F.cross_entropy(model(x), y).item(), requires_grad=True)

        steps(model, torch.optim.SGD(model.parameters(), 0.1), loss=anew)

    captured = seen(loop)
    assert "made anew" in captured.loop.detached
    assert captured.problem.criterion.kind == "cross_entropy"
    assert captured.problem.value(captured.problem.twin(), captured.problem.data[0]).requires_grad


def test_no_grad_around_a_part_is_replayed():
    def loop():
        model = net()

        def half(model, x, y):
            with torch.no_grad():
                hidden = model[0](x)
            return F.cross_entropy(model[2](hidden.relu()), y)

        steps(model, torch.optim.SGD(model.parameters(), 0.1), loss=half)

    captured = seen(loop)
    problem = captured.problem
    twin = problem.twin()
    problem.value(twin, problem.data[0]).backward()
    grads = {n.rpartition(".")[0]: p.grad is not None for n, p in twin.named_parameters()}
    assert sorted(grads.values()) == [False, True]
    assert len(captured.loop.without_gradient) == 2


def test_frozen_from_the_start_but_not_after_training():
    def loop():
        model = net()
        model[0].weight.requires_grad_(False)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        steps(model, optimizer)
        model[2].weight.requires_grad_(False)
        steps(model, optimizer)

    assert seen(loop).loop.frozen == ("0.weight",)


@pytest.mark.parametrize("left", [2, 10])
def test_modes_go_by_the_majority_of_steps(left):
    def loop():
        model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 2))
        count = iter(range(100))
        steps(
            model,
            torch.optim.SGD(model.parameters(), 0.1),
            before=lambda: model[1].eval() if next(count) >= left else None,
        )

    facts = seen(loop).loop
    assert facts.training["1"] == (left == 10)
    assert facts.training[""]
    assert facts.eval_share == 0.0


def test_a_validation_within_an_epoch_does_not_pass_for_the_training_data():
    """The next training batch comes from the training loader, though the other was iterated last."""

    def loop():
        model = net()
        train = DataLoader(TensorDataset(X[:96], Y[:96]), batch_size=8, shuffle=True)
        valid = DataLoader(TensorDataset(X[96:] + 100, Y[96:]), batch_size=8)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(2):
            for x, y in train:
                with torch.no_grad():
                    for xv, _ in valid:
                        model(xv)
                optimizer.zero_grad()
                F.cross_entropy(model(x), y).backward()
                optimizer.step()

    problem = seen(loop).problem
    assert problem.rows is not None
    assert not problem.rows.ordered
    assert all(float(batch[0].max()) < 50 for batch in problem.data)


def test_batches_are_kept_as_they_were_drawn():
    def loop():
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for start in range(0, 128, 16):
            optimizer.zero_grad()
            F.cross_entropy(model(X[start : start + 16]), Y[start : start + 16]).backward()
            optimizer.step()

    recorded = seen(loop).problem.recorded
    assert [step for step, _ in recorded] == sorted(step for step, _ in recorded)
    step, batch = recorded[-1]
    assert torch.equal(batch[0], X[16 * step : 16 * step + 16])


def test_a_loss_that_was_not_recorded_is_not_said_to_be_detached():
    """Its graph is there: only the record missed how it was made."""

    def loop():
        model = net()
        made = F.cross_entropy(model(X[:16]), Y[:16]) * 1.0
        for _ in range(4):
            made.backward(retain_graph=True)
            model(X[:16])

    assert seen(loop).loop.detached == ""


def two_optimizers(clears):
    """A loop of two optimizers that step after every backward; those of the places in `clears` are cleared."""

    def loop():
        model = net()
        both = {place: torch.optim.SGD(model[place].parameters(), 0.01) for place in (0, 2)}
        for _ in range(12):
            for place in clears:
                both[place].zero_grad()
            F.cross_entropy(model(X[:16]), Y[:16]).backward()
            for optimizer in both.values():
                optimizer.step()

    return loop


@pytest.mark.parametrize(
    ("clears", "kept", "uncleared"),
    [((0,), ("2.weight", "2.bias"), 1.0), ((2,), ("0.weight", "0.bias"), 1.0), ((0, 2), (), 0.0), ((), (), 1.0)],
)
def test_the_optimizer_that_is_never_cleared_is_named(clears, kept, uncleared):
    facts = seen(two_optimizers(clears)).loop
    assert (facts.kept, facts.uncleared) == (kept, uncleared)
