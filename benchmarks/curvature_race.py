"""The lanes of one task, in turn in one process: time, error, and why a lane is out.

A lane that fails, is wrong or runs over the limit in its first repeat is not repeated, nor is a peer that takes more
than twice as long as the fastest right one of its kind: it decides nothing.
"""

import contextlib
import gc
import math
import signal
import statistics
import time
from dataclasses import dataclass, field

from curvature_peers import Peer, Unable, helping, helps, silent, subject

SLOW = 2.0
TRIALS = 6


@dataclass
class Lane:
    """One way to the answer, and what came of it. `steps`: the number of iterations it is told."""

    peer: Peer
    help: tuple = ()
    steps: int = 0
    cpu: list = field(default_factory=list)
    wall: list = field(default_factory=list)
    errors: list = field(default_factory=list)
    right: bool = True
    able: bool = True
    why: str = ""

    @property
    def good(self):
        return self.right and bool(self.cpu) and not self.why

    @property
    def median(self):
        return statistics.median(self.cpu)

    def note(self, cpu, wall, errors, right):
        self.cpu.append(cpu)
        self.wall.append(wall)
        self.errors.append(max(errors))
        self.right = self.right and right


class OverLimit(Exception):
    """More CPU time than a repeat may take."""


@contextlib.contextmanager
def limited(seconds):
    """Raise OverLimit after so much CPU time."""

    def over(*_):
        raise OverLimit

    before = signal.signal(signal.SIGPROF, over)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def race(case, task, ours, peers, truth, options, tell):
    """All lanes of a task: ours first, then each peer as it comes, and with help where that is not right."""
    first = Lane(ours)
    run(first, case, task, 0, truth, math.inf)
    limit = max(options.limit, 6 * first.median) if first.cpu else options.limit
    lanes = [first]
    for peer in peers:
        lanes.append(Lane(peer, steps=truth.steps[task.want]))
        tell(f"{case.name}, {task.title}: {peer.name}, {peer.stop}")
        run(lanes[-1], case, task, 0, truth, limit)
        if lanes[-1].able and not lanes[-1].good and helps(peer, case):
            lanes.append(Lane(peer, helps(peer, case), steps=truth.steps[task.want]))
            run(lanes[-1], case, task, 0, truth, limit)
    for lane in contenders(lanes):
        for seed in range(1, options.repeats):
            tell(f"{case.name}, {task.title}: {lane.peer.name}, {lane.peer.stop}, repeat {seed + 1}")
            run(lane, case, task, seed, truth, limit)
    return lanes


def contenders(lanes):
    """Ours, and the peers that are right and not far behind the fastest of their kind."""
    quickest = {stop: fastest(lanes, stop) for stop in ("own", "given")}
    return [
        lane
        for lane in lanes
        if lane is lanes[0] or (lane.good and lane.median <= SLOW * quickest[lane.peer.stop].median)
    ]


def run(lane, case, task, seed, truth, limit):
    """One repeat of a lane, noted in it. One that is told its iterations and misses by a little is told some more."""
    for _ in range(TRIALS if lane.peer.stop == "given" else 1):
        solved = _timed(lane, case, task, seed, limit)
        if solved is None:
            return
        cpu, wall, values = solved
        right = truth.right(task, values)
        if right:
            break
        lane.steps += 1 + lane.steps // 20
    lane.note(cpu, wall, truth.errors(task.want, values), right)


def _timed(lane, case, task, seed, limit):
    """(CPU seconds, wall seconds, values), or None where it came to nothing: the lane says why."""
    gc.collect()
    its = case if lane.peer.stop == "ours" else subject(case, lane.help)
    try:
        with helping(lane.help), silent(), limited(0 if limit == math.inf else limit):
            cpu, wall = time.process_time(), time.perf_counter()
            values = lane.peer.solve(its, task, seed, lane.steps)
            return time.process_time() - cpu, time.perf_counter() - wall, values
    except OverLimit:
        lane.why = f"over the limit of {limit:.0f} s"
    except Unable as error:
        lane.why, lane.able = str(error), False
    except Exception as error:  # whatever a peer raises is its result
        lane.why = f"fails: {type(error).__name__}: {str(error).strip()}".splitlines()[0]
    return None


def fastest(lanes, stop, help=True):
    """The fastest right peer of a kind (with `help` also those that were given a hand), or None."""
    right = [lane for lane in lanes if lane.peer.stop == stop and lane.good and (help or not lane.help)]
    return min(right, key=lambda lane: lane.median, default=None)


def ratio(lanes, stop, help=True):
    """How many times faster ours is than the fastest right peer of a kind; infinite where there is none."""
    peer = fastest(lanes, stop, help)
    return peer.median / lanes[0].median if peer and lanes[0].cpu else math.inf
