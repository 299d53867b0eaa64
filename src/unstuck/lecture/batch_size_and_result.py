"""`batch-size-and-result`: what batches of several sizes come to, at equal epochs and at equal updates.

256 digits, a fifth of them with a label drawn at random, so that there is something to learn by heart; one network, one
rate, everything the same but for the size of a batch. Each seed is another start and another order of the samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from unstuck.chapters.drawn import lines
from unstuck.chapters.sizes import Sizes, raced
from unstuck.claims import Claim
from unstuck.criterion import prepared
from unstuck.errors import UnstuckError
from unstuck.lecture.digits import CLASSES, PIXELS, Digits, digits
from unstuck.lecture.parts import Parts, Say, Tick, claim, unmeasured
from unstuck.probes import sharpness, throughput
from unstuck.probes.throughput import Throughput
from unstuck.problem import Problem, samples_a_batch, state_of
from unstuck.race.trials import Level, level
from unstuck.records import Chart, Figure
from unstuck.training import Training

SAMPLES, WRONG, HIDDEN, RATE = 256, 0.2, 32, 0.2
SIZES, CALM = (4, 16, 64, SAMPLES), 16
"""`CALM`: the smallest batches whose training still comes to rest at this rate, to compare minima with."""
CLOSE = 0.02
"""Of the training samples: so few more or less fitted count as equal."""
EPOCHS, UPDATES, SEEDS = 20, 2500, range(6)
APART, CLOCK = 8, 0.2
"""On a training of one's own: smaller and larger by this, and the share of the time in which updates are timed."""


@dataclass(frozen=True)
class End:
    """Where batches of `size` came to, each figure over seeds: loss and accuracy on the training samples, accuracy on
    others, λmax of the training loss, and its rise when the weights are disturbed by 5 % of their length."""

    size: int
    loss: Level
    train: Level
    others: Level
    steepest: Level
    rise: Level


