"""The whole Hessian of a small model: [n, n], by products with the unit vectors, many at once."""

from __future__ import annotations

import torch
from torch import Tensor

from unstuck.curvature.forward import pinned
from unstuck.curvature.product import Hessian
from unstuck.errors import BadArgument

LARGEST = 4000
"""Parameters up to which the exact spectrum is had: [n, n] in float64 then takes 128 MB, its eigenvalues some 10 s."""

ROWS = 256


@pinned()
def dense(hessian: Hessian, largest: int = LARGEST) -> Tensor:
    """H [n, n] in float64, symmetrized. n products. Raises BadArgument for more than `largest` parameters."""
    size = hessian.size
    if size > largest:
        raise BadArgument(f"dense: `hessian` has {size} parameters, more than `largest` = {largest}; use Lanczos")
    identity = torch.eye(size, dtype=hessian.flat.dtype, device=hessian.flat.device)
    matrix = torch.cat([hessian(rows) for rows in identity.split(ROWS)]).double()
    return (matrix + matrix.T) / 2
