"""What a cause means, in plain words: the texts of the rules."""

from __future__ import annotations

from rich.table import Table

from unstuck.rules import RULES


def page(cause: str) -> str | None:
    """The text of one cause; None where there is none of that name."""
    rule = next((rule for rule in RULES if rule.cause == cause), None)
    if rule is None:
        return None
    return f"{rule.cause}\n\n{rule.lesson}\n\nHow it is told: {rule.told_by}\n\nWhat cures it: {rule.cures}\n"


def table() -> Table:
    """All causes with the first sentence of their lesson."""
    listed = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for rule in RULES:
        listed.add_row(rule.cause, rule.lesson.split(". ")[0].rstrip(".") + ".")
    return listed
