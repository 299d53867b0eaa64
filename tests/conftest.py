"""One thread for everything (two workers share two cores, and sums are then the same on every run), and a browser."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

torch.set_num_threads(1)

QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=15000",
)


class Seen(NamedTuple):
    """What a browser made of a page: its elements after all scripts ran, and what it wrote to its console."""

    dom: str
    console: list[str]


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def browse(tmp_path: Path) -> Callable[[str], Seen]:
    """Opens a page in headless Chromium, without a network."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("needs Chromium to open the page: apt-get install chromium")

    def browse(page: str) -> Seen:
        path = tmp_path / "page.html"
        path.write_text(page, encoding="utf-8")
        call = [chromium, *QUIET, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", path.as_uri()]
        done = subprocess.run(call, capture_output=True, text=True, timeout=120, check=True)
        return Seen(done.stdout, [line for line in done.stderr.splitlines() if ":CONSOLE" in line])

    return browse
