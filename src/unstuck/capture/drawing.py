"""Which loader drew the last batch: where a step's samples may have come from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils.data import DataLoader

from unstuck.capture.pulse import Pulse
from unstuck.capture.recording import Recording
from unstuck.capture.seen import Seen
from unstuck.recorder import site


class Drawing:
    """What the wraps report of data loaders; `last`: the loader (None if unknown) and its batch, a reference only."""

    def __init__(self, seen: Seen, recording: Recording, pulse: Pulse) -> None:
        self._seen, self._recording, self._pulse = seen, recording, pulse
        self._samplers: dict[int, DataLoader[Any]] = {}
        self.last: tuple[Any, Any] = (None, None)

    def began_loader(self, loader: DataLoader[Any]) -> None:
        """Remember the loader and the line that iterates it."""
        self._seen.loaders.setdefault(id(loader), (loader, site(3)))
        self._samplers[id(getattr(loader, "_index_sampler", None))] = loader

    def draw_batch(self, loader_iterator: Any, draw: Callable[[Any], Any]) -> Any:
        """Let the loader draw, unrecorded; remember the batch, until the next one."""
        if self._pulse.of is not None:
            return draw(loader_iterator)
        with self._recording.paused():
            batch = draw(loader_iterator)
        # Several iterators may be open (a validation in the midst of an epoch): each shares its loader's sampler.
        self.last = (self._samplers.get(id(getattr(loader_iterator, "_index_sampler", loader_iterator))), batch)
        return batch
