"""The chapter on the loss: rivals send the closed forms' gradients, advice is better when followed, and whatever loss a
script has the chapter is sensible sentences."""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec
import pytest
import torch
import torch.nn.functional as F
from tests.probes.test_loss import (
    BITS,
    CLASSES,
    CROSS,
    HOT,
    MANY,
    SQUARED,
    TOKENS,
    VALUES,
    WRONG,
    C,
    N,
    T,
    X,
    confident,
    flat,
    hand_mse,
    posed,
    steps,
)
from tests.small import clouds, mlp, written
from torch import Tensor, nn

from unstuck.chapters import criteria, losses
from unstuck.chapters import loss as chapters
from unstuck.chapters.losses import Lane, Raced, Rival
from unstuck.chapters.plan import Plan
from unstuck.errors import NotMeasurable
from unstuck.evidence import Evidence
from unstuck.probes import anatomy, loss, objective
from unstuck.probes.logits import site_of
from unstuck.problem import Problem
from unstuck.race.trials import Level
from unstuck.recipe import recipe_of
from unstuck.records import Chapter
from unstuck.training import Training

BUDGET = 3.0


def descending(case: Problem, lr: float = 0.1, cls=torch.optim.SGD) -> Problem:
    optimizer = cls(case.model.parameters(), lr=lr)
    return replace(case, optimizer=recipe_of(optimizer, {id(p): n for n, p in case.model.named_parameters()}))


def told(case: Problem, budget_s: float = 0.0, **fields) -> Chapter:
    return chapters.chapter(case, Evidence(case.loop, case, case.optimizer, **fields), budget_s)


def lined_up(case: Problem) -> dict[str, Problem]:
    seen, found = anatomy.measure(case), loss.measure(case)
    return dict(criteria.lineup(case, seen, site_of(case, seen), found))


FORMS = [(name, function, target, model) for name, function, target, model, _ in CROSS if name != "soft margin"]
FORMS += [(f"squared {case[0]}", *case[1:]) for case in SQUARED]
FORMS += [
    ("not reduced", lambda o, t: F.cross_entropy(o, t, reduction="none").mean(), CLASSES, flat),
    ("entries not reduced", lambda o, t: F.mse_loss(o.softmax(1), t, reduction="none").mean(), HOT, flat),
    ("raw scores", F.mse_loss, HOT, flat),
    ("one raw score", F.mse_loss, BITS[:, None], lambda: flat(1)),
    ("hinge", F.multi_margin_loss, CLASSES, flat),
    ("twice", F.cross_entropy, CLASSES, lambda: flat(C, nn.Softmax(1))),
    ("log target", lambda o, t: F.kl_div(o.log_softmax(1), t, reduction="batchmean", log_target=True),
     (HOT * 0.9 + 0.1 / C).log(), flat),
]  # fmt: skip


@pytest.mark.parametrize(("name", "function", "target", "model"), FORMS, ids=[form[0] for form in FORMS])
def test_the_rivals_send_the_gradients_of_the_closed_forms(name, function, target, model) -> None:
    case = posed(function, target, model())
    rivals = lined_up(case)
    site = site_of(case, anatomy.measure(case))
    squared = criteria.squared(loss.measure(case).task)
    for rival, wanted in ((criteria.CROSS, "cross"), (squared, "squared")):
        if rival in rivals:
            state = loss.state_at(rivals[rival], case.twin(), site)
            torch.testing.assert_close(state.present, getattr(state, wanted), rtol=1e-3, atol=1e-6)
    own, same = next(iter(rivals)), loss.measure(case).same_as
    assert len(rivals) == (2 if same else 3) and own.count("the present loss") == 1
    assert own.startswith({"cross-entropy": criteria.CROSS, "squared error": squared}.get(same, ""))


def test_labels_that_are_ignored_stay_so_and_sums_stay_sums() -> None:
    def padded(reduction: str):
        return lambda o, t: F.cross_entropy(o.reshape(-1, C), t.reshape(-1), ignore_index=0, reduction=reduction)

    case = posed(padded("mean"), TOKENS, steps())
    batch, model = case.data[0], case.twin()
    z, labels = model(batch[0]).reshape(-1, C), TOKENS.flatten()
    p, hot = z.softmax(1), F.one_hot(labels, C)
    each = (p - hot).square().mean(1)[labels > 0]
    for reduction, wanted in (("mean", each.mean()), ("sum", each.sum())):
        case = posed(padded(reduction), TOKENS, steps())
        found = lined_up(case)["squared error on a softmax"].value(model, batch)
        torch.testing.assert_close(found, wanted)


