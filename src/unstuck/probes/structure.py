"""Structure in the inputs: whether there is anything in them to learn from, whatever the targets are.

Columns of numbers are held against white noise of the same size, by the spectrum of their correlations; neighbouring
token ids by what they tell of each other. Noise and constants give 0. Costs one eigenvalue decomposition.
"""

from __future__ import annotations

import math

import numpy as np

from unstuck.probes.table import Array, Table

SPECTRUM_ROWS = 800


def structure(table: Table) -> float:
    """Share of the standardized columns' variance above the upper edge of white noise's spectrum.

    Marchenko & Pastur (1967): eigenvalues of the correlation matrix of n rows of d independent columns stay below
    (1 + √(d/n))². Token ids: the share of bits that an id tells of the next one (mutual information over entropy).
    """
    if table.kind == "tokens":
        return _mutual(table.inputs[:, -2], table.inputs[:, -1])
    x = table.inputs[:SPECTRUM_ROWS]
    x = x[:, x.std(0) > 0]
    if x.shape[1] < 2 or len(x) < 8:
        return 0.0
    x = (x - x.mean(0)) / np.maximum(x.std(0), 1e-12)
    rows, columns = x.shape
    values = np.linalg.eigvalsh(x @ x.T if rows < columns else x.T @ x) / rows
    edge = (1 + math.sqrt(columns / rows)) ** 2
    return float(values[values > 1.1 * edge].sum() / values.sum())


def _mutual(first: Array, second: Array) -> float:
    keep = first >= 0
    a, b = np.unique(first[keep], return_inverse=True)[1], np.unique(second[keep], return_inverse=True)[1]
    if len(a) == 0:
        return 0.0
    joint = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(joint, (a, b), 1)
    p = joint / joint.sum()
    pa, pb = p.sum(1, keepdims=True), p.sum(0, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        shared = float(np.nansum(p * np.log(p / (pa * pb))))
        entropy = -float(np.nansum(pb * np.log(pb)))
    # Finite samples share (a−1)(b−1)/2n nats by chance (Miller & Madow).
    bias = (len(pa) - 1) * (pb.size - 1) / (2 * len(a))
    return max(0.0, shared - bias) / entropy if entropy > 0 else 0.0
