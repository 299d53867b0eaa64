"""Parameters as one vector: the trainable ones of a model, each once, in the order of `named_parameters`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from unstuck.errors import NotMeasurable


class Flat:
    """The trainable parameters of a model as a vector of `size` numbers.

    Raises NotMeasurable where there is none.
    """

    def __init__(self, model: nn.Module) -> None:
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        if not named:
            raise NotMeasurable("the model has no trainable parameter (none requires a gradient)")
        self.names = tuple(name for name, _ in named)
        self.parameters = tuple(p for _, p in named)
        self.sizes = [p.numel() for p in self.parameters]
        self.size = sum(self.sizes)
        widest = max(self.parameters, key=lambda p: torch.finfo(p.dtype).bits)
        self.dtype = torch.promote_types(widest.dtype, torch.float32)
        self.device = self.parameters[0].device
        self.moving = self._moving(model)

    def _moving(self, model: nn.Module) -> Tensor | None:
        """0 for rows of embeddings that stand for padding: they get no gradient, training takes them for constants."""
        rows = {
            id(module.weight): module.padding_idx
            for module in model.modules()
            if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.padding_idx is not None
        }
        if not any(id(p) in rows for p in self.parameters):
            return None
        ones = [torch.ones_like(p) for p in self.parameters]
        for one, p in zip(ones, self.parameters, strict=True):
            if id(p) in rows:
                one.data[rows[id(p)]] = 0
        return self.join(ones)

    def movable(self, vectors: Tensor) -> Tensor:
        """The vector, or rows, without what cannot be moved."""
        return vectors if self.moving is None else vectors * self.moving.to(vectors.dtype)

    def join(self, tensors: Sequence[Tensor | None]) -> Tensor:
        """One tensor per parameter (None: zero) → a vector [n]."""
        return torch.cat([
            torch.zeros(size, dtype=self.dtype, device=self.device) if t is None
            else t.detach().to_dense().reshape(-1).to(self.device, self.dtype)
            for t, size in zip(tensors, self.sizes, strict=True)
        ])  # fmt: skip

    def split(self, vector: Tensor) -> tuple[Tensor, ...]:
        """A vector [n] → one tensor per parameter, in its shape and dtype."""
        parts = vector.split(self.sizes)
        return tuple(
            part.reshape(p.shape).to(p.device, p.dtype) for part, p in zip(parts, self.parameters, strict=True)
        )

    def join_rows(self, tensors: Sequence[Tensor | None], count: int) -> Tensor:
        """One tensor [count, …] per parameter (None: zero) → rows [count, n]."""
        return torch.cat([
            torch.zeros(count, size, dtype=self.dtype, device=self.device) if t is None else t.detach().reshape(
                count, -1).to(self.device, self.dtype)
            for t, size in zip(tensors, self.sizes, strict=True)
        ], dim=1)  # fmt: skip

    def split_rows(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Rows [k, n] → one tensor [k, …] per parameter, in its dtype."""
        parts = rows.split(self.sizes, dim=1)
        return tuple(
            part.reshape(len(rows), *p.shape).to(p.device, p.dtype)
            for part, p in zip(parts, self.parameters, strict=True)
        )

    def values(self) -> Tensor:
        """The parameters' present values as a vector [n]."""
        return self.join(self.parameters)

    def write(self, vector: Tensor) -> None:
        """Set the parameters to these values (graphs made of them before are no longer valid)."""
        with torch.no_grad():
            for parameter, value in zip(self.parameters, self.split(vector), strict=True):
                parameter.copy_(value)
