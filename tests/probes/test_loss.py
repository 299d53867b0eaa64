"""Closed forms of the gradients against automatic differentiation; tasks, logits and dead samples over many losses."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from scipy.integrate import quad
from torch import Tensor, nn

from unstuck.criterion import prepared
from unstuck.probes import loss, task
from unstuck.probes.loss import DEAD, Loss, against, cross_entropy_gradient, probabilities, squared_error_gradient
from unstuck.problem import Problem, state_of

N, C, T = 24, 3, 4
X = torch.randn(N, 5, generator=torch.Generator().manual_seed(1))
CLASSES = torch.arange(N) % C
HOT = F.one_hot(CLASSES, C).float()
BITS = (torch.arange(N) % 2).float()
MANY = (torch.rand(N, C, generator=torch.Generator().manual_seed(2)) > 0.5).float()
TOKENS = torch.randint(0, C, (N, T), generator=torch.Generator().manual_seed(3))
VALUES = torch.randn(N, C, generator=torch.Generator().manual_seed(4))


def posed(loss: Callable[[Tensor, Tensor], Tensor], target: Tensor, model: nn.Module, x: Tensor = X) -> Problem:
    torch.manual_seed(0)
    problem = Problem(model, loss, [(x, target)] * 2)
    return prepared(problem)


def measured(loss_: Callable[[Tensor, Tensor], Tensor], target: Tensor, model: nn.Module, x: Tensor = X) -> Loss:
    return loss.measure(posed(loss_, target, model, x))


def steps() -> nn.Module:
    return nn.Sequential(nn.Linear(5, T * C), nn.Unflatten(1, (T, C)))


def flat(width: int = C, *more: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, width), *more)


@pytest.mark.parametrize("classes", range(2, 11))
def test_closed_forms_of_classes_are_the_gradients(classes: int) -> None:
    z = 3 * torch.randn(7, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(classes))
    t = F.one_hot(torch.arange(7) % classes, classes).double()
    z.requires_grad_()
    p = probabilities(z, "softmax")
    (cross,) = torch.autograd.grad(F.cross_entropy(z, t, reduction="sum"), z)
    torch.testing.assert_close(cross_entropy_gradient(p.detach(), t, "softmax"), cross)
    (squared,) = torch.autograd.grad(F.mse_loss(z.softmax(1), t, reduction="none").mean(1).sum(), z)
    torch.testing.assert_close(squared_error_gradient(p.detach(), t, "softmax"), squared)
    odds = ((1 - (p * t).sum(1)) / (p * t).sum(1)).log()
    torch.testing.assert_close(against(z, t, "softmax"), odds)


def test_closed_forms_of_labels_on_their_own_are_the_gradients() -> None:
    z = torch.linspace(-8, 8, 9, dtype=torch.float64)[:, None].requires_grad_()
    t = (torch.arange(9) % 2)[:, None].double()
    p = z.sigmoid()
    (cross,) = torch.autograd.grad(F.binary_cross_entropy_with_logits(z, t, reduction="sum"), z)
    torch.testing.assert_close(cross_entropy_gradient(p.detach(), t, "sigmoid"), cross)
    (squared,) = torch.autograd.grad(F.mse_loss(z.sigmoid(), t, reduction="sum"), z)
    torch.testing.assert_close(squared_error_gradient(p.detach(), t, "sigmoid"), squared)
    torch.testing.assert_close(against(z, t, "sigmoid"), torch.where(t > 0.5, -z, z)[:, 0])


@pytest.mark.parametrize("z", [(-10.0, 10.0, -1000.0), (-10.0, 10.0, -10.0), (-9.0, 9.0, 0.0)])
def test_in_the_corner_squared_error_sends_next_to_nothing(z: tuple[float, ...]) -> None:
    logits, t = torch.tensor([z], dtype=torch.float64), torch.tensor([[1.0, 0, 0]], dtype=torch.float64)
    p = probabilities(logits, "softmax")
    cross, squared = (f(p, t, "softmax").norm() for f in (cross_entropy_gradient, squared_error_gradient))
    assert squared <= 1e-3 * cross and cross == pytest.approx(math.sqrt(2), rel=1e-3)
    assert against(logits, t, "softmax") == pytest.approx(z[1] - z[0], rel=1e-3)


def test_where_dead_begins_descent_takes_fifteen_times_as_long() -> None:
    """Two classes, z the log-odds against the true one: dz/dt = −gradient, as shares of the one at z = 0."""
    p = torch.tensor([[1 / (1 + math.exp(6.0))]], dtype=torch.float64)
    t = torch.ones_like(p)
    here, even = (
        squared_error_gradient(x, t, "sigmoid") / cross_entropy_gradient(x, t, "sigmoid") for x in (p, p * 0 + 0.5)
    )
    assert float(here / even) == pytest.approx(DEAD, rel=0.02)

    def wrong(z: float) -> float:
        return 1 / (1 + math.exp(-z))

    squared, _ = quad(lambda z: 1 / (4 * wrong(z) ** 2 * (1 - wrong(z))), 0, 6)
    cross, _ = quad(lambda z: 1 / wrong(z), 0, 6)
    closed = (math.exp(6) - 1 + 18 + 3 * (1 - math.exp(-6)) + (1 - math.exp(-12)) / 2) / 4
    assert squared == pytest.approx(closed) and squared == pytest.approx(106, abs=0.5)
    assert cross == pytest.approx(7, abs=0.01) and 15 <= squared / cross <= 15.5


def by_hand(o: Tensor, t: Tensor) -> Tensor:
    return -o.log_softmax(1)[torch.arange(len(t)), t].mean()


def custom_softmax(o: Tensor, t: Tensor) -> Tensor:
    e = (o - o.amax(1, keepdim=True)).exp()
    return -(e / e.sum(1, keepdim=True)).log().gather(1, t[:, None]).mean()


def tokens_last(o: Tensor, t: Tensor) -> Tensor:
    return F.cross_entropy(o.reshape(-1, C), t.reshape(-1))


def twice_sigmoid(o: Tensor, t: Tensor) -> Tensor:
    return -(t * o.sigmoid().log() + (1 - t) * (1 - o.sigmoid()).log()).mean()


CROSS = [
    ("plain", F.cross_entropy, CLASSES, flat, "multi-class"),
    ("one-hot", F.cross_entropy, HOT, flat, "multi-class"),
    ("nll", F.nll_loss, CLASSES, lambda: flat(C, nn.LogSoftmax(1)), "multi-class"),
    ("log of softmax", lambda o, t: F.nll_loss(o.softmax(1).log(), t), CLASSES, flat, "multi-class"),
    ("by hand", by_hand, CLASSES, flat, "multi-class"),
    ("softmax by hand", custom_softmax, CLASSES, flat, "multi-class"),
    ("logsumexp", lambda o, t: -(o - o.logsumexp(1, keepdim=True)).gather(1, t[:, None]).mean(), CLASSES, flat,
     "multi-class"),
    ("one-hot by hand", lambda o, t: -(t * o.log_softmax(1)).sum(1).mean(), HOT, flat, "multi-class"),
    ("kl", lambda o, t: F.kl_div(o.log_softmax(1), t, reduction="batchmean"), HOT, flat, "multi-class"),
    ("two classes", F.cross_entropy, BITS.long(), lambda: flat(2), "binary"),
    ("[N, T, C] flattened", tokens_last, TOKENS, steps, "sequence"),
    ("[N, C, T]", lambda o, t: F.cross_entropy(o.transpose(1, 2), t), TOKENS, steps, "sequence"),
    ("softmax over steps' classes", lambda o, t: F.nll_loss(o.softmax(-1).log().movedim(-1, 1), t), TOKENS, steps,
     "sequence"),
    ("bce with logits", lambda o, t: F.binary_cross_entropy_with_logits(o[:, 0], t), BITS, lambda: flat(1), "binary"),
    ("bce", lambda o, t: F.binary_cross_entropy(o.squeeze(1), t), BITS, lambda: flat(1, nn.Sigmoid()), "binary"),
    ("multi-label", F.binary_cross_entropy_with_logits, MANY, flat, "multi-label"),
    ("multi-label after sigmoid", F.binary_cross_entropy, MANY, lambda: flat(C, nn.Sigmoid()), "multi-label"),
    ("bce by hand, sigmoid called twice", twice_sigmoid, MANY, flat, "multi-label"),
    ("soft margin", F.soft_margin_loss, 2 * BITS[:, None] - 1, lambda: flat(1), "binary"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "function", "target", "model", "kind"), CROSS, ids=[case[0] for case in CROSS])
def test_cross_entropy_in_any_form_sends_p_minus_t_and_is_dead_nowhere(name, function, target, model, kind) -> None:
    found = measured(function, target, model())
    assert found.why == "" and found.task.kind == kind
    assert found.same_as == "cross-entropy" and found.end.dead == 0
    assert found.end.factor == pytest.approx(1, rel=1e-4) and found.end.unweighed == 0
    kept = found.end.kept[found.end.missed]
    torch.testing.assert_close(kept, torch.ones_like(kept), rtol=1e-3, atol=0)


SQUARED = [
    ("softmax", lambda o, t: F.mse_loss(o.softmax(1), t), HOT, flat),
    ("softmax, target first", lambda o, t: ((t - o.softmax(1)) ** 2).mean(), HOT, flat),
    ("softmax by hand", lambda o, t: F.mse_loss(o.exp() / o.exp().sum(1, keepdim=True), t), HOT, flat),
    ("steps", lambda o, t: F.mse_loss(o.softmax(-1), F.one_hot(t, C).float()), TOKENS, steps),
    ("one sigmoid", lambda o, t: F.mse_loss(o.squeeze(1), t), BITS, lambda: flat(1, nn.Sigmoid())),
    ("sigmoids", lambda o, t: F.mse_loss(o.sigmoid(), t), MANY, flat),
]  # fmt: skip


@pytest.mark.parametrize(("name", "function", "target", "model"), SQUARED, ids=[case[0] for case in SQUARED])
def test_squared_error_is_recognised(name, function, target, model) -> None:
    assert measured(function, target, model()).same_as == "squared error"


def confident(scale: float, *more: nn.Module) -> nn.Module:
    """Outputs of ±scale/2, wrong for two thirds of the classes: the input's largest column is the class predicted."""
    layer = nn.Linear(C, C, bias=False)
    nn.init.eye_(layer.weight).data.mul_(scale)
    return nn.Sequential(layer, *more)


