"""A progress bar with time left, on standard error, for anything over two seconds; silent where that is no terminal."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

PATIENCE_S = 2.0


class Progress:
    """Call it with what is being done and the share done; the bar appears after two seconds."""

    def __init__(self) -> None:
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task("examining", total=1.0)
        self._shown = False

    def __enter__(self) -> Progress:
        self._start = time.perf_counter()
        return self

    def __call__(self, what: str, share: float) -> None:
        """Show that `what` is being done, `share` (0 to 1) of the whole."""
        self._bar.update(self._task, description=what, completed=min(share, 1.0))
        if not self._shown and self._bar.console.is_terminal and time.perf_counter() - self._start > PATIENCE_S:
            self._bar.start()
            self._shown = True

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            self._bar.stop()
