"""Nothing that dies ends a training, doubles it, or tears its curve. `benchmarks/kill_jobs.py` plays more rounds."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from tests.kill.job_ground import JobProduct, product_with_jobs
from tests.kill.job_rounds import CHILD, EVALUATING, NOBODY, PHASES, RUNNING, VALIDATING, VICTIMS, WORKER, JobRound

pytestmark = [pytest.mark.kill, pytest.mark.xdist_group("kill")]
# What matters most in each phase; the benchmark plays all of them.
ROUNDS = [
    *((victim, RUNNING) for victim in VICTIMS),
    *((victim, phase) for phase in (VALIDATING, EVALUATING) for victim in (CHILD, WORKER, "valkey")),
]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobProduct]:
    with product_with_jobs(tmp_path_factory.mktemp("kill-jobs")) as ground:
        yield ground


@pytest.mark.parametrize(("victim", "phase"), ROUNDS)
def test_job_outlives_whatever_is_killed(ground, victim, phase):
    outcome = JobRound(ground, victim=victim, phase=phase, rng=random.Random(f"{victim} {phase}")).play()
    assert not outcome.faults, str(outcome)


@pytest.mark.parametrize("victim", [NOBODY, WORKER])
@pytest.mark.parametrize("phase", PHASES)
def test_cancelled_job_ends_at_once_whoever_dies_meanwhile(ground, victim, phase):
    rng = random.Random(f"{victim} {phase}")
    outcome = JobRound(ground, victim=victim, phase=phase, rng=rng, is_cancelled=True).play()
    assert not outcome.faults, str(outcome)
