"""What a race has finished, in a file of its run's folder: one that was killed goes on from there.

    ledger = Ledger(folder / "race.sqlite", named(problem, settings, 500, False))
    ledger.known(0)                 # the results with seed 0, or None
    ledger.write(0, results, executors)
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import astuple
from pathlib import Path

from unstuck.errors import BadArgument
from unstuck.problem import Problem
from unstuck.race.contest import Result
from unstuck.race.grid import Setting
from unstuck.tape import tensors_in


def named(problem: Problem, settings: Sequence[Setting], steps: int, full: bool) -> str:
    """What names this very race: its start, its data and what it tries. The number of seeds may grow."""
    digest = hashlib.sha256(repr((sorted(problem.loop.training.items()), list(settings), steps, full)).encode())
    for tensor in (*problem.model.state_dict().values(), *(t for batch in problem.data for t in tensors_in(batch))):
        digest.update(tensor.detach().cpu().contiguous().flatten().view(-1).numpy().tobytes())
    return digest.hexdigest()


class Ledger:
    """Results by seed in an SQLite file. Raises BadArgument where the file belongs to another race."""

    def __init__(self, path: Path, name: str) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(self._open()) as file, file:
                file.execute("CREATE TABLE IF NOT EXISTS race (name TEXT)")
                columns = "seed INTEGER PRIMARY KEY, results TEXT, executors TEXT"
                file.execute(f"CREATE TABLE IF NOT EXISTS seeds ({columns})")
                found = file.execute("SELECT name FROM race").fetchone()
                if found is None:
                    file.execute("INSERT INTO race VALUES (?)", (name,))
        except sqlite3.DatabaseError as error:
            raise BadArgument(f"race: {str(path)!r} is no record of a race ({error}); give another --out") from None
        if found is not None and found[0] != name:
            raise BadArgument(
                f"race: {str(path.parent)!r} holds another race (other settings, data or start); give another --out, "
                "or the same settings to go on with it"
            )

    def known(self, seed: int) -> list[Result] | None:
        """The results with this seed, or None where it was not finished."""
        row = self._row(seed, "results")
        return None if row is None else [_result(entry) for entry in json.loads(row)]

    def executors(self, seed: int) -> dict[str, str]:
        """Who trained the lanes with this seed."""
        row = self._row(seed, "executors")
        return {} if row is None else dict(json.loads(row))

    def write(self, seed: int, results: Sequence[Result], executors: dict[str, str]) -> None:
        """Note what was finished."""
        with closing(self._open()) as file, file:
            row = (seed, json.dumps([astuple(result) for result in results]), json.dumps(executors))
            file.execute("INSERT OR REPLACE INTO seeds VALUES (?, ?, ?)", row)

    def _row(self, seed: int, column: str) -> str | None:
        with closing(self._open()) as file:
            row = file.execute(f"SELECT {column} FROM seeds WHERE seed = ?", (seed,)).fetchone()
        return None if row is None else str(row[0])

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path)


def _result(entry: list[object]) -> Result:
    setting, seed, steps, train, held_out, diverged = entry
    assert isinstance(setting, list) and isinstance(seed, int)
    assert isinstance(steps, list) and isinstance(train, list) and isinstance(held_out, list)
    return Result(Setting(*setting), seed, tuple(steps), tuple(train), tuple(held_out), bool(diverged))
