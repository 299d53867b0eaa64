"""Do the labels go with the inputs? Cross-validated predictions of a reference model against the given labels.

Confident learning (Northcutt, Jiang & Chuang 2021): a label is doubted where the out-of-sample probability of another
class reaches the average that class has where it is given. Noise differs from classes that are hard to tell apart:
its wrong labels are spread over all classes, and they are as common where the reference is sure. Where the references
know nothing, a copy of the network itself is asked, by training it and scoring held-out batches. Costs a few fits of
scikit-learn; seconds of training only in that case.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import numpy as np

from unstuck.errors import NotApplicable, UnstuckError
from unstuck.probes.references import linear, network, trained
from unstuck.probes.table import Array, Table, tabulate
from unstuck.problem import Problem

ROWS = 1200
FOLDS = 3
FEWEST = 200
CLEAN = 0.8
"""Cross-validated accuracy above which no large share of labels can be wrong: then nothing more is measured."""
BETTER = 0.05


@dataclass(frozen=True)
class Labels:
    """`noise`: share of labels doubted by confident learning (0 where `agreement` is high), with standard error.

    agreement   share of labels that cross-validated predictions meet; `sure`: the same among the surest tenth
    spread      entropy of the doubted labels given the prediction, relative to that of the other classes' frequencies
                (1: spread like chance)
    own         held-out score of a copy of the network trained on the training batches (nan where not asked)
    """

    noise: float
    error: float
    agreement: float
    sure: float
    spread: float
    classes: int
    samples: int
    own: float


def measure(problem: Problem) -> Labels:
    """Raises UnstuckError where there are no classes, or fewer than 200 rows of them."""
    table = tabulate(problem, problem.data, ROWS)
    if not table.classes or table.kind == "tokens":
        raise NotApplicable("labels can be doubted only where each row has a class")
    if len(table) < FEWEST:
        raise UnstuckError(f"{len(table)} rows are too few to doubt labels")
    odds, given = cross_validated(table), codes(table)
    agreement = float((odds.argmax(1) == given).mean())
    if agreement >= CLEAN:
        return Labels(0.0, 0.0, agreement, 1.0, 0.0, odds.shape[1], len(table), float("nan"))
    doubted = doubts(odds, given)
    noise = float(doubted.mean())
    return Labels(
        noise=noise,
        error=math.sqrt(max(noise * (1 - noise), 1e-4) / len(table)),
        agreement=agreement,
        sure=_sure(odds, given),
        spread=spread(odds[doubted].argmax(1), given[doubted], given),
        classes=odds.shape[1],
        samples=len(table),
        own=trained(problem),
    )


def cross_validated(table: Table) -> Array:
    """Out-of-sample probabilities [rows, classes] of the linear model, or of the perceptron if that is clearly better.

    Classes are numbered as in `codes`.
    """
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    given = codes(table)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    found: list[tuple[float, Array]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for model in (linear(table), network(table)):
            odds = np.asarray(cross_val_predict(model, table.inputs, given, cv=folds, method="predict_proba"))
            found.append((float((odds.argmax(1) == given).mean()), odds))
            if found[0][0] >= CLEAN:
                break
    (plain, first), (flexible, last) = found[0], found[-1]
    chosen: Array = last if flexible > plain + BETTER else first
    return chosen


def codes(table: Table) -> Array:
    """The classes that occur, numbered from 0 in their order."""
    numbered: Array = np.unique(table.targets, return_inverse=True)[1]
    return numbered


def doubts(odds: Array, labels: Array) -> Array:
    """Which labels confident learning doubts [rows]: another class is both likelier and at its own usual level."""
    usual = np.array([odds[labels == k, k].mean() if (labels == k).any() else 1.0 for k in range(odds.shape[1])])
    reached = np.where(odds >= usual, odds, -1.0)
    best = reached.argmax(1)
    doubted: Array = (reached.max(1) > 0) & (best != labels) & (odds.argmax(1) != labels)
    return doubted


def _sure(odds: Array, labels: Array) -> float:
    """Share of labels met among the tenth of the rows that the reference is surest of."""
    order = np.argsort(-odds.max(1))[: max(1, len(labels) // 10)]
    return float((odds.argmax(1)[order] == labels[order]).mean())


def spread(predicted: Array, given: Array, labels: Array) -> float:
    """How far doubted labels are spread as chance would: mean entropy of the given label for each predicted class, over
    the entropy of the other classes' frequencies. 0 with two classes (there is nothing to spread over)."""
    count = int(labels.max()) + 1
    if count < 3 or not len(given):
        return 0.0
    shares = np.bincount(labels, minlength=count).astype(float)
    found, weight = 0.0, 0
    for k in range(count):
        mine = np.bincount(given[predicted == k], minlength=count).astype(float)
        others = np.where(np.arange(count) == k, 0.0, shares)
        if mine.sum() >= 2 * (count - 1):
            found += mine.sum() * _entropy(mine) / max(_entropy(others), 1e-9)
            weight += int(mine.sum())
    return float(found / weight) if weight else 0.0


def _entropy(counts: Array) -> float:
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log(p)).sum())
