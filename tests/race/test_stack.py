"""Fidelity: a lane of a stack equals the same training alone, in float64 to round-off."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from unstuck.loop import Clip
from unstuck.problem import Problem
from unstuck.race.stack import Stack, signature, why_not
from unstuck.race.updates import has_rules
from unstuck.recipe import recipe_of
from unstuck.training import Training

F64 = torch.float64
STEPS = 40


class Attentive(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.out = nn.LayerNorm(4), nn.Linear(4, 3)
        self.attend = nn.MultiheadAttention(4, 2, dropout=0.2, bias=False, batch_first=True)
        self.unused, self.frozen = nn.Linear(4, 4), nn.Parameter(torch.ones(4), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x) * self.frozen
        return self.out((x + self.attend(y, y, y, need_weights=False)[0]).mean(1))


NETWORKS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Dropout(0.3), nn.Linear(5, 3)), (6,)),
    "cnn": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2), nn.ReLU(), nn.Dropout2d(), nn.Flatten(), nn.Linear(8, 3)
        ),
        (1, 4, 4),
    ),
    "attention": (Attentive, (3, 4)),
}
OPTIMIZERS = [
    (torch.optim.SGD, {"lr": 0.1}),
    (torch.optim.SGD, {"lr": 0.05, "momentum": 0.9}),
    (torch.optim.SGD, {"lr": 0.02, "momentum": 0.9, "weight_decay": 0.01}),
    (torch.optim.Adagrad, {"lr": 0.1, "eps": 1e-6}),
    (torch.optim.RMSprop, {"lr": 0.003, "eps": 1e-6}),
    (torch.optim.AdamW, {"lr": 0.01, "eps": 1e-6}),
]


def problem(network: str = "mlp", loss: nn.Module | None = None) -> Problem:
    make, shape = NETWORKS[network]
    torch.manual_seed(0)
    x, y = torch.randn(64, *shape, dtype=F64), torch.randint(0, 3, (64,))
    model = make().double()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return Problem(model, loss or nn.CrossEntropyLoss(), list(zip(x.split(8), y.split(8), strict=True)), optimizer)


def with_each(case: Problem) -> list[Problem]:
    return [replace(case, optimizer=case.optimizer.using(cls, **options)) for cls, options in OPTIMIZERS]


def same(run: Training, alone: Training) -> bool:
    pairs = zip(run.model.state_dict().values(), alone.model.state_dict().values(), strict=True)
    return all(torch.allclose(a, b, rtol=1e-9, atol=1e-11) for a, b in pairs)


def alone(case: Problem, seed: int = 0, steps: int = STEPS) -> Training:
    run = Training(case, seed)
    run.advance(steps)
    return run


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("seed", [0, 2])
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("traced", [True, False])
def test_a_lane_is_the_training_alone(network: str, seed: int, together: bool, traced: bool) -> None:
    lanes = with_each(problem(network))
    stack = Stack(lanes, seed, together=together, traced=traced)
    for steps in (1, STEPS - 11, 10):
        stack.advance(steps)
    for lane, (case, run) in enumerate(zip(lanes, stack.runs, strict=True)):
        single = alone(case, seed)
        assert same(run, single), OPTIMIZERS[lane]
        assert [float(losses[lane]) for losses in stack.losses] == pytest.approx(single.losses, rel=1e-6)  # float32
        assert not traced or stack._each.refused == ""
        ours, theirs = run.score(case.held_out), single.score(case.held_out)
        assert (ours.value, ours.loss) == (pytest.approx(theirs.value), pytest.approx(theirs.loss))


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
        (torch.optim.SGD, {"momentum": 0.8, "dampening": 0.3, "maximize": True, "lr": 1e-3}),
        (torch.optim.Adagrad, {"lr_decay": 0.1, "weight_decay": 0.01, "initial_accumulator_value": 0.5}),
        (torch.optim.RMSprop, {"alpha": 0.9, "eps": 1e-5, "weight_decay": 0.01, "lr": 1e-3}),
        (torch.optim.RMSprop, {"momentum": 0.5, "eps": 1e-5, "lr": 1e-3}),
        (torch.optim.RMSprop, {"centered": True, "eps": 1e-3, "lr": 1e-3}),
        (torch.optim.Adam, {"amsgrad": True, "weight_decay": 0.1, "betas": (0.8, 0.9), "eps": 1e-5}),
        (torch.optim.AdamW, {"amsgrad": True, "maximize": True, "lr": 1e-3, "eps": 1e-5}),
        (torch.optim.Adam, {"decoupled_weight_decay": True, "weight_decay": 0.1, "eps": 1e-5}),
        (torch.optim.NAdam, {"eps": 1e-5}),
    ],
)  # fmt: skip
def test_a_kernel_does_what_its_optimizer_would(cls, options) -> None:
    case = problem()
    falling = replace(case, loop=replace(case.loop, schedule=tuple(0.9**k for k in range(20))))
    lanes = [replace(c, optimizer=c.optimizer.using(cls, **{"lr": 0.01, **options})) for c in (case, falling)]
    stack = Stack(lanes, together=False)
    stack.advance(STEPS)
    assert all(same(run, alone(lane)) for run, lane in zip(stack.runs, lanes, strict=True))


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("traced", [True, False])
def test_a_trial_is_undone(together: bool, traced: bool) -> None:
    lanes = with_each(problem("cnn"))
    lanes.append(replace(lanes[0], optimizer=lanes[0].optimizer.with_options(lr=1e200)))
    stack = Stack(lanes, 1, together=not together, traced=traced)
    for way in (not together, together):
        stack.use(way)
        with stack.trial():
            stack.advance(7)
            assert stack.diverged[-1]
    assert (stack.steps, stack.losses, stack.diverged.any()) == (0, [], False)
    stack.advance(STEPS)
    for lane, run in zip(lanes[:-1], stack.runs, strict=False):
        assert same(run, alone(lane, 1))


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("held", [True, False])
def test_schedules_clipping_and_groups_are_each_lanes_own(together: bool, held: bool) -> None:
    case = problem()
    layers = list(case.twin().named_parameters())
    model = case.twin()
    named = {id(p): name for name, p in model.named_parameters()}
    groups = [
        {"params": [model[3].weight, model[0].bias], "lr": 0.3},
        {"params": [model[0].weight, model[3].bias][: 2 if held else 1], "lr": 0.01, "momentum": 0.9},
    ]
    split = replace(case, optimizer=recipe_of(torch.optim.SGD(groups, lr=0.1), named))
    falling = replace(split, loop=replace(split.loop, schedule=tuple(0.9**k for k in range(20))))
    for clip in (None, *([Clip("norm", 0.3), Clip("norm", 0.5, 1.0), Clip("value", 0.02)] if held else [])):
        lanes = [replace(lane, loop=replace(lane.loop, clip=clip)) for lane in (split, falling)]
        stack = Stack(lanes, together=together)
        stack.advance(STEPS)
        assert all(same(run, alone(lane)) for run, lane in zip(stack.runs, lanes, strict=True)), clip
        still = dict(stack.runs[0].model.named_parameters())["3.bias"]
        assert torch.equal(still, dict(layers)["3.bias"]) is not held
    clipped = replace(split, loop=replace(split.loop, clip=Clip("norm", 1.0)))
    assert ("no optimizer holds" in why_not(clipped)) is not held


@pytest.mark.parametrize("together", [True, False])
def test_a_lane_that_diverges_is_retired_and_the_others_stay_clean(together: bool) -> None:
    case = problem("cnn")
    lanes = [replace(case, optimizer=case.optimizer.with_options(lr=lr)) for lr in (0.1, 1e200, 0.02)]
    stack = Stack(lanes, together=together)
    stack.advance(STEPS)
    assert stack.diverged.tolist() == [False, True, False] == [run.diverged for run in stack.runs]
    assert same(stack.runs[0], alone(lanes[0])) and same(stack.runs[2], alone(lanes[2]))
    only = Stack(lanes[1:2], together=together)
    only.advance(STEPS)
    assert only.steps < STEPS


@pytest.mark.parametrize("together", [True, False])
def test_lanes_that_are_kept_go_on_as_if_nothing_had_happened(together: bool) -> None:
    lanes = with_each(problem("cnn"))
    stack = Stack(lanes, together=together)
    stack.advance(10)
    stack.keep([4, 1, 5])
    stack.advance(STEPS - 10)
    for lane, run in zip((4, 1, 5), stack.runs, strict=True):
        assert same(run, alone(lanes[lane]))
    assert stack.losses[5].shape == (6,) and stack.losses[-1].shape == (3,)


def test_the_streams_of_random_numbers_and_the_problem_are_left_alone() -> None:
    case = problem("cnn")
    before, state = torch.get_rng_state(), {n: t.clone() for n, t in case.model.state_dict().items()}
    Stack(with_each(case)).advance(3)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(state[name], value) for name, value in case.model.state_dict().items())


def test_only_what_is_alike_shares_a_signature() -> None:
    case = problem()
    first, *others = (signature(lane, 0) for lane in with_each(case))
    assert all(other == first for other in others)
    different = [
        problem(),  # other tensors
        replace(case, loss=problem(loss=nn.CrossEntropyLoss(label_smoothing=0.1)).loss),
        replace(case, loop=replace(case.loop, clip=Clip("norm", 1.0))),
        replace(case, model=nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Dropout(0.3), nn.Linear(5, 3)).double()),
        replace(case, model=nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Dropout(0.1), nn.Linear(5, 3)).double()),
        replace(case, loop=replace(case.loop, training={"": False})),
    ]
    assert all(signature(lane, 0) != first for lane in different) and signature(case, 1) != first


def test_what_cannot_be_a_lane_says_why() -> None:
    case = problem()
    assert why_not(case) == ""
    loop = case.loop
    for changed, why in (
        (replace(case, optimizer=None), "no optimizer steps"),
        (replace(case, loop=replace(loop, accumulate=4)), "gradients are accumulated"),
        (replace(case, loop=replace(loop, uncleared=1.0)), "gradients are not cleared"),
        (replace(case, loop=replace(loop, autocast=("cpu", torch.bfloat16))), "mixed precision"),
        (replace(case, model=nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 3).double())), "several dtypes"),
    ):
        assert why in why_not(changed)


def test_rules_are_there_for_torchs_own_optimizers() -> None:
    case = problem()
    assert has_rules(with_each(case))
    unknown = replace(case, optimizer=case.optimizer.using(torch.optim.Adadelta, lr=1.0))
    assert not has_rules([unknown])
    stack = Stack([unknown, *with_each(case)], together=False)
    stack.advance(STEPS)
    assert same(stack.runs[0], alone(unknown))
