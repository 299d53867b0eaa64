"""`momentum`: a hollow, a hill, a deeper valley; descent stops in the hollow, momentum rolls over the hill."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unstuck.chapters.drawn import heights
from unstuck.chapters.optimizers import MOMENTUM as AMONG
from unstuck.chapters.optimizers import Raced, raced
from unstuck.claims import Claim
from unstuck.lecture.parts import Parts, Say, Tick, claim
from unstuck.lecture.plane import Path, Place, descend, surface
from unstuck.optim.momentum import MOMENTUM
from unstuck.optim.sgd import SGD
from unstuck.problem import Problem
from unstuck.race.trials import Level
from unstuck.records import Arrow, Chart, Figure

START: Place = (-1.9, 0.9)
STEPS, RATE = 300, 0.01
WEAK, STRONG, TOO_STRONG = 0.5, 0.9, 0.95
TOP, WIDE, SEEN = 0.13, ((-2.1, 1.9), (-1.2, 1.2)), 80
"""About where the hill's top is; what is drawn of the surface, and of the courses."""

FROM, LONG, KEPT, DRAWN = (-2.0, 1.3), 0.25, 0.7, 14
PLACES = (1, 2, 4)
"""The vector sum is drawn in a bowl, with so long a rate that its parts are seen: after these updates."""

STEEP, FAR, ENOUGH = 100.0, (1.0, 1.0), 100
"""The ravine: its curvature across over that along, where both begin, and updates."""


def hollow(x: Tensor, y: Tensor) -> Tensor:
    """(x² − 1)² − x/2 + 3y²/2 + 0.6: a hollow on the left, a deeper valley on the right, a hill between them."""
    return (x**2 - 1) ** 2 - 0.5 * x + 1.5 * y**2 + 0.6


def bowl(x: Tensor, y: Tensor) -> Tensor:
    """(x² + 6y²) / 4."""
    return 0.25 * (x**2 + 6 * y**2)


def ravine(x: Tensor, y: Tensor) -> Tensor:
    """(x² + 100 y²) / 2: a hundred times steeper across than along."""
    return 0.5 * (x**2 + STEEP * y**2)


def shown(say: Say) -> Parts:
    """The textbook case: four balls on one surface, two in a ravine."""
    plain = descend(hollow, START, SGD, STEPS, lr=RATE)
    weak, strong, wild = (
        descend(hollow, START, MOMENTUM, STEPS, lr=RATE, momentum=beta) for beta in (WEAK, STRONG, TOO_STRONG)
    )
    slow, fast = ways_down_the_ravine()
    return Parts(
        claims=(*_ends(say, plain, weak, strong, wild), _sum(say, strong), *_faster(say, slow, fast)),
        charts=(
            _picture(say, plain, weak, strong),
            _arrows(say),
            _courses(say, plain, weak, strong, wild),
            _ravine(say, slow, fast),
        ),
    )


def on(problem: Problem, say: Say, budget_s: float, tick: Tick) -> Parts:
    """The user's training, raced with momenta 0, 0.5, 0.9 and 0.99 over the same batches.

    Raises NotMeasurable without an optimizer whose rate can be changed, or where the race does not fit the budget.
    """
    race = raced(problem, budget_s, tick, among=(AMONG,))
    if not race.momenta:
        return Parts(notes=(say(f"No momenta were raced: {race.own.name} has none to change, or time is too short.",
                                f"没有比较动量：{race.own.name} 没有可以改动的动量，或者时间不够。"),))  # fmt: skip
    named = dict(race.momenta)
    none, some = _level(say, 0.0, named[0.0]), _level(say, STRONG, named[STRONG])
    says = say("With momentum 0.9 the loss ends lower than with none.", "动量为 0.9 时，最后的损失比没有动量时低。")
    figures = tuple(_level(say, beta, found) for beta, found in race.momenta)
    return Parts((claim(says, some, "<", none),), figures, (_raced(say, race),), (_how(say, race),))