def test_a_mask_by_hand_keeps_others_out() -> None:
    def masked(o: Tensor, t: Tensor) -> Tensor:
        logs = o.log_softmax(-1).reshape(-1, C)[torch.arange(N * T), t.reshape(-1)]
        mask = (torch.arange(N * T) % T < 3).float()
        return -(logs * mask).sum() / mask.sum()

    case = posed(masked, TOKENS, steps())
    with pytest.raises(NotMeasurable, match="leaves out some labels"):
        lined_up(case)
    chapter = told(descending(case), BUDGET)
    assert any("25% of the labels have no weight" in said for said in chapter.sentences)
    assert "leaves out some labels" in chapter.sentences[-1] and chapter.advice is None


def test_rates_go_around_the_present_one_and_around_those_that_make_up_for_the_loss() -> None:
    assert losses._factors((1.0,), 1) == pytest.approx([0.1, 10**-0.5, 1, 10**0.5, 10])
    wide = losses._factors((50.0, 1.0), 1)
    assert len(wide) == 8 and (wide[0], wide[-1]) == pytest.approx((0.1, 10**2.5))
    assert losses._factors((1 / 50,), 2) == pytest.approx([0.01, 0.1, 1, 10])
    assert losses._factors((1e12,), 1)[-1] == pytest.approx(1e5)
    (cross, squared), plan = losses._chosen([1.0, 0.02], 1e-6, 10.0)
    assert plan == Plan(400, 3) and cross == losses._factors((1.0,), 1) and squared == wide
    (squared, cross), _ = losses._chosen([0.02, 1.0], 1e-6, 10.0)  # neither loss is held to the rate of the other
    assert squared == wide and cross == losses._factors((0.02,), 1) and len(cross) == 8
    assert list(map(len, losses._chosen([1.0, 1.0], 0.025, 10.0)[0])) == [3, 3]
    with pytest.raises(NotMeasurable, match="no race of losses fits"):
        losses._chosen([1.0, 1.0], 10.0, 10.0)


def test_without_classes_there_is_nothing_to_race() -> None:
    case = descending(posed(F.mse_loss, VALUES, flat()))
    with pytest.raises(NotMeasurable, match="no classes to be right about"):
        losses.raced(case, anatomy.measure(case), loss.measure(case), BUDGET)


def test_start_and_end_are_told_apart() -> None:
    case = posed(F.mse_loss, HOT, confident(0.1, nn.Softmax(1)), WRONG)
    chapter = told(replace(case, last={"0.weight": 140 * case.model[0].weight.detach()}))
    wrong, dead = chapter.sentences[2:4]
    assert wrong == "Where the training was left 67% of 48 predictions are wrong, 67% at the start."
    assert "dead for 32 of 32 (100% ± " in dead and "%) where the training was left; for 0 of 32 (0% ± " in dead
    assert [figure.value for figure in chapter.figures[:2]] == [0.0, 1.0]


def saturated(lr: float = 0.1) -> Problem:
    """Sigmoids and squared error where all outputs begin far on the wrong side: nothing comes back."""
    x, y = clouds(480)
    model = nn.Sequential(*mlp(), nn.Sigmoid())
    with torch.no_grad():
        model[2].bias.fill_(-12.0)
    return descending(written(model, x, F.one_hot(y, 4).float(), nn.MSELoss()), lr)


@pytest.fixture(scope="module")
def sick():
    case = saturated()
    return case, told(case, 6.0, objective=objective.measure(case))


