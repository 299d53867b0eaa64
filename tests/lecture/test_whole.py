"""The whole lecture, as `make lecture` makes it: every claim holds, and a browser opens the page without a word."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from unstuck.lecture.experiments import IDS, perform
from unstuck.report.lecture import outcome, write

if TYPE_CHECKING:
    from conftest import Seen


def test_every_claim_holds_and_every_chart_is_drawn(tmp_path: Path, browse: Callable[[str], Seen]) -> None:
    lecture = perform(IDS, "en")
    held = {claim.says: claim.held for one in lecture.experiments for claim in one.claims if one.id != "batch-clock"}
    assert len(held) > 80 and all(held.values()), [says for says, true in held.items() if not true]
    assert outcome(lecture) is not False  # on a busy machine the clock's errors may leave its claims open
    _, path = write(lecture, tmp_path)
    seen = browse(path.read_text(encoding="utf-8"))
    charts = sum(len(one.charts) for one in lecture.experiments)
    assert seen.dom.count('class="chart js-plotly-plot"') == charts
    assert not seen.console