def ways_down_the_ravine() -> tuple[Path, Path]:
    """Plain descent and momentum, each with the numbers that are best for curvatures from 1 to κ (Polyak 1964).

        plain       α = 2 / (1 + κ)               the distance shrinks by (κ − 1) / (κ + 1) a step
        momentum    α = 4 / (1 + √κ)²,  √β = (√κ − 1) / (√κ + 1)             by √β in the long run
    """
    root = math.sqrt(STEEP)
    shrink = (root - 1) / (root + 1)
    slow = descend(ravine, FAR, SGD, ENOUGH, lr=2 / (1 + STEEP))
    return slow, descend(ravine, FAR, MOMENTUM, ENOUGH, lr=4 / (1 + root) ** 2, momentum=shrink**2)


def weighted(path: Path, rate: float, beta: float) -> Tensor:
    """What the movements should be: −α Σ_k β^(t−k) g_k over all gradients so far [steps, 2]."""
    apart = torch.arange(len(path.slopes) - 1)
    powers = beta ** (apart[:, None] - apart[None, :]).double()
    return -rate * powers.tril() @ path.slopes[:-1]


def _ends(say: Say, plain: Path, weak: Path, strong: Path, wild: Path) -> tuple[Claim, ...]:
    def lost(path: Path, en: str, zh: str) -> Figure:
        return Figure(say(f"loss at the end, {en}", f"最后的损失，{zh}"), float(path.losses[-1]))

    slope = Figure(say("its gradient's norm at the end", "最后的梯度范数"), float(plain.slopes[-1].norm()))
    place = Figure(say("where it is, x", "它的位置 x"), float(plain.places[-1, 0]))
    top, little = Figure(say("top of the hill, x", "山顶的位置 x"), TOP), Figure(say("a thousandth", "千分之一"), 1e-3)
    stuck = lost(plain, "plain descent", "普通梯度下降")
    rolled = lost(strong, f"β = {STRONG}", f"β = {STRONG}")
    return (
        claim(say("Plain descent ends in the hollow, before the hill:",
                  "普通梯度下降停在山前的小坑里："), place, "<", top),
        claim(say("no gradient is left there.", "那里已经没有梯度了。"), slope, "<", little),
        claim(say("Momentum 0.9 rolls over the hill, and ends lower.", "动量为 0.9 时冲过山头，停在更低的地方。"),
              rolled, "<", stuck),
        claim(say("Momentum 0.5 is too little: it stays in the hollow.", "动量为 0.5 时不够：还是停在小坑里。"),
              lost(weak, f"β = {WEAK}", f"β = {WEAK}"), ">", rolled),
        claim(say("0.95 is too much here: it rolls over the hill,", "这里 0.95 又太大：它冲过了山头，"),
              Figure(say("farthest to the right, x", "最右到达的 x"), float(wild.places[:, 0].max())), ">", top),
        claim(say("and back again. Momentum may help; it is no guarantee.", "又滚了回来。动量可能有帮助，但没有保证。"),
              Figure(say("where it ends, x", "最后停在 x"), float(wild.places[-1, 0])), "<", top),
    )  # fmt: skip


def _sum(say: Say, strong: Path) -> Claim:
    made = strong.places[1:] - strong.places[:-1]
    off = float((made - weighted(strong, RATE, STRONG)).abs().max())
    return claim(
        say("Each movement is the weighted sum of all gradients so far, the old ones less and less.",
            "每次移动都是过去所有梯度的加权和，越早的梯度权重越小。"),
        Figure(say("largest difference to the sum", "与加权和的最大差"), off), "<",
        Figure(say("rounding", "舍入误差"), 1e-12),
    )  # fmt: skip


def _faster(say: Say, slow: Path, fast: Path) -> tuple[Claim, ...]:
    left = say(f"distance left after {ENOUGH} steps, ", f"{ENOUGH} 步之后离最低点的距离，")
    known = math.sqrt(2.0) * ((STEEP - 1) / (STEEP + 1)) ** ENOUGH
    off = abs(float(slow.places[-1].norm()) - known)
    return (
        claim(say("Down a ravine momentum is faster, each at its best numbers.",
                  "在狭长的山谷里，各用最好的参数，动量更快。"),
              Figure(f"{left}β > 0", float(fast.places[-1].norm())), "<",
              Figure(f"{left}β = 0", float(slow.places[-1].norm()))),
        claim(say("Plain descent's distance there is that of theory.", "普通梯度下降剩下的距离与理论一致。"),
              Figure(say("difference to √2 · (99/101)¹⁰⁰", "与 √2 · (99/101)¹⁰⁰ 之差"), off), "<",
              Figure(say("rounding", "舍入误差"), 1e-12)),
    )  # fmt: skip


