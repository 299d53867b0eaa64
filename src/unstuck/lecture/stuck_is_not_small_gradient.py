"""`stuck-is-not-small-gradient`: the loss stands still, and the gradient is large: bouncing between two walls."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from sklearn.datasets import load_diabetes
from torch import Tensor, nn

from unstuck.claims import Claim
from unstuck.curvature.eigen import extremes
from unstuck.curvature.measure import measurable
from unstuck.errors import UnstuckError
from unstuck.lecture.parts import Parts, Say, Tick, claim
from unstuck.lecture.plane import Path, Place, descend, hessian, surface
from unstuck.optim.sgd import SGD
from unstuck.probes import curvature, history, sharpness
from unstuck.problem import Problem, load_state, state_of
from unstuck.records import Chart, Curve, Figure

WALL, FLAT = 0.5, 0.01
"""Curvature at the bottom of the valley is 1 / wall² = 4 across it, and so much along it."""
START: Place = (-2.5, 1.1)
RATE, STEPS, CUT, MORE = 0.75, 60, 0.1, 40
"""lr · λmax = 3 in the valley. After so many steps the rate is cut to a tenth, for some more."""

NET_RATE, NET_STEPS, NET_MORE = 0.7, 120, 60
HIDDEN = 8
EDGE, NEAR_EDGE = 2.0, 1.5
SMALL = 0.1
"""A gradient that is still a tenth of what it was at first has not vanished."""


@dataclass(frozen=True)
class Run:
    """A training on the full batch: loss and gradient norm at every step, and the states at the last two steps before
    the rate was cut."""

    losses: Tensor
    norms: Tensor
    states: tuple[dict[str, Tensor], dict[str, Tensor]]


def valley(x: Tensor, y: Tensor) -> Tensor:
    """√(1 + (y/w)²) − 1 + x²/200: straight walls, a round bottom of curvature 1/w², nearly level along."""
    return (1 + (y / WALL) ** 2).sqrt() - 1 + FLAT / 2 * x**2


def width() -> float:
    """How far from the middle the bouncing settles: −y is where a step from y ends.

        lr · L'(y) = 2 y        y = w √((lr·λ / 2)² − 1),  λ = 1/w²;   for lr·λ ≤ 2 it dies down
    """
    return WALL * math.sqrt((RATE / WALL**2 / EDGE) ** 2 - 1)


def shown(say: Say) -> Parts:
    """The textbook case: 100 steps in a valley, and 180 of a network on the diabetes data."""
    path = descend(valley, START, SGD, STEPS + MORE, factor=lambda step: 1.0 if step < STEPS else CUT, lr=RATE)
    problem = diabetes()
    run = trained(problem)
    return Parts(
        claims=(*_in_the_valley(say, path), *_in_the_network(say, problem, run)),
        charts=(
            _picture(say, path),
            _courses(say, say("In the valley: loss and gradient", "在山谷里：损失与梯度"), path.losses,
                     path.slopes.norm(dim=1)),
            _courses(say, say("A network on the diabetes data: loss and gradient", "糖尿病数据上的网络：损失与梯度"),
                     run.losses, run.norms),
        ),
    )  # fmt: skip


def on(problem: Problem, say: Say, budget_s: float, tick: Tick) -> Parts:
    """The user's own course of loss and gradient norm, and, for plain descent, lr·λmax where it was left."""
    edge, why = _edge(problem, say)
    try:
        seen = history.measure(problem)
    except UnstuckError as error:
        return Parts((), edge, (), (say(f"{error}.", "记录下来的损失太少，看不出过程。"), *why))
    first = Figure(say("gradient's norm at first", "开始时的梯度范数"), seen.gradient_first)
    last = Figure(say("at the end", "最后的梯度范数"), seen.gradient_last)
    claims = (_not_small(say, seen.gradient_first, last),) if seen.stands else ()
    says = (
        say("The loss does not fall any more.", "损失已经不再下降。") if seen.stands
        else say("The loss still falls: it is not stuck.", "损失还在下降：没有卡住。")
    )  # fmt: skip
    return Parts(claims, (first, last, *edge), _recorded(problem, say), (says, *why))