def test_dead_gradients_and_the_race_are_told(sick) -> None:
    case, chapter = sick
    assert chapter.id == "loss" and chapter.title == chapters.TITLE
    task, fit, wrong, dead, factor, race, cross, *_ = chapter.sentences
    assert task == "The targets show a multi-class task: one-hot rows of 4 classes (float32)."
    assert "takes values and is given values between 0 and 1 (sigmoid at 3 (Sigmoid))." in fit
    found = loss.measure(case)
    assert wrong.startswith("At the start ") and found.end is found.start
    assert f"{found.end.dead} of {found.end.wrong} (" in dead and found.end.share > 0.9
    assert "times cross-entropy's gradient: that a learning rate makes up for" in factor
    assert race.startswith("From the same start, on the same batches, each loss at the best of ")
    assert cross.startswith("Cross-entropy is ahead of the present loss: ")
    figures = {figure.name: figure for figure in chapter.figures}
    dead_figure = figures["share of wrong predictions with a dead gradient, at the start"]
    assert (dead_figure.value, dead_figure.error, dead_figure.samples) == (
        found.end.share, found.end.error, found.end.wrong
    )  # fmt: skip
    better, present = (figures[f"held-out accuracy, {name}"].value for name in ("cross-entropy", "the present loss"))
    assert better > present + 0.1


def test_its_advice_is_better_when_followed(sick) -> None:
    case, chapter = sick
    assert chapter.advice is not None and chapter.advice.id == "cross-entropy"
    assert chapter.advice.code.startswith("criterion = nn.CrossEntropyLoss()  # on logits and class indices")
    rate = float(chapter.advice.code.rsplit("lr=")[-1]) if "lr=" in chapter.advice.code else 0.1
    plain = nn.Sequential(*list(case.model)[:3])
    data, held = ([(x, t.argmax(1)) for x, t in part] for part in (case.data, case.held_out))
    better = descending(written(plain, *map(torch.cat, zip(*data, strict=True))), rate)
    scores = []
    for problem, scored in ((case, case.held_out), (better, held)):
        run = Training(problem)
        run.advance(100)
        scores.append(run.score(scored).value)
    assert scores[1] > scores[0] + 0.1


def test_its_charts_hold_both_losses_and_the_samples(sick) -> None:
    dots, left, courses, rates, *surfaces = sick[1].charts
    assert surfaces and all(chart.surface is not None for chart in surfaces)
    assert [curve.name for curve in dots.curves] == ["cross-entropy", "squared error on a softmax", "the present loss"]
    assert dots.dots and dots.log_y and all(y > 0 for curve in dots.curves for y in curve.y)
    assert left.bars and sum(curve.y[0] for curve in left.curves) == pytest.approx(1)
    assert len(courses.curves) == 3 and all(len(curve.x) == losses.CHECKS for curve in courses.curves)
    assert rates.log_x and all(list(curve.x) == sorted(curve.x) for curve in rates.curves)
    again = msgspec.json.decode(msgspec.json.encode(sick[1]), type=Chapter)
    assert again == sick[1]


def test_cross_entropy_that_works_gets_no_advice() -> None:
    x, y = clouds(320)
    chapter = told(replace(descending(written(mlp(), x, y)), held_out=()), BUDGET)
    assert chapter.advice is None and any("training accuracy after" in said for said in chapter.sentences)
    assert any("The present loss is cross-entropy on the logits" in said for said in chapter.sentences)
    names = [curve.name for curve in chapter.charts[0].curves]
    assert names == ["squared error on a softmax", "cross-entropy (the present loss)"]
    assert "Gradient left" not in " ".join(chart.title for chart in chapter.charts)


@pytest.mark.parametrize("seeds", [((0.9, 0.91, 0.9), (0.3, 0.31, 0.3)), ((0.5, 0.9, 0.2), (0.5, 0.3, 0.6))])
def test_only_what_is_clearly_ahead_is_advised(seeds) -> None:
    case = descending(posed(F.mse_loss, HOT, flat(C, nn.Softmax(1))))
    ours, theirs = seeds

    def lane(rate: float, ends: tuple[float, ...]) -> Lane:
        return Lane(rate, (Level(0.5, 0.0, 3),) * losses.CHECKS, ends)

    rivals = (
        Rival("the present loss", (lane(0.1, theirs),)),
        Rival(criteria.CROSS, (lane(0.01, (0.0,) * 3), lane(0.1, ours))),
    )
    race = Raced(Plan(100, 3), 0.1, rivals, "accuracy", 200, ())
    advice, said = chapters._advice(case, race), chapters._race(race)
    assert (advice is not None) == (ours[1] == 0.91)
    verdict = "is ahead of the present loss" if advice else chapters.UNDECIDED
    assert said[0].endswith(f"At the present rate of 0.1: the present loss {chapters._level(rivals[0].best)}; "
                            f"cross-entropy {chapters._level(rivals[1].lanes[1])}.")  # fmt: skip
    assert f"Cross-entropy {verdict}: the difference is between " in said[1]
    assert ("The best rate of cross-entropy was the last one tried" in said[-1]) == rivals[1].open


