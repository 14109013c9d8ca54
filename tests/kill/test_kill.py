"""Nothing that dies takes a word with it. `benchmarks/kill.py` plays a hundred such rounds."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pytest

from tests.kill.browser import Browser, is_installed
from tests.kill.ground import cookie_of, running_product, signed_in
from tests.kill.rounds import BROWSER, VICTIMS, Round
from tests.support.product import Product

pytestmark = [pytest.mark.kill, pytest.mark.xdist_group("kill")]
TIMES = 2


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    with running_product(tmp_path_factory.mktemp("kill")) as product:
        yield product


@pytest.fixture
async def person(product: Product) -> AsyncIterator[tuple]:
    """A session of somebody signed in, and his browser where there is one."""
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(signed_in(product.address))
        browser = Browser(product.address, cookie_of(session, "sessionid")) if is_installed() else None
        yield session, browser and await stack.enter_async_context(browser)


@pytest.mark.parametrize("time", range(TIMES))
@pytest.mark.parametrize("victim", VICTIMS)
async def test_a_kill_costs_no_word_and_no_message(product, person, victim, time):
    session, browser = person
    if victim == BROWSER and browser is None:
        pytest.skip("Chromium is not installed")
    outcome = await Round(product, session, browser, victim=victim, rng=random.Random(f"{victim} {time}")).play()
    assert not outcome.faults, str(outcome)
    if victim != "engine":  # how fast a model loads is the machine's affair, and the benchmark's
        assert not outcome.late, str(outcome)