WRONG = F.one_hot((CLASSES + (torch.arange(N) % 3 > 0)) % C, C).float()
"""Inputs that name another class than the label's where the class is 1 or 2."""


def test_only_confident_mistakes_are_dead_and_only_under_squared_error() -> None:
    for scale, dead in ((14.0, 16), (3.0, 0)):
        squared = measured(F.mse_loss, HOT, confident(scale, nn.Softmax(1)), WRONG).end
        cross = measured(F.cross_entropy, CLASSES, confident(scale), WRONG).end
        assert squared.samples == 2 * N and squared.wrong == cross.wrong == 2 * 16
        assert (squared.dead, cross.dead) == (2 * dead, 0)
        assert squared.share == dead / 16 and 0 < squared.error < 0.1
    assert squared.factor == pytest.approx(2 / C**2, rel=1e-5)  # J = (1 − 1/C)/C … at p = 1/C: 2/C · 1/C
    torch.testing.assert_close(squared.odds[squared.missed], torch.full((32,), math.log(math.exp(3) + 1)).double())


def test_factors_weights_and_reductions_do_not_make_a_gradient_dead() -> None:
    weight = torch.tensor([1.0, 1e-3, 50.0])
    for function in (
        lambda o, t: F.cross_entropy(o, t, reduction="sum"),
        lambda o, t: F.cross_entropy(o, t) / 1e4,
        lambda o, t: F.cross_entropy(o, t, weight=weight),
        lambda o, t: F.cross_entropy(o, t, label_smoothing=0.1),
    ):
        found = measured(function, CLASSES, confident(14.0), WRONG)
        assert found.end.dead == 0 and found.end.wrong == 32 and found.same_as == ""


