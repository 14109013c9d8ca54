from __future__ import annotations

import pytest
import torch

from models_hub.engine import threads
from models_hub.engine.threads import ThreadGovernor, choose_threads


@pytest.mark.parametrize(
    ("most", "others", "current", "expected"),
    [
        (2, 0.0, 2, 2),
        (2, 0.0, 1, 2),  # the machine is ours again
        (2, 0.2, 1, 1),  # between quiet and busy nothing changes
        (2, 0.2, 2, 2),
        (2, 0.3, 2, 1),
        (2, 5.0, 2, 1),  # never none
        (1, 5.0, 1, 1),
        (8, 2.5, 8, 5),
        (8, 0.0, 5, 8),
    ],
)
def test_threads_follow_what_others_use(most, others, current, expected):
    assert choose_threads(most, others, current) == expected


@pytest.fixture
def clock(monkeypatch):
    """Seconds, and cores' worth of seconds that others have used, as the test sets them."""
    before = torch.get_num_threads()
    now = {"time": 0.0, "others": 0.0}
    monkeypatch.setattr(threads.time, "monotonic", lambda: now["time"])
    monkeypatch.setattr(threads, "read_cpu_seconds", lambda: now["others"])
    yield now
    torch.set_num_threads(before)


def test_governor_gives_way_and_takes_back(clock):
    torch.set_num_threads(2)
    governor = ThreadGovernor(2)
    clock.update(time=1.0, others=1.0)
    governor.adjust()
    assert torch.get_num_threads() == 1
    clock.update(time=2.0, others=1.0)
    governor.adjust()
    assert torch.get_num_threads() == 2


def test_governor_looks_rarely_and_never_judges_by_a_pause(clock):
    torch.set_num_threads(2)
    governor = ThreadGovernor(2)
    clock.update(time=0.1, others=0.1)
    governor.adjust()
    clock.update(time=60.0, others=60.0)
    governor.adjust()
    assert torch.get_num_threads() == 2


def test_what_others_use_grows_and_is_not_what_this_process_uses():
    first = threads.read_cpu_seconds()
    if first is None:
        pytest.skip("this system has no /proc/stat")
    assert first > 0
    assert threads.read_cpu_seconds() >= first - 0.5
