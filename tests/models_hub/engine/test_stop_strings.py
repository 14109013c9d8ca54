from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from models_hub.engine.stop_strings import StopStrings

LETTERS = st.text("abc", max_size=30)
STOPS = st.lists(st.text("abc", min_size=1, max_size=4), min_size=0, max_size=4)


def first_hit(text: str, stops: list[str]) -> int | None:
    hits = [text.find(stop) for stop in stops if stop in text]
    return min(hits) if hits else None


@given(LETTERS, STOPS)
def test_letter_by_letter_the_text_ends_before_the_stop_that_is_complete_first(text, stops):
    filter_ = StopStrings(stops)
    shown = ""
    for end, letter in enumerate(text, start=1):
        shown += filter_.feed(letter)
        if filter_.found:
            assert shown == text[: first_hit(text[:end], stops)]
            assert first_hit(text[: end - 1], stops) is None
            return
    assert first_hit(text, stops) is None
    assert shown + filter_.finish() == text


@given(st.lists(LETTERS, max_size=8), STOPS)
def test_no_part_of_a_stop_is_ever_shown(pieces, stops):
    filter_ = StopStrings(stops)
    shown = "".join(filter_.feed(piece) for piece in pieces)
    assert first_hit(shown, stops) is None
    text = "".join(pieces)
    assert text.startswith(shown)
    assert filter_.found == (first_hit(text, stops) is not None)


@given(LETTERS, STOPS)
def test_only_what_may_become_a_stop_is_held_back(text, stops):
    filter_ = StopStrings(stops)
    shown = filter_.feed(text)
    if not filter_.found:
        held = text[len(shown) :]
        assert held == "" or any(stop.startswith(held) for stop in stops)


def test_stop_across_pieces_is_found_and_false_beginnings_are_shown():
    filter_ = StopStrings(["END"])
    assert [filter_.feed(piece) for piece in ("aE", "Nx", "E", "N", "D", "more")] == ["a", "ENx", "", "", "", ""]
    assert filter_.found
    assert filter_.finish() == ""