def test_what_the_loss_leaves_out_is_left_out() -> None:
    padded = TOKENS.clone()
    padded[:, 2:] = -100
    assert measured(tokens_last, padded, steps()).end.unweighed == 0  # no class is named there
    assert measured(tokens_last, padded, steps()).end.samples == 2 * N * 2
    zero = measured(lambda o, t: F.cross_entropy(o.reshape(-1, C), t.reshape(-1), ignore_index=0), TOKENS, steps()).end
    assert zero.samples == 2 * int((TOKENS > 0).sum())
    assert zero.unweighed == pytest.approx(float((TOKENS == 0).double().mean()))

    def masked(o: Tensor, t: Tensor) -> Tensor:
        losses = F.cross_entropy(o.reshape(-1, C), t.reshape(-1), reduction="none")
        mask = (torch.arange(N * T) % T < 3).float()
        return (losses * mask).sum() / mask.sum()

    found = measured(masked, TOKENS, steps())
    assert found.end.samples == 2 * N * 3 and found.same_as == "cross-entropy"


def test_softmax_applied_twice_is_followed_to_the_logits() -> None:
    found = measured(F.cross_entropy, CLASSES, confident(14.0, nn.Softmax(1)), WRONG)
    assert found.end.wrong == found.end.dead == 32 and "0 (Linear)" in found.logits
    assert found.task.expects == "logits" and not found.task.fits and found.task.form == "probabilities"