def diabetes(seed: int = 0) -> Problem:
    """442 patients, ten measurements of each, and how the illness went on; a network of 8 tanh units, squared error."""
    x, y = (torch.as_tensor(part) for part in load_diabetes(return_X_y=True))
    batch = ((x / x.std(0)), ((y - y.mean()) / y.std())[:, None])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(x.shape[1], HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 1)).double()
    return Problem(net, nn.MSELoss(), [batch], optimizer=torch.optim.SGD(net.parameters(), lr=NET_RATE))


def trained(problem: Problem) -> Run:
    """Plain descent on the full batch, at the problem's rate and then at a tenth of it. A gradient a step."""
    model, (batch,) = problem.twin(), problem.data
    parameters, rate = list(model.parameters()), problem.optimizer.lr
    losses, norms, states = [], [], []
    for step in range(NET_STEPS + NET_MORE + 1):
        loss = problem.value(model, batch)
        slopes = torch.autograd.grad(loss, parameters)
        losses.append(loss.detach())
        norms.append(torch.cat([slope.flatten() for slope in slopes]).norm())
        states += [state_of(model)] if step in (NET_STEPS - 1, NET_STEPS) else []
        with torch.no_grad():
            for parameter, slope in zip(parameters, slopes, strict=True):
                parameter.sub_(slope, alpha=rate * (1.0 if step < NET_STEPS else CUT))
    return Run(torch.stack(losses), torch.stack(norms), (states[0], states[1]))


def steepest(problem: Problem, state: dict[str, Tensor]) -> float:
    """λmax at the state, by Lanczos over Hessian-vector products."""
    found, _ = measurable(replace(problem, last=state), double=True)
    return extremes(found, "max", 1e-3).values[0]


def between(run: Run) -> dict[str, Tensor]:
    """The state midway between the last two before the rate was cut."""
    one, other = run.states
    return {name: (one[name] + other[name]) / 2 for name in one}


def loss_at(problem: Problem, state: dict[str, Tensor]) -> float:
    """The loss on the full batch."""
    model = problem.twin()
    load_state(model, state)
    with torch.no_grad():
        return float(problem.value(model, problem.data[0]))


