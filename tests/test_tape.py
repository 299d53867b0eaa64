"""A tape cut from a recorded loss computes that loss, on the model and on copies of it."""

import copy

import pytest
import torch
from tests.networks import CASES
from torch import nn

from unstuck.errors import NotReplayable
from unstuck.recorder import Call, Recorder
from unstuck.tape import cut, link, tensors_in


def record(model, loss_of):
    """The calls of a loss, with the model's own call opaque, as watching records them."""
    recorder = Recorder()
    with recorder:
        loss = loss_of(lambda *a: _opaque(recorder, model, a))
    return recorder.calls, loss


def _opaque(recorder, model, args):
    recorder.__exit__(None, None, None)
    output = model(*args)
    recorder.calls.append(Call(model, args, {}, output))
    recorder.__enter__()
    return output


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_replay_is_the_recorded_loss_to_the_last_bit(case):
    model, x, y = case.make(), case.inputs(), case.target()
    start = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state()
    calls, loss = record(model, lambda call: case.loss(call(x), y))
    tape, numbers, linked = cut(calls, loss, {id(model): ""}, {})
    leaves = [linked.tensors[n].clone() for n in numbers]
    twin = case.make()
    twin.load_state_dict(start)
    torch.set_rng_state(state)
    assert torch.equal(tape(twin, leaves), loss)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_gradient_of_a_replay_is_the_gradient(case):
    model, x, y = case.make().eval(), case.inputs(), case.target()
    calls, loss = record(model, lambda call: case.loss(call(x), y))
    tape, numbers, linked = cut(calls, loss, {id(model): ""}, {})
    twin = copy.deepcopy(model)
    tape(twin, [linked.tensors[n] for n in numbers]).backward()
    loss.backward()
    for ours, theirs in zip(twin.parameters(), model.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


def test_preparation_of_data_stays_outside_of_the_tape():
    model, data = nn.Linear(3, 1), torch.randn(50, 3)
    calls, loss = record(model, lambda call: call(data[torch.randperm(50)[:8]] * 2).square().mean())
    tape, numbers, linked = cut(calls, loss, {id(model): ""}, {})
    assert [step.name for step in tape.steps] == ["module ", "square", "mean"]
    assert [tuple(linked.tensors[n].shape) for n in numbers] == [(8, 3)]


def test_loose_parameters_are_read_from_the_model():
    w = torch.zeros(3, requires_grad=True)
    x = torch.ones(4, 3)
    with Recorder() as recorder:
        loss = (x @ w - 1).square().mean()
    tape, numbers, linked = cut(recorder.calls, loss, {}, {id(w): "w"})
    twin = nn.Module()
    twin.w = nn.Parameter(torch.full((3,), 2.0))
    assert tape(twin, [linked.tensors[n] for n in numbers]).item() == 25.0


def test_in_place_changes_are_followed_and_leaves_stay_as_they_were():
    w, x = torch.ones(2, requires_grad=True), torch.ones(2)
    with Recorder() as recorder:
        total = torch.zeros(2)
        total += w * x
        total[0] = 3 * w[1]
        loss = total.sum()
    tape, numbers, linked = cut(recorder.calls, loss, {}, {id(w): "w"})
    leaves = [linked.tensors[n].detach().clone() for n in numbers]
    twin = nn.Module()
    twin.w = nn.Parameter(torch.tensor([1.0, 5.0]))
    for _ in range(2):
        assert float(tape(twin, leaves)) == 20.0
    assert all(torch.equal(leaf, linked.tensors[n]) for leaf, n in zip(leaves, numbers, strict=True))


def test_a_loss_made_of_values_descends_from_nothing():
    model = nn.Linear(2, 1)
    calls, loss = record(model, lambda call: torch.tensor(call(torch.ones(1, 2)).mean().item(), requires_grad=True))
    with pytest.raises(NotReplayable, match="does not descend"):
        cut(calls, loss, {id(model): ""}, {})


def test_a_loss_that_no_recorded_call_made_is_refused():
    with pytest.raises(NotReplayable, match="not made by a recorded"):
        cut([], torch.tensor(1.0), {}, {})


def test_a_graph_from_outside_the_record_is_refused():
    model = nn.Linear(2, 1)
    foreign = torch.ones(1, 2, requires_grad=True) * 2
    calls, loss = record(model, lambda call: (call(torch.ones(1, 2)) + foreign).sum())
    with pytest.raises(NotReplayable, match="outside of recorded calls"):
        cut(calls, loss, {id(model): ""}, {})


def test_an_unknown_module_is_refused():
    model = nn.Linear(2, 1)
    calls, loss = record(model, lambda call: call(torch.ones(1, 2)).sum())
    with pytest.raises(NotReplayable, match="Linear could not be found"):
        cut(calls, loss, {}, {})


def test_tapes_of_the_same_loop_have_the_same_form_and_others_have_not():
    model = nn.Linear(2, 1)
    tapes = []
    for power in (2, 2, 3):
        calls, loss = record(model, lambda call, power=power: (call(torch.randn(3, 2)) ** power).mean())
        tapes.append(cut(calls, loss, {id(model): ""}, {})[0])
    assert tapes[0].same_form(tapes[1])
    calls, loss = record(model, lambda call: call(torch.randn(3, 2)).exp().mean())
    assert not tapes[0].same_form(cut(calls, loss, {id(model): ""}, {})[0])


def test_every_tensor_gets_a_number_and_its_maker():
    with Recorder() as recorder:
        a = torch.ones(2)
        b = a + 1
        b += a
    linked = link(recorder.calls)
    number = linked.number(b)
    assert linked.calls[linked.producer[number]].function.__name__ in {"add_", "__iadd__"}
    assert tensors_in({"x": [a, (b, 3)]})[1] is b


class Likelihood(nn.Module):
    """Returns a distribution, as probabilistic models do; `probs` is made, and kept in it, only when asked for."""

    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 3)

    def forward(self, x):
        return torch.distributions.Categorical(logits=self.body(x))


def test_a_loss_of_a_distribution_is_followed_through_what_it_holds():
    torch.manual_seed(0)
    model, x, y = Likelihood(), torch.randn(8, 4), torch.randint(0, 3, (8,))

    def loss_of(call):
        predicted = call(x)
        return -predicted.log_prob(y).mean() + predicted.probs.square().sum()

    calls, loss = record(model, loss_of)
    tape, leaves, linked = cut(calls, loss, {id(model): ""}, {})
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.body.weight.mul_(2)
    expected = loss_of(twin)
    assert tape(model, [linked.tensors[n] for n in leaves]).item() == pytest.approx(loss.item())
    assert tape(twin, [linked.tensors[n] for n in leaves]).item() == pytest.approx(expected.item())