def hand_mse(o: Tensor, t: Tensor) -> Tensor:
    return ((o - t) ** 2).mean()


TASKS = [
    (F.mse_loss, VALUES, flat, "regression", "distinct values (float32)"),
    (hand_mse, VALUES[:, 0], lambda: nn.Sequential(nn.Linear(5, 1), nn.Flatten(0)), "regression", "24 distinct values"),
    (F.mse_loss, X, lambda: flat(5), "regression", "the targets are the inputs"),
    (F.l1_loss, CLASSES[:, None].float(), lambda: flat(1), "regression", "3 distinct whole values (float32), "),
    (F.binary_cross_entropy_with_logits, torch.zeros(N, 1), lambda: flat(1), "unknown", "that were seen are 0"),
    (F.mse_loss, 2 * BITS[:, None] - 1, lambda: flat(1, nn.Tanh()), "binary", "targets of -1 and 1"),
    (lambda o, t: o.exp().mean(), CLASSES, flat, "unknown", "no call was recognised"),
    (F.cross_entropy, HOT * 0.9 + 0.1 / C, flat, "multi-class", "distributions over 3 classes"),
    (F.mse_loss, HOT, flat, "multi-class", "one-hot rows of 3 classes (float32)"),
    (lambda o, t: F.mse_loss(o, F.one_hot(t, C).float()), TOKENS, steps, "sequence", "4 steps a sample"),
    (F.cross_entropy, TOKENS.view(N, 2, 2), lambda: flat(4 * C, nn.Unflatten(1, (C, 2, 2))), "multi-class",
     "numbers of 3 classes (int64), 4 places a sample"),
]  # fmt: skip


@pytest.mark.parametrize(("function", "target", "model", "kind", "told"), TASKS)
def test_the_task_is_told_from_the_targets(function, target, model, kind, told) -> None:
    found = task.measure(posed(function, target, model()))
    assert found.kind == kind and told in found.told_by


@pytest.mark.parametrize(
    ("function", "target", "model", "expects", "gives"),
    [
        (F.mse_loss, HOT, lambda: flat(C, nn.Softmax(1)), "values", "probabilities (softmax at 1 (Softmax)), rows sum"),
        (F.mse_loss, HOT, lambda: flat(C, nn.Sigmoid()), "values", "values between 0 and 1 (sigmoid at 1 (Sigmoid))"),
        (F.cross_entropy, CLASSES, flat, "logits", "raw values of 0 (Linear)"),
        (F.nll_loss, CLASSES, lambda: flat(C, nn.LogSoftmax(1)), "log-probabilities", "log-probabilities (log_softmax"),
        (F.binary_cross_entropy, MANY, lambda: flat(C, nn.Sigmoid()), "probabilities", "values between 0 and 1"),
        (lambda o, t: -o.softmax(1)[torch.arange(N), t].log().mean(), CLASSES, flat, "probabilities", "probabilities"),
        (F.cross_entropy, CLASSES, lambda: flat(C, nn.ReLU()), "logits", "values (relu at 1 (ReLU))"),
        (lambda o, t: o.exp().mean(), CLASSES, flat, "unknown", ""),
    ],
)
def test_what_the_loss_expects_and_what_it_gets(function, target, model, expects, gives) -> None:
    found = task.measure(posed(function, target, model()))
    assert found.expects == expects and found.gives.startswith(gives) and found.fits


