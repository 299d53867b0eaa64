"""What is achievable on this data: scores of plain models that scikit-learn fits to the same inputs and targets.

Constant, linear (logistic or ridge regression on standardized columns) and a small multi-layer perceptron, of few
columns the nearest neighbours; for texts
tables of n-grams; for autoencoders a principal component analysis with as many components as the narrowest layer.
Each is scored on the rows it was fitted to and on held-out rows. Costs a few seconds of scikit-learn, no gradient of
the network. A reference is a lower bound of what can be reached: a convolution may do better, hardly ever worse.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from unstuck.errors import UnstuckError
from unstuck.probes.ngrams import ngrams
from unstuck.probes.structure import structure
from unstuck.probes.table import Array, Table, tabulate
from unstuck.problem import Problem
from unstuck.training import Training

ROWS = 2000
HELD_ROWS = 1000
COMPONENTS = 64
"""Wide tables are projected on so many principal components first: of Fashion-MNIST they hold 94 % of the variance and
a logistic regression on them is as good as on the pixels (0.82 against 0.81 held out)."""

FEWEST = 40
FEW_COLUMNS = 4
"""Coordinates, say: so few columns are filled by some hundred rows, and the nearest ones tell what no smooth model of a
few seconds does (a picture's brightness by row and column: R² 0.9 against 0.5)."""
NOTHING = 1e-8
"""Variance of a principal component, of columns that have 1 each, below which it is round-off."""
OWN_S = 3.0
INFORMATIVE = 3.5
"""Standard errors above the constant's score from which a reference knows something: the best of three references at
chance exceeds this once in a thousand data sets."""
SLIGHT = 0.25
"""Share of what lies above the constant's score below which a reference knows next to nothing."""
WILD = 0.5
"""A reference so far below the constant on held-out rows has not been fitted: it cannot say that there is nothing."""
BUDGET_S = 4.0

LINEAR = "linear model"


@dataclass(frozen=True)
class Reference:
    """One reference model: its score on the rows it was fitted to and on held-out ones; `loss`: its cross-entropy or
    squared error on the held-out ones (nan where it gives no probabilities)."""

    name: str
    train: float
    held_out: float
    loss: float = float("nan")


@dataclass(frozen=True)
class References:
    """`chance`: score of the constant prediction on the held-out rows, `error` the standard error of a score there.

    structure   share of the inputs' variance that white noise of the same size would not show (0: noise or constant)
    constant    share of the input columns that never vary
    own         where no reference beats the constant: held-out score of a copy of the network, trained on the rest
    """

    metric: str
    kind: str
    models: tuple[Reference, ...]
    chance: float
    error: float
    rows: int
    held_rows: int
    structure: float
    constant: float
    own: float

    @property
    def best(self) -> Reference:
        """The reference with the highest held-out score."""
        return max(self.models, key=lambda m: m.held_out)

    @property
    def fair(self) -> Reference:
        """The reference that a sound training comes up to: the best, of texts the trigram table."""
        return self.models[1] if self.kind == "tokens" else self.best

    @property
    def known(self) -> float:
        """The best held-out score of any model, the network itself included where it was asked."""
        return self.best.held_out if math.isnan(self.own) else max(self.best.held_out, self.own)

    @property
    def informative(self) -> bool:
        """True if a reference, or the network itself, clearly beats the constant on held-out rows."""
        return self.known > self.chance + INFORMATIVE * self.error

    @property
    def empty(self) -> bool:
        """True if neither does, nor comes far, though there are rows enough for a good model to stand out."""
        enough = self.held_rows >= FEWEST and self.chance + 2 * INFORMATIVE * self.error < 1
        slight = self.known <= self.chance + SLIGHT * (1 - self.chance)
        fitted = self.best.held_out >= self.chance - WILD
        return enough and slight and fitted and not self.informative and not math.isnan(self.own)


def measure(problem: Problem, budget_s: float = BUDGET_S) -> References:
    """Fit and score the references. Raises UnstuckError where the data are no table, or fewer than 40 rows."""
    start = time.perf_counter()
    train = tabulate(problem, problem.data, ROWS)
    held = tabulate(problem, problem.held_out or problem.data, HELD_ROWS, train.widths)
    if len(train) < FEWEST:
        raise UnstuckError(f"{len(train)} rows are too few for a reference model")
    fits: dict[str, Callable[[Table, Table], list[Reference]]] = {"tokens": _ngrams, "autoencoder": _components}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a reference that has not converged is still a lower bound
        models = fits.get(train.kind, lambda a, b: _plain(a, b, start + budget_s))(train, held)
    chance, error = constant(train, held), _error(max(constant(train, held), constant(train, train)), held)
    nothing = max(m.held_out for m in models) <= chance + INFORMATIVE * error
    return References(
        metric="accuracy" if train.classes else "R²",
        kind=train.kind,
        models=tuple(models),
        chance=chance,
        error=error,
        rows=len(train),
        held_rows=len(held),
        structure=structure(train),
        constant=float((train.inputs.std(0) == 0).mean()),
        own=trained(problem) if nothing else float("nan"),
    )


def constant(train: Table, held: Table) -> float:
    """Held-out score of the training rows' commonest class, or of their mean."""
    if train.classes:
        return accuracy(np.full(len(held), np.bincount(train.targets).argmax()), held)
    return r_squared(np.broadcast_to(train.targets.mean(0), held.targets.shape), held.targets)


def accuracy(prediction: Array, table: Table) -> float:
    """Share of rows predicted right; the mean over classes of these shares where the table is balanced."""
    right = prediction == table.targets
    if not table.balanced:
        return float(right.mean())
    return float(np.mean([right[table.targets == k].mean() for k in np.unique(table.targets)]))


def r_squared(prediction: Array, targets: Array) -> float:
    """1 − mean squared error / mean variance of the columns, as `criterion.score` takes it."""
    spread = float(targets.var(0).mean())
    return 1 - float(((prediction - targets) ** 2).mean()) / spread if spread > 0 else float("nan")


def _error(chance: float, held: Table) -> float:
    """Standard error of a score near chance: binomial (of the rarest class if balanced); of R² what makes `INFORMATIVE`
    of them the square of a correlation of as many standard errors 1/√n."""
    if not held.classes:
        return INFORMATIVE / max(len(held), 1)
    n = int(np.bincount(held.targets)[np.unique(held.targets)].min()) if held.balanced else len(held)
    return math.sqrt(max(chance * (1 - chance), 0.01) / max(n, 1))


def _plain(train: Table, held: Table, deadline: float) -> list[Reference]:
    found: list[Reference] = []
    plain = [(LINEAR, linear(train)), ("small neural network", network(train))]
    if train.inputs.shape[1] <= FEW_COLUMNS:
        plain.insert(1, ("mean of the nearest neighbours", neighbours(train)))
    for name, model in plain:
        if found and time.perf_counter() > deadline - 0.5 * (deadline - time.perf_counter()):
            break
        model.fit(train.inputs, _fitted(train))
        found.append(Reference(name, _score(model, train), _score(model, held), _loss(model, held)))
    return found


def _fitted(table: Table) -> Array:
    return table.targets if table.classes or table.targets.shape[1] > 1 else table.targets[:, 0]


def _score(model: Any, table: Table) -> float:
    prediction = model.predict(table.inputs)
    if table.classes:
        return accuracy(prediction, table)
    return r_squared(np.asarray(prediction).reshape(len(table), -1), table.targets)


def _loss(model: Any, table: Table) -> float:
    """Mean of −log p(label), or of the squared error; a class that the model never met has probability 1e-3."""
    if not table.classes:
        return float(np.square(np.asarray(model.predict(table.inputs)).reshape(len(table), -1) - table.targets).mean())
    odds, place = model.predict_proba(table.inputs), {k: i for i, k in enumerate(model.classes_)}
    p = [row[place[k]] if k in place else 0.0 for row, k in zip(odds, table.targets.tolist(), strict=True)]
    return float(-np.log(np.maximum(p, 1e-3)).mean())


def linear(table: Table) -> Any:
    """Logistic or ridge regression on standardized columns (their principal components where there are many)."""
    from sklearn.linear_model import Ridge

    return _pipeline(table, _logistic(table) if table.classes else Ridge(alpha=10.0))


def _logistic(table: Table) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=100, tol=1e-3, class_weight="balanced" if table.balanced else None)