def _in_the_valley(say: Say, path: Path) -> tuple[Claim, ...]:
    bends = RATE * float(hessian(valley, (0.0, 0.0))[1, 1])
    norms, edge = path.slopes.norm(dim=1), Figure(say("the edge", "临界值"), EDGE)
    off = float((path.places[STEPS - 10 : STEPS, 1].abs() - width()).abs().max())
    late = path.losses[STEPS // 2 : STEPS + 1]
    fell = Figure(say("fall over steps 30 to 60", "第 30 到 60 步的下降"), float(late[0] - late[-1]))
    level = Figure(say("a tenth of the loss", "损失的十分之一"), 0.1 * float(late[-1]))
    slow = Figure(say("gradient's norm at step 60", "第 60 步的梯度范数"), float(norms[STEPS]))
    after = Figure(say("loss after the cut", "减小学习率之后的损失"), float(path.losses[-1]))
    before = Figure(say("a quarter of the loss before it", "之前损失的四分之一"), float(late[-1]) / 4)
    return (
        claim(say("In the valley lr·λmax is beyond 2,",
                  "山谷里 lr·λmax 超过 2，"), Figure("lr·λmax", bends), ">", edge),
        claim(say("so the loss hardly falls,", "所以损失几乎不再下降，"), fell, "<", level),
        claim(say("while the gradient stays large.", "而梯度一直很大。"), slow, ">",
              Figure(say("half of the first", "最初的一半"), 0.5 * float(norms[0]))),
        claim(say("The width of the bouncing is that of theory.", "来回弹跳的幅度与理论一致。"),
              Figure(say("largest difference", "最大差"), off), "<", Figure(say("a millionth", "百万分之一"), 1e-6)),
        claim(say("A tenth of the rate, and the loss comes down.", "学习率减到十分之一，损失就降下来了。"), after, "<",
              before),
    )  # fmt: skip


def _in_the_network(say: Say, problem: Problem, run: Run) -> tuple[Claim, ...]:
    half = run.losses[NET_STEPS // 2 : NET_STEPS + 1]
    norms = run.norms[NET_STEPS // 2 : NET_STEPS + 1]
    lowest = Figure(say("lowest loss of steps 60 to 120", "第 60 到 120 步的最低损失"), float(half.min()))
    edge = NET_RATE * steepest(problem, run.states[1])
    return (
        claim(say("A network on real data: its gradient stays large.", "真实数据上的网络：梯度一直很大。"),
              Figure(say("smallest norm of steps 60 to 120", "第 60 到 120 步的最小范数"), float(norms.min())), ">",
              Figure(say("five times that after the cut", "减小学习率之后的五倍"), 5 * float(run.norms[-1]))),
        claim(say("Its lr·λmax stands at the edge of 2.", "它的 lr·λmax 停在临界值 2 附近。"),
              Figure("lr·λmax", edge), ">", Figure(say("near the edge", "接近临界值"), NEAR_EDGE)),
        claim(say("Midway between two steps the loss is lower than at any: the valley runs between the walls.",
                  "在相邻两步的中点，损失比每一步都低：谷底就在两壁之间。"),
              Figure(say("loss midway", "中点的损失"), loss_at(problem, between(run))), "<", lowest),
        claim(say("A tenth of the rate, and the loss comes down.", "学习率减到十分之一，损失就降下来了。"),
              Figure(say("loss 60 steps later", "60 步之后的损失"), float(run.losses[-1])), "<", lowest),
    )  # fmt: skip


def _picture(say: Say, path: Path) -> Chart:
    count = STEPS + 1
    loud = Curve(say("large rate", "大学习率"), *(tuple(path.places[:count, k].tolist()) for k in (0, 1)))
    calm = Curve(say("a tenth of it", "十分之一"), *(tuple(path.places[STEPS:, k].tolist()) for k in (0, 1)))
    return Chart(say("From wall to wall: the steps are long, the way is short",
                     "在两壁之间来回：步子很大，路却没走多远"), "x", "y",
                 (loud, calm), surface=surface(valley, say("loss", "损失"), (-2.8, 0.4), (-1.3, 1.3)))  # fmt: skip


def _courses(say: Say, title: str, losses: Tensor, norms: Tensor) -> Chart:
    steps = tuple(map(float, range(len(losses))))
    curves = (
        Curve(say("loss", "损失"), steps, tuple(losses.tolist())),
        Curve(say("gradient's norm", "梯度范数"), steps, tuple(norms.tolist())),
    )
    return Chart(title, say("step", "步"), say("loss, norm", "损失、范数"), curves, log_y=True)


def _not_small(say: Say, first: float, last: Figure) -> Claim:
    tenth = Figure(say("a tenth of the first", "最初的十分之一"), SMALL * first)
    return claim(say("The loss stands still, but the gradient is not small.",
                     "损失不动了，但梯度并不小。"), last, ">", tenth)


def _edge(problem: Problem, say: Say) -> tuple[tuple[Figure, ...], tuple[str, ...]]:
    """lr·λmax / 2(1 + β) of plain descent as a figure, and what it says; or why there is none."""
    found = sharpness.measure(problem)
    if found.why:
        return (), (say(f"λmax was not measured: {found.why}", f"没有测得 λmax：{found.why}"),)
    share = curvature.sharpness(problem, found.steepest)
    steep = Figure("λmax", found.steepest, error=(found.high - found.low) / 4, samples=found.samples)
    if math.isnan(share):
        return (steep,), (say("lr·λmax says where plain descent bounces; this optimizer scales its steps itself.",
                              "lr·λmax 只说明普通梯度下降何时弹跳；这里的优化器自己缩放步长。"),)  # fmt: skip
    beyond = (
        say("The step is beyond the edge: it bounces.", "步长超过临界值：在来回弹跳。") if share > 1
        else say("The step is within the edge.", "步长在临界值以内。")
    )  # fmt: skip
    return (steep, Figure(say("lr·λmax / 2(1 + β); it bounces above 1",
                              "lr·λmax / 2(1 + β)，大于 1 就弹跳"), share)), (beyond,)


def _recorded(problem: Problem, say: Say) -> tuple[Chart, ...]:
    losses, norms = problem.loop.losses, problem.loop.gradient_norms
    curves = [Curve(say("loss", "损失"), tuple(map(float, range(len(losses)))), tuple(losses))]
    if norms:
        steps, sizes = tuple(float(step) for step, _ in norms), tuple(norm for _, norm in norms)
        curves.append(Curve(say("gradient's norm", "梯度范数"), steps, sizes))
    return (Chart(say("Your loss and gradient", "你的损失与梯度"), say("step", "步"), say("loss, norm", "损失、范数"),
                  tuple(curves), log_y=True),)  # fmt: skip
