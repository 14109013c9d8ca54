"""Kills parts of the whole product while replies stream, round after round: `python benchmarks/kill.py --rounds 100`.

A line a round, a summary at the end; exit status 1 when a word was lost or a promise broken.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.kill.browser import Browser
from tests.kill.ground import cookie_of, running_product, signed_in
from tests.kill.rounds import VICTIMS, Outcome, Round
from tests.support.product import Product


async def play(product: Product, *, rounds: int, seed: int, victims: list[str]) -> list[Outcome]:
    rng = random.Random(seed)
    outcomes = []
    async with (
        signed_in(product.address) as session,
        Browser(product.address, cookie_of(session, "sessionid")) as browser,
    ):
        for number in range(rounds):
            if number % len(victims) == 0:
                rng.shuffle(victims)
            victim = victims[number % len(victims)]
            outcome = await Round(product, session, browser, victim=victim, rng=rng).play()
            print(f"{number + 1:>3}  {outcome}", flush=True)
            outcomes.append(outcome)
    return outcomes


def summarize(outcomes: list[Outcome]) -> None:
    for victim in sorted({outcome.victim for outcome in outcomes}):
        of_it = [outcome for outcome in outcomes if outcome.victim == victim]
        print(f"{victim:<15} {len(of_it):>3} rounds   back {spread([outcome.back for outcome in of_it])}")
        print(f"{'':<15}              next message {spread([outcome.works for outcome in of_it])}")
        if said := [outcome.said for outcome in of_it if outcome.said is not None]:
            print(f"{'':<15}              interrupted said after that {spread(said)}")
    replies = sum(outcome.statuses.total() for outcome in outcomes)
    faulty, late = sum(bool(outcome.faults) for outcome in outcomes), sum(bool(outcome.late) for outcome in outcomes)
    print(f"{len(outcomes)} rounds, {replies} replies: {faulty} rounds with a fault, {late} too late")


def spread(values: list[float]) -> str:
    ordered = sorted(values)
    at = [ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.9, 0.95)]
    return f"median {statistics.median(ordered):5.2f}  90 % {at[0]:5.2f}  95 % {at[1]:5.2f}  most {ordered[-1]:5.2f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--victims", nargs="+", choices=VICTIMS, default=list(VICTIMS))
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the product is stopped, too
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="dialoop-kill-") as folder, running_product(Path(folder)) as product:
        outcomes = asyncio.run(play(product, rounds=options.rounds, seed=options.seed, victims=options.victims))
    summarize(outcomes)
    print(f"{time.monotonic() - started:.0f} s in all, seed {options.seed}")
    sys.exit(any(outcome.faults or outcome.late for outcome in outcomes))


if __name__ == "__main__":
    main()
