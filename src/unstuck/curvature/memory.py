"""How much memory a graph holds, and how much there is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

SHARE = 0.25
"""Of the memory that is free, what cached graphs may take."""
UNKNOWN = 2 * 2**30

T = TypeVar("T")


@dataclass
class Graphs:
    """Graphs that are kept, by the name of their batch, up to `limit` bytes."""

    limit: int
    held: int = 0
    kept: dict[int, Any] = field(default_factory=dict)

    def get(self, name: int, make: Callable[[], T]) -> T:
        """The kept one, or what `make` returns, which is kept if there is room."""
        if name in self.kept:
            return self.kept[name]  # type: ignore[no-any-return]
        if self.held >= self.limit:
            return make()
        made, size = held_bytes(make)
        if self.held + size <= self.limit:
            self.kept[name] = made
            self.held += size
        return made

    def clear(self) -> None:
        """Let go of all."""
        self.kept.clear()
        self.held = 0


def out_of_memory(error: BaseException) -> bool:
    """True for torch's complaint about memory, on any device."""
    text = str(error).lower()
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and ("out of memory" in text or "not enough memory" in text
                                             or "can't allocate memory" in text)
    )  # fmt: skip


def available(device: torch.device) -> int:
    """Bytes free on this device (on the CPU: what the kernel calls available; 2 GiB where it does not say)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return UNKNOWN


def held_bytes(make: Callable[[], T], besides: Iterable[Tensor] = ()) -> tuple[T, int]:
    """What `make` returns, and the bytes that the graphs made in it keep (each storage once) besides these tensors."""
    storages: dict[int, int] = {}
    own = {tensor.untyped_storage().data_ptr() for tensor in besides if tensor.layout == torch.strided}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.layout == torch.strided:
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # itself, it would hold its own graph in a circle that nothing ever frees

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        made = make()
    return made, sum(size for place, size in storages.items() if place not in own)
