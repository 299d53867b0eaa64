"""64 settings of a small network, 1 000 steps each: ours against plain loops, Ray Tune and Optuna.

All in one run, in turn, the same settings, steps and data, a score on the same held-out data at eight checks. Plain
loops run in one process with one thread (two threads of torch were slower); Ray Tune may use every core, a trial on
each; Optuna goes through the same settings with its default pruner, which stops what is worse than the median of those
before it. Ours twice: all curves to the end, and with halving to the winner. Medians of the repeats; wall and CPU time
(of this process and its ended children).

Targets: all curves 8, 3 and 1.7 times faster than plain loops in wall time, and faster than the others everywhere; the
winner by halving 3 times faster again, within 1 % accuracy of the best of all; memory no more than linear in lanes.
"""

import argparse
import logging
import multiprocessing
import os
import resource
import statistics
import sys
import time
import warnings

import torch
from race_problems import BATCH, CASES, SETTINGS, trained

from unstuck.race.contest import contest
from unstuck.race.grid import Setting, with_optimizer
from unstuck.race.heats import single_threaded
from unstuck.race.stack import Stack

AGAIN, NEAR = 3.0, 0.01
LINEAR = 1.3


def ours(case, steps, full):
    settings = [Setting(name, lr, BATCH) for name, lr in SETTINGS]
    ((_, results, executors),) = contest(case.problem(), settings, steps, 1, full)
    return {(r.setting.optimizer, r.setting.lr): r.score for r in results}, " ".join(executors.values())


def plain(case, steps):
    with single_threaded():
        return {setting: trained(case, *setting, steps) for setting in SETTINGS}, ""


def optuna_study(case, steps):
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    scores = {}

    def objective(trial):
        name, lr = SETTINGS[trial.suggest_int("place", 0, len(SETTINGS) - 1)]

        def told(step, accuracy):
            scores[name, lr] = accuracy
            trial.report(accuracy, step)
            if trial.should_prune():
                raise optuna.TrialPruned

        return trained(case, name, lr, steps, report=told)

    sampler = optuna.samplers.GridSampler({"place": list(range(len(SETTINGS)))}, seed=0)
    with single_threaded():
        optuna.create_study(direction="maximize", sampler=sampler).optimize(objective, n_trials=len(SETTINGS))
    return scores, "pruned"


def ray_tune(case, steps):
    from ray import tune

    def trainable(config):
        torch.set_num_threads(1)
        name, lr = SETTINGS[config["place"]]
        tune.report({"accuracy": trained(case, name, lr, steps), "place": config["place"]})

    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        param_space={"place": tune.grid_search(list(range(len(SETTINGS))))},
        run_config=tune.RunConfig(verbose=0),
    )
    found = {SETTINGS[r.metrics["place"]]: r.metrics["accuracy"] for r in tuner.fit()}
    return found, ""


def timed(work):
    """(wall seconds, CPU seconds of this process and its ended children, what it gave)."""
    before, began = _cpu(), time.perf_counter()
    found = work()
    return time.perf_counter() - began, _cpu() - before, found


def _cpu():
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in usage)


def raced(case, steps, repeats, lanes):
    """Medians of wall and CPU time of each way, and the scores of the last repeat."""
    ways = {
        "unstuck, all curves": lambda: ours(case, steps, True),
        "unstuck, halving": lambda: ours(case, steps, False),
        "plain loops": lambda: plain(case, steps),
        "Ray Tune": lambda: ray_tune(case, steps),
        "Optuna": lambda: optuna_study(case, steps),
    }
    times, found = {name: [] for name in ways if name in lanes}, {}
    for _ in range(repeats):
        for name in times:
            wall, cpu, found[name] = timed(ways[name])
            times[name].append((wall, cpu))
    return {name: tuple(map(statistics.median, zip(*each, strict=True))) for name, each in times.items()}, found


def memory(case):
    """Bytes that a lane more takes at the peak, from 256 to 512 lanes and on to 1 024; each in a fresh process."""
    spawned = multiprocessing.get_context("spawn")
    peaks = []
    for count in (256, 512, 1024):
        with spawned.Pool(1) as pool:
            peaks.append(pool.apply(lanes_peak, (case.name, count)))
    return (peaks[1] - peaks[0]) / 256, (peaks[2] - peaks[1]) / 512


def lanes_peak(name, count):
    """Peak resident bytes of a process that trained so many lanes."""
    torch.set_num_threads(1)
    problem = CASES[name]().problem()
    Stack([with_optimizer(problem, Setting("adam", 1e-3, BATCH))] * count).advance(8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def verdicts(case, times, found):
    """(met, words) of each target."""
    wall = {name: each[0] for name, each in times.items()}
    mine, fast = wall["unstuck, all curves"], wall["unstuck, halving"]
    yield wall["plain loops"] / mine >= case.target, f"{wall['plain loops'] / mine:.1f}x plain loops ({case.target:g})"
    for name in ("Ray Tune", "Optuna"):
        if name in wall:
            yield wall[name] > mine, f"{wall[name] / mine:.1f}x {name}"
    yield mine / fast >= AGAIN, f"halving {mine / fast:.1f}x again ({AGAIN:g})"
    best = max(found["unstuck, all curves"][0].values())
    winner = max(found["unstuck, halving"][0].values())
    yield winner >= best - NEAR, f"its winner {winner:.3f} of {best:.3f}"
    small, large = memory(case)
    said = f"memory a lane {small / 2**20:.2f} MiB of 512, {large / 2**20:.2f} of 1024"
    yield large <= LINEAR * max(small, 1e5), said


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--without", nargs="*", default=[], choices=["Ray Tune", "Optuna"], help="peers to leave out")
    options = parser.parse_args()
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0))))
    warnings.filterwarnings("ignore")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    logging.disable(logging.WARNING)
    lanes = {"unstuck, all curves", "unstuck, halving", "plain loops", "Ray Tune", "Optuna"} - set(options.without)
    if "Ray Tune" in lanes:
        import ray

        ray.init(logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
    passed = True
    for name in options.only:
        case = CASES[name]()
        times, found = raced(case, options.steps, options.repeats, lanes)
        print(f"\n{name}: {len(SETTINGS)} settings, {options.steps} steps, medians of {options.repeats}")
        for way, (wall, cpu) in times.items():
            scores, said = found[way]
            print(f"  {way:22}{wall:8.2f} s wall {cpu:8.2f} s CPU   best {max(scores.values()):.3f}   {said[:60]}")
        told = list(verdicts(case, times, found))
        passed &= all(met for met, _ in told)
        print(f"{name}: " + ", ".join(text if met else f"{text} MISSED" for met, text in told), flush=True)
    print(f"race: {'met' if passed else 'MISSED'}")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
