"""Kills parts of the whole product while it trains, round after round: `python benchmarks/kill_jobs.py --rounds 50`.

A line a round, a summary at the end; exit status 1 when a job ended wrongly or a promise was broken.
"""

from __future__ import annotations

import argparse
import random
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.kill.job_ground import JobProduct, product_with_jobs
from tests.kill.job_rounds import NOBODY, PHASES, VICTIMS, JobRound, Outcome

# Of the rounds, how many are cancelled in the moment of the kill.
CANCELLED_SHARE = 0.3


def play(ground: JobProduct, *, rounds: int, seed: int, victims: list[str]) -> list[Outcome]:
    rng = random.Random(seed)
    wanted = [(victim, phase) for victim in victims for phase in PHASES]
    outcomes = []
    for number in range(rounds):
        if number % len(wanted) == 0:
            rng.shuffle(wanted)
        victim, phase = wanted[number % len(wanted)]
        is_cancelled = victim == NOBODY or rng.random() < CANCELLED_SHARE
        outcome = JobRound(ground, victim=victim, phase=phase, rng=rng, is_cancelled=is_cancelled).play()
        print(f"{number + 1:>3}  {outcome}", flush=True)
        outcomes.append(outcome)
    return outcomes


def summarize(outcomes: list[Outcome]) -> None:
    for is_cancelled, what in ((False, "succeeded"), (True, "cancelled")):
        seconds = sorted(outcome.seconds for outcome in outcomes if outcome.is_cancelled == is_cancelled)
        if seconds:
            print(f"{what}: {len(seconds)} rounds, median {statistics.median(seconds):.1f} s, most {seconds[-1]:.1f} s")
    print(f"{len(outcomes)} rounds, {sum(bool(outcome.faults) for outcome in outcomes)} with a fault")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=36)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--victims", nargs="+", choices=[*VICTIMS, NOBODY], default=[*VICTIMS, NOBODY])
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the product is stopped, too
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dialoop-kill-") as folder, product_with_jobs(Path(folder)) as ground:
        outcomes = play(ground, rounds=options.rounds, seed=options.seed, victims=options.victims)
    summarize(outcomes)
    print(f"{time.monotonic() - started:.0f} s in all, seed {options.seed}")
    sys.exit(any(outcome.faults for outcome in outcomes))


if __name__ == "__main__":
    main()