class Padded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.GRU(5, 6, batch_first=True), nn.Linear(6, C)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x[:, None].expand(-1, T, -1))[0])


PADDED = TOKENS.masked_fill(torch.arange(T) > 2, -100)
PLENTY = [
    ("custom", lambda o, t: (o.exp() * t).mean(), VALUES, flat, "cannot be told"),
    ("by hand", lambda o, t: -o.softmax(1)[torch.arange(len(t)), t].log().mean(), CLASSES, flat, "multi-class task"),
    ("padding", lambda o, t: F.cross_entropy(o.reshape(-1, C), t.reshape(-1)), PADDED, Padded, "a class for each step"),
    ("weights", lambda o, t: F.cross_entropy(o, t, weight=torch.arange(1.0, 1 + C)), CLASSES, flat, "multi-class"),
    ("smoothing", lambda o, t: F.cross_entropy(o, t, label_smoothing=0.2), CLASSES, flat, "multi-class task"),
    ("multi-label", F.binary_cross_entropy_with_logits, MANY, flat, "a multi-label task: rows of 3 targets"),
    ("1-D regression", lambda o, t: F.mse_loss(o[:, 0], t), VALUES[:, 0], lambda: flat(1), "regression: 24 distinct"),
    ("autoencoder", F.mse_loss, X, lambda: flat(5), "regression: the targets are the inputs"),
    ("by hand, regression", hand_mse, VALUES, flat, "what counts is the scale"),
    ("adversarial", F.binary_cross_entropy_with_logits, torch.ones(N, 1), lambda: flat(1), "seen are 1"),
    ("raw scores", F.mse_loss, HOT, flat, "it is dead nowhere"),
    ("without gradient", lambda o, t: F.cross_entropy(o.detach(), t), CLASSES, flat, "no gradient gets from"),
    ("not finite", lambda o, t: F.cross_entropy(o * torch.nan, t), CLASSES, flat, "the outputs are not finite"),
    ("shapes apart", F.mse_loss, BITS[:, None].expand(N, 2), lambda: flat(1), "raw values of 0 (Linear)"),
    ("softmax by hand", lambda o, t: -(o.exp() / o.exp().sum(1, keepdim=True))[torch.arange(len(t)), t].log().mean(),
     CLASSES, flat, "Logits are read from log p of the output of"),
    ("triplets", nn.TripletMarginLoss(), X, lambda: flat(5), "cannot be told"),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "function", "target", "model", "said"), PLENTY, ids=[case[0] for case in PLENTY])
def test_whatever_the_loss_the_chapter_is_sensible(name, function, target, model, said) -> None:
    if name == "triplets":
        function = lambda o, t: nn.functional.triplet_margin_loss(o, o.flip(0), o.roll(1, 0))  # noqa: E731
    case = posed(function, target, model())
    chapter = told(case)
    assert said in " ".join(chapter.sentences)
    assert chapter.sentences and chapter.advice is None
    finite = [value for chart in chapter.charts for curve in chart.curves for value in (*curve.x, *curve.y)]
    assert all(value is None or math.isfinite(value) for value in finite)
    assert all(figure.value is not None and math.isfinite(figure.value) for figure in chapter.figures)
    assert msgspec.json.decode(msgspec.json.encode(chapter), type=Chapter) == chapter
    without = any("no optimizer with a learning rate" in sentence for sentence in chapter.sentences)
    assert without == (case.criterion.task in {"classes", "onehot", "binary", "multilabel"})


def test_a_model_that_fails_leaves_a_chapter_that_says_so() -> None:
    def broken(output: Tensor, target: Tensor) -> Tensor:
        raise KeyError("a fault of the user's")

    case = Problem(flat(), broken, [(X, CLASSES)] * 4)
    assert told(case).sentences == ("Not measured: KeyError: \"a fault of the user's\".",)