def shown(say: Say, epochs: int = EPOCHS, updates: int = UPDATES, seeds: Sequence[int] = SEEDS) -> Parts:
    """Four sizes from the starts of all seeds, twice: after so many epochs, and after so many updates."""
    data = digits(SAMPLES, WRONG)
    problem = network(data)
    by_epochs = [end(problem, data, size, epochs * (SAMPLES // size), seeds) for size in SIZES]
    by_updates = [end(problem, data, size, updates, seeds) for size in SIZES]
    return Parts(
        claims=(*_at_equal_epochs(say, by_epochs, epochs), *_at_equal_updates(say, by_updates, updates)),
        charts=(
            _accuracies(say, by_epochs, say(f"After {epochs} epochs each: the full batch has hardly begun",
                                            f"各训练 {epochs} 个 epoch：全批次几乎还没起步")),
            _accuracies(say, by_updates, say(f"After {updates} updates each: noise keeps the smallest batches back",
                                             f"各更新 {updates} 次：噪声拖住了最小的批次")),
            *_sharpnesses(say, by_updates, updates),
        ),
        notes=(_best(say, by_epochs),),
    )  # fmt: skip


def on(problem: Problem, say: Say, budget_s: float, tick: Tick) -> Parts:
    """The user's training in smaller and larger batches, at as many samples each, at the rate that suits each best."""
    try:
        clock = throughput.measure(problem, CLOCK * budget_s)
        tick("racing batch sizes", CLOCK)
        found = raced(problem, _ladder(problem, clock), clock, (1 - CLOCK) * budget_s)
    except UnstuckError as error:
        return unmeasured(say, str(error))
    note = _own_note(say, found, samples_a_batch(problem))
    return Parts(_own_claims(say, found), charts=(_own_chart(say, found),), notes=(note,))


def _ladder(problem: Problem, clock: Throughput) -> list[int]:
    """The present batch size, and a smaller and a larger one where they were timed and the samples suffice."""
    present, timed = samples_a_batch(problem), [timing.size for timing in clock.timings]
    most = min(timed[-1], present * len(problem.data) // 2)
    others = [size for size in (present // APART, present * APART) if timed[0] <= size <= most]
    return sorted((present, *others))


def network(data: Digits) -> Problem:
    """64 → 32 → 10 with ReLU, and plain descent."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(PIXELS, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, CLASSES))
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    problem = Problem(model, nn.CrossEntropyLoss(), [(data.x, data.y)], optimizer=optimizer)
    return prepared(problem)


def end(problem: Problem, data: Digits, size: int, updates: int, seeds: Sequence[int]) -> End:
    """Where so many updates on batches of `size` lead, from the start of each seed."""
    batches = tuple(zip(data.x.split(size), data.y.split(size), strict=True))
    batched, rows = replace(problem, data=batches), []
    for seed in seeds:
        run = Training(batched, seed)
        run.advance(updates)
        train, others = run.score(problem.data), run.score([(data.others_x, data.others_y)])
        sharp = sharpness.measure(replace(problem, last=state_of(run.model)))
        rows.append((train.loss, train.value, others.value, sharp.steepest, sharp.rise))
    return End(size, *map(level, zip(*rows, strict=True)))


def _at_equal_epochs(say: Say, ends: Sequence[End], epochs: int) -> tuple[Claim, ...]:
    small, full = ends[0], ends[-1]
    after = say(f"after {epochs} epochs", f"{epochs} 个 epoch 之后")
    return (
        claim(say("At equal epochs small batches end lower on the training samples,",
                  "epoch 数相同时，小批次在训练样本上的损失更低，"),
              _figure(say, small, small.loss, say("loss", "损失")), "<",
              _figure(say, full, full.loss, say("loss", "损失"))),
        claim(say("and are the better on others, having made the more updates.",
                  "在没见过的样本上也更准，因为更新的次数多得多。"),
              _figure(say, small, small.others, say("accuracy", "准确率") + " " + after), ">",
              _figure(say, full, full.others, say("accuracy", "准确率"))),
    )  # fmt: skip


def _at_equal_updates(say: Say, ends: Sequence[End], updates: int) -> tuple[Claim, ...]:
    small, full = ends[0], ends[-1]
    calm = next(one for one in ends if one.size == CALM)
    loss = say(f"loss after {updates} updates", f"{updates} 次更新之后的损失")
    accuracy = say("accuracy", "准确率")
    return (
        claim(say("At equal updates the full batch ends lower than the smallest one: noise keeps the loss up.",
                  "更新次数相同时，全批次比最小的批次更低：噪声让损失降不下去。"),
              _figure(say, full, full.loss, loss), "<", _figure(say, small, small.loss, say("loss", "损失"))),
        claim(say(f"Batches of {CALM} fit the training samples all but as well as the full batch,",
                  f"批次大小为 {CALM} 时，对训练样本的拟合与全批次几乎一样好，"),
              _figure(say, calm, calm.train, accuracy), ">",
              Figure(say("the full batch's, less two hundredths", "全批次的准确率减百分之二"),
                     full.train.mean - CLOSE, error=full.train.error)),
        claim(say("yet the place that the full batch came to is sharper,", "但全批次停下的地方更尖锐，"),
              _figure(say, full, full.steepest, "λmax"), ">", _figure(say, calm, calm.steepest, "λmax")),
        claim(say("and serves unseen samples worse.", "在没见过的样本上也更差。"),
              _figure(say, full, full.others, accuracy), "<", _figure(say, calm, calm.others, accuracy)),
    )  # fmt: skip


def _best(say: Say, ends: Sequence[End]) -> str:
    best = max(ends, key=lambda one: one.others.mean)
    return say(f"At equal epochs batches of {best.size} did best on unseen samples.",
               f"epoch 数相同时，在没见过的样本上，批次大小 {best.size} 最好。")  # fmt: skip


def _figure(say: Say, one: End, found: Level, name: str) -> Figure:
    full, part = say("full batch", "全批次"), say(f"batches of {one.size}", f"批次大小 {one.size}")
    batch = full if one.size == SAMPLES else part
    return Figure(say(f"{batch}, {name}", f"{batch}，{name}"), found.mean, error=found.error)


def _accuracies(say: Say, ends: Sequence[End], title: str) -> Chart:
    sizes = [float(one.size) for one in ends]
    curves = (
        lines(say("training samples", "训练样本"), sizes, [one.train for one in ends]),
        lines(say("unseen samples", "没见过的样本"), sizes, [one.others for one in ends]),
    )
    return Chart(
        title, say("batch size", "批次大小"), say("accuracy", "准确率"), curves, log_x=True,
        note=say("A fifth of the training labels is drawn at random; bands: two standard errors over seeds.",
                 "五分之一的训练标签是随机的；色带：各种子之间的两倍标准误差。"),
    )  # fmt: skip


def _sharpnesses(say: Say, ends: Sequence[End], updates: int) -> tuple[Chart, ...]:
    sizes, x = [float(one.size) for one in ends], say("batch size", "批次大小")
    steepest = lines("λmax", sizes, [one.steepest for one in ends])
    rise = lines(say("rise", "上升"), sizes, [one.rise for one in ends])
    return (
        Chart(say(f"From {CALM} on, larger batches end where it is sharper: λmax after {updates} updates",
                  f"从 {CALM} 起，批次越大，停下的地方越尖锐：更新 {updates} 次之后的 λmax"),
              x, "λmax", (steepest,), log_x=True),
        Chart(say(f"How far the loss rises there when weights are disturbed by {sharpness.SHARE:.0%} of their length",
                  f"在那里把权重扰动其长度的 {sharpness.SHARE:.0%}，损失上升多少"), x,
              say("rise of the loss", "损失的上升"), (rise,), log_x=True),
    )  # fmt: skip


def _own_claims(say: Say, found: Sizes) -> tuple[Claim, ...]:
    if len(found.sizes) < 2:
        return ()
    small, large = found.sizes[0], found.sizes[-1]
    name = say("training loss in batches of", "训练损失，批次大小")
    ends = [
        Figure(f"{name} {size}", found.best(size).end.mean, error=found.best(size).end.error) for size in (small, large)
    ]
    says = say("At as many samples the smaller batches end lower.", "样本数相同时，小批次的损失更低。")
    return (claim(says, ends[0], "<", ends[1]),)


def _own_chart(say: Say, found: Sizes) -> Chart:
    sizes = [float(size) for size in found.sizes]
    curve = lines(say("training loss", "训练损失"), sizes, [found.best(size).end for size in found.sizes])
    title = say(f"After {found.samples} samples, each size at its best rate",
                f"{found.samples} 个样本之后，各用最合适的学习率")  # fmt: skip
    return Chart(title, say("batch size", "批次大小"), say("loss", "损失"), (curve,), log_x=True)


def _own_note(say: Say, found: Sizes, present: int) -> str:
    seen = "; ".join(f"{size}: {found.best(size).lr:.2g}" for size in found.sizes)
    return say(f"Your batches hold {present} samples. The rates that did best, by batch size: {seen}.",
               f"你的批次大小是 {present}。各批次大小下最合适的学习率：{seen}。")  # fmt: skip
