"""What is achievable on texts: tables of the commonest next token after the last one, two, … ids.

Counted on the training rows; a context that these never showed falls back to shorter ones, in the end to the commonest
token of all. No smoothing: asked for one token, the commonest is the best answer that counts can give.
"""

from __future__ import annotations

from collections import Counter

from unstuck.probes.table import CONTEXT, Table


def ngrams(train: Table, held: Table) -> list[tuple[str, float, float]]:
    """Name, score on the training rows and on the held-out ones of each table, the shortest contexts first."""
    tables = [_counted(train, order) for order in range(CONTEXT + 1)]
    names = ("unigram table", "bigram table", "trigram table", "4-gram table")
    return [
        (names[order], _looked_up(tables[: order + 1], train), _looked_up(tables[: order + 1], held))
        for order in range(1, CONTEXT + 1)
    ]


def _counted(train: Table, order: int) -> dict[tuple[int, ...], int]:
    counts: dict[tuple[int, ...], Counter[int]] = {}
    for context, target in zip(train.inputs[:, CONTEXT - order :].tolist(), train.targets.tolist(), strict=True):
        counts.setdefault(tuple(context), Counter())[target] += 1
    return {context: counter.most_common(1)[0][0] for context, counter in counts.items()}


def _looked_up(tables: list[dict[tuple[int, ...], int]], table: Table) -> float:
    right = 0
    for context, target in zip(table.inputs.tolist(), table.targets.tolist(), strict=True):
        for order in reversed(range(len(tables))):
            found = tables[order].get(tuple(context[CONTEXT - order :]))
            if found is not None:
                right += found == target
                break
    return right / max(len(table), 1)