def network(table: Table) -> Any:
    """A perceptron with 128 hidden units, some forty passes of Adam, weight decay; regression targets standardized."""
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.preprocessing import StandardScaler

    passes = max(8, min(60, 120_000 // len(table)))
    options: dict[str, Any] = {"max_iter": passes, "alpha": 0.01, "batch_size": min(64, len(table)), "random_state": 0}
    if table.classes:
        return _pipeline(table, MLPClassifier(hidden_layer_sizes=(128,), **options))
    inner = TransformedTargetRegressor(MLPRegressor(hidden_layer_sizes=(128,), **options), transformer=StandardScaler())
    return _pipeline(table, inner)


def neighbours(table: Table) -> Any:
    """The five nearest rows, weighed by 1/distance on standardized columns."""
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

    kind = KNeighborsClassifier if table.classes else KNeighborsRegressor
    return _pipeline(table, kind(n_neighbors=5, weights="distance"))


def _pipeline(table: Table, model: Any) -> Any:
    from sklearn.decomposition import PCA
    from sklearn.feature_selection import VarianceThreshold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rows, columns = table.inputs.shape
    if columns <= COMPONENTS or not table.inputs.std(0).any():
        return make_pipeline(StandardScaler(), model)
    parts = PCA(min(COMPONENTS, rows // 2), svd_solver="randomized", random_state=0)
    # Beyond the rank of the table a component is round-off: scaled to unit variance it would explode on other rows.
    return make_pipeline(StandardScaler(), parts, VarianceThreshold(NOTHING), StandardScaler(), model)


def _components(train: Table, held: Table) -> list[Reference]:
    """The best linear autoencoder with the network's bottleneck (Baldi & Hornik 1989): principal components."""
    from sklearn.decomposition import PCA

    kept = min(train.narrowest, *train.targets.shape)
    model = PCA(kept, random_state=0).fit(train.targets)
    scores = [r_squared(model.inverse_transform(model.transform(t.targets)), t.targets) for t in (train, held)]
    return [Reference(f"PCA with {kept} components", *scores)]


def _ngrams(train: Table, held: Table) -> list[Reference]:
    return [Reference(*scored) for scored in ngrams(train, held)]


def trained(problem: Problem, budget_s: float = OWN_S) -> float:
    """Held-out score of the network itself, trained on a copy for at most the user's steps and `budget_s` seconds."""
    if problem.optimizer is None or not problem.held_out:
        return float("nan")
    run, start = Training(problem), time.perf_counter()
    wanted = problem.loop.steps or 200
    while run.steps < wanted and not run.diverged and time.perf_counter() - start < budget_s:
        run.advance(min(20, wanted - run.steps))
    return run.score(problem.held_out).value
