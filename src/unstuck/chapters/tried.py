"""A measurement of a chapter, or why it could not be made: the user's own model runs inside, and may raise anything."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from unstuck.errors import UnstuckError

T = TypeVar("T")


def tried(measure: Callable[[], T], missing: list[str]) -> T | None:
    """What `measure` gives; None where it fails, with the reason added to `missing`."""
    try:
        return measure()
    except Exception as error:
        why = str(error) if isinstance(error, UnstuckError) else f"{type(error).__name__}: {error}"
        missing.append(f"Not measured: {why}.")
        return None
