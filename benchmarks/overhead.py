"""What watching costs: the same training with and without `unstuck run`, in pairs of fresh processes.

The two of a pair run side by side, each on a core of its own, and change cores every tenth of a second: whatever else
slows this machine slows both. Both keep the memory they have had (`MALLOC_…`): else the C library may give the end of
its heap back and fetch it again at each step, by the chance of where objects lie, watched or not (seen on the CNN:
2 000 page faults or 240 000). On one core they run in turn. `--placebo` shows how far chance alone goes.

Target: the median ratio of the pairs is at most 1.02, in wall and in CPU time, for each training; and the losses and
the final state (parameters, gradients, buffers, optimizer, random-number generators) are the same to the last bit.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TRAINING = Path(__file__).with_name("overhead_training.py")
NAMES = ("mlp", "cnn", "transformer")
TARGET = 1.02
KEPT = {"MALLOC_TRIM_THRESHOLD_": str(2**30), "MALLOC_MMAP_THRESHOLD_": str(2**25)}
ENVIRONMENT = {**os.environ, **KEPT, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
TURN_S = 0.1


def start(command, folder):
    """The process of a training."""
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stdout=pipe, stderr=pipe, text=True)


def change_cores(processes, cores):
    """Let two processes run, each on one of two cores at a time, until both have ended."""
    while any(process.poll() is None for process in processes):
        for process, core in zip(processes, cores, strict=True):
            if process.poll() is None:
                os.sched_setaffinity(process.pid, {core})
        cores.reverse()
        time.sleep(TURN_S)


def result(process):
    """The JSON line that the training printed; a watched run prints its report after it."""
    out, err = process.communicate()
    lines = [line for line in out.splitlines() if line.startswith('{"wall_s"')]
    if process.returncode or not lines:
        sys.exit(f"{' '.join(process.args)}\nended with {process.returncode}:\n{out[-1000:]}{err[-3000:]}")
    return json.loads(lines[-1])


def pair(name, turn, options):
    """(unwatched, watched), side by side; in turn, the watched one first if `turn`."""
    training = [str(TRAINING), name, *(["--steps", str(options.steps)] if options.steps else [])]
    with tempfile.TemporaryDirectory() as folder:
        watch = ["-m", "unstuck", "run", "--no-cure", "--budget", "1s", "--out", f"{folder}/report"]
        plain = [sys.executable, *training]
        watched = plain if options.placebo else [sys.executable, *watch, *training]
        cores = sorted(os.sched_getaffinity(0))[:2] if hasattr(os, "sched_getaffinity") else []
        if len(cores) == 2:
            both = [start(command, folder) for command in (plain, watched)]
            change_cores(both, cores)
            return tuple(result(process) for process in both)
        order = (watched, plain) if turn else (plain, watched)
        results = [result(start(command, folder)) for command in order]
    return tuple(reversed(results)) if turn else tuple(results)


def measure(name, options):
    pairs = []
    for index in range(options.pairs):
        if sys.stderr.isatty():
            print(f"\r{name}: pair {index + 1} of {options.pairs}", end="\r", file=sys.stderr, flush=True)
        pairs.append(pair(name, index % 2, options))
    ratios = {key: sorted(watched[key] / plain[key] for plain, watched in pairs) for key in ("wall_s", "cpu_s")}
    plain = pairs[0][0]
    return {
        "name": name,
        "step_us": 1e6 * statistics.median(plain["cpu_s"] / plain["steps"] for plain, _ in pairs),
        "seconds": statistics.median(plain["wall_s"] for plain, _ in pairs),
        "share": statistics.median(side["cpu_s"] / side["wall_s"] for both in pairs for side in both),
        "wall": ratios["wall_s"],
        "cpu": ratios["cpu_s"],
        "identical": all(side[key] == plain[key] for both in pairs for side in both for key in ("state", "losses")),
    }


def spread(ratios):
    return f"{statistics.median(ratios):.3f} ({ratios[0]:.3f}-{ratios[-1]:.3f})"


def good(row):
    return row["identical"] and max(statistics.median(row["wall"]), statistics.median(row["cpu"])) <= TARGET


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--steps", type=int, help="shorter or longer trainings than the default of some 10 s")
    parser.add_argument("--placebo", action="store_true", help="unwatched on both sides: how far chance alone goes")
    return parser.parse_args()


def main():
    options = parse()
    print(f"{'training':12} {'step':>9} {'loop':>7}  {'wall, median (range)':22} {'CPU, median (range)':22} same state")
    rows = []
    for name in options.only:
        row = measure(name, options)
        rows.append(row)
        print(
            f"{name:12} {row['step_us']:6.0f} us {row['seconds']:5.1f} s  {spread(row['wall']):22} "
            f"{spread(row['cpu']):22} {'yes' if row['identical'] else 'NO'}",
            flush=True,
        )
    if min(row["share"] for row in rows) < 0.95:
        print("The machine was busy with other work: these wall times say little.")
    passed = all(map(good, rows))
    figures = ", ".join(
        f"{row['name']} wall {statistics.median(row['wall']):.3f} CPU {statistics.median(row['cpu']):.3f}"
        for row in rows
    )
    same = "identical" if all(row["identical"] for row in rows) else "NOT identical"
    print(f"overhead: {figures} (target {TARGET}), final states and losses {same}: {'met' if passed else 'MISSED'}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