def _picture(say: Say, plain: Path, weak: Path, strong: Path) -> Chart:
    return Chart(
        say("A hollow, a hill, a deeper valley: who gets over?", "小坑、山头、更深的山谷：谁能过去？"), "x", "y",
        (plain.curve(say("plain descent", "普通梯度下降")), weak.curve(f"β = {WEAK}"), strong.curve(f"β = {STRONG}")),
        surface=surface(hollow, say("loss", "损失"), *WIDE, log=True),
    )  # fmt: skip


def _arrows(say: Say) -> Chart:
    path = descend(bowl, FROM, MOMENTUM, DRAWN, lr=LONG, momentum=KEPT)
    return Chart(
        say("The movement as a sum: the last one (m), weakened, plus the step against the gradient (−g)",
            "移动是一个和：减弱后的上一次移动（m）加上沿负梯度的一步（−g）"),
        "x", "y", (path.curve(f"β = {KEPT}"),),
        surface=surface(bowl, say("loss", "损失"), (-2.3, 0.9), (-1.5, 1.5)),
        arrows=tuple(arrow for step in PLACES for arrow in parted(path, step)),
        note=say("From each place: first m, then −g from its tip, and there the next place is. Beyond the bottom −g "
                 "points back, and m still onward.",
                 "在每个位置：先画 m，再从它的末端画 −g，终点就是下一个位置。过了谷底，−g 指向后面，m 仍然向前。"),
    )  # fmt: skip


def parted(path: Path, step: int) -> tuple[Arrow, Arrow]:
    """The two parts of the movement after `step` updates, tip to tail: β times the last one, and −α g."""
    here, after = path.places[step], path.places[step + 1]
    kept = KEPT * (here - path.places[step - 1])
    own = after - here - kept
    return _arrow(here, kept, "m"), _arrow(here + kept, own, "−g")


def _arrow(start: Tensor, way: Tensor, name: str) -> Arrow:
    return Arrow(float(start[0]), float(start[1]), float(way[0]), float(way[1]), name)


def _courses(say: Say, plain: Path, weak: Path, strong: Path, wild: Path) -> Chart:
    named = ((say("plain descent", "普通梯度下降"), plain), (f"β = {WEAK}", weak), (f"β = {STRONG}", strong),
             (f"β = {TOO_STRONG}", wild))  # fmt: skip
    return Chart(say("The loss over the steps: who comes down into the valley?",
                     "损失随步数的变化：谁下到了山谷里？"),
                 say("step", "步"), say("loss", "损失"),
                 tuple(path.first(SEEN).course(name) for name, path in named))  # fmt: skip


def _ravine(say: Say, slow: Path, fast: Path) -> Chart:
    names = say("plain descent", "普通梯度下降"), say("momentum", "动量")
    return Chart(say("A ravine 100 times steeper across than along: the loss", "横向比纵向陡 100 倍的山谷：损失"),
                 say("step", "步"), say("loss", "损失"), (slow.course(names[0]), fast.course(names[1])),
                 log_y=True)  # fmt: skip


def _level(say: Say, beta: float, found: Level) -> Figure:
    return Figure(say(f"loss at the end, β = {beta:g}", f"最后的损失，β = {beta:g}"), found.mean, error=found.error)


def _raced(say: Say, race: Raced) -> Chart:
    bars = heights([(f"β = {beta:g}", found.mean) for beta, found in race.momenta])
    return Chart(say(f"The loss after {race.plan.steps} updates, by momentum",
                     f"{race.plan.steps} 次更新之后的损失，按动量"),
                 say("momentum", "动量"), say("loss", "损失"), bars, bars=True)  # fmt: skip


def _how(say: Say, race: Raced) -> str:
    return say(
        f"{race.own.name}, {race.plan.steps} updates, {race.plan.seeds} seeds; all momenta move a steady gradient "
        "equally far.",
        f"{race.own.name}，{race.plan.steps} 次更新，{race.plan.seeds} 个随机种子；对不变的梯度，各动量走得一样远。",
    )