class States(nn.Module):
    """Outputs that come out of a recurrent layer together with its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.GRU(5, C, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x[:, None])[0]


ELSEWHERE = nn.Parameter(torch.zeros(1))
FIRST = torch.zeros(N).long()
UNMEASURABLE = [
    (lambda o, t: F.mse_loss(o.softmax(-1), t), HOT[:, None], States, "what makes the outputs cannot be told"),
    (lambda o, t: F.cross_entropy(o, t).detach() + ELSEWHERE.sum(), CLASSES, flat, "no gradient back to the outputs"),
    (lambda o, t: F.nll_loss(o.log_softmax(1)[FIRST], t), CLASSES, flat, "cannot be followed"),
    (F.mse_loss, BITS[:, None].expand(N, 2), lambda: flat(1, nn.Sigmoid()), "48 targets do not go with 24 outputs"),
    (lambda o, t: F.cross_entropy(o * torch.inf, t), CLASSES, flat, "not finite"),
    (F.mse_loss, HOT, flat, "raw scores, compared with labels"),
    (F.mse_loss, BITS[:, None], lambda: flat(1), "raw scores, compared with labels"),
    (lambda o, t: F.cross_entropy(o, t).detach(), CLASSES, flat, "no gradient gets from the loss to the network"),
    (lambda o, t: F.cross_entropy(o, t).detach() + o.sum() * 0, CLASSES, flat, "whatever they are"),
    (lambda o, t: F.cross_entropy(o, t), BITS[:, None], lambda: flat(1), "softmax over one output"),
    (lambda o, t: 0 * F.cross_entropy(o, t), CLASSES, flat, "no gradient back to the outputs, whatever they are"),
    (lambda o, t: F.binary_cross_entropy(o.softmax(1), t), MANY, flat, "each on their own"),
    (lambda o, t: F.binary_cross_entropy_with_logits(o, t), torch.zeros(N, 1), lambda: flat(1), ""),
    (lambda o, t: o.exp().mean(), CLASSES, flat, "no classes"),
    (lambda o, t: F.cross_entropy(o.flip(0).softmax(1) @ torch.eye(C).flip(0)[:, :2], t % 2), CLASSES, flat, ""),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using a target size")
@pytest.mark.parametrize(("function", "target", "model", "why"), UNMEASURABLE)
def test_what_cannot_be_measured_is_said_and_raises_nothing(function, target, model, why) -> None:
    found = measured(function, target, model())
    assert why in found.why and (found.end is None) == bool(found.why)


def test_a_regression_has_scales_and_no_gradients() -> None:
    found = measured(F.mse_loss, 100 * VALUES + 1000, flat())
    assert found.end is None and found.why == "" and found.scales is not None
    twice = (100 * VALUES + 1000).flatten().double().repeat(2)
    assert found.scales.targets == pytest.approx(float(twice.std()), rel=1e-5)
    assert found.scales.apart == pytest.approx(1000, rel=0.05) and found.scales.outputs < 5


def test_start_and_end_are_two_states_and_the_model_is_left_alone() -> None:
    problem = posed(F.mse_loss, HOT, confident(0.1, nn.Softmax(1)), WRONG)
    problem = replace(problem, last={"0.weight": 140 * problem.model[0].weight.detach()})
    before = state_of(problem.model)
    found = loss.measure(problem)
    assert (found.start.dead, found.end.dead) == (0, 32)
    assert loss.measure(replace(problem, last={})).end is not None
    untouched = loss.measure(replace(problem, last=state_of(problem.model)))
    assert untouched.end is untouched.start
    assert all(torch.equal(value, before[name]) for name, value in state_of(problem.model).items())
