from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models_hub.engine.formats import Sampling
from models_hub.engine.sampling import COLDEST, SamplingProcessor, draw_token

LOGITS = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()


def draws(sampling: Sampling, count: int = 4000) -> dict[int, float]:
    counted = Counter(draw_token(LOGITS, sampling, position) for position in range(count))
    return {token: number / count for token, number in sorted(counted.items())}


def test_draws_follow_the_probabilities():
    assert draws(Sampling(seed=1)) == pytest.approx({0: 0.5, 1: 0.3, 2: 0.15, 3: 0.05}, abs=0.03)


def test_top_p_keeps_the_smallest_set_that_holds_it():
    assert draws(Sampling(top_p=0.79, seed=1)) == pytest.approx({0: 0.5 / 0.8, 1: 0.3 / 0.8}, abs=0.03)
    assert set(draws(Sampling(top_p=0.81, seed=1))) == {0, 1, 2}
    assert set(draws(Sampling(top_p=1e-9, seed=1))) == {0}


def test_temperature_sharpens_and_flattens():
    assert draws(Sampling(temperature=0.3, seed=1))[0] > 0.8
    assert draws(Sampling(temperature=2.0, seed=1))[0] < 0.45


def test_same_seed_and_position_draw_the_same():
    flat = torch.zeros(1000)
    first = [draw_token(flat, Sampling(seed=5), position) for position in range(20)]
    assert first == [draw_token(flat, Sampling(seed=5), position) for position in range(20)]
    assert first != [draw_token(flat, Sampling(seed=6), position) for position in range(20)]
    assert len(set(first)) > 10


def test_flat_distribution_is_searched_beyond_the_first_look():
    flat = torch.zeros(2000)
    drawn = {draw_token(flat, Sampling(top_p=0.99, seed=3), position) for position in range(500)}
    assert max(drawn) > 1000


@given(
    st.floats(COLDEST, 2),
    st.floats(0, 1, exclude_min=True),
    st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=50),
)
def test_whatever_the_numbers_a_token_of_the_vocabulary_is_drawn(temperature, top_p, logits):
    token = draw_token(torch.tensor(logits), Sampling(temperature=temperature, top_p=top_p, seed=0), 0)
    assert 0 <= token < len(logits)


def test_broken_model_draws_a_token_instead_of_ending_the_loop():
    assert 0 <= draw_token(torch.full((10,), torch.nan), Sampling(top_p=0.5), 0) < 10


def request_with(sampling: Sampling | None) -> SimpleNamespace:
    kwargs = {"sampling": sampling} if sampling else {}
    state = SimpleNamespace(logit_processor_kwargs=kwargs, initial_tokens=[1, 2], generated_tokens=[3])
    return SimpleNamespace(state=state)


def test_greedy_rows_are_left_as_they_are():
    steps: list[None] = []
    processor = SamplingProcessor(lambda: steps.append(None))
    arguments = processor.prepare_tensor_args(
        [request_with(Sampling(temperature=0)), request_with(Sampling(seed=1)), request_with(None)]
    )
    scores = processor(LOGITS.repeat(3, 1).clone(), arguments)
    assert len(steps) == 1
    assert torch.equal(scores[0], LOGITS)
    assert torch.equal(scores[2], LOGITS)
    assert int(scores[1].argmax()) == draw_token(LOGITS, Sampling(seed=1), 3)
