from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from finetuning.formats import ClassificationExample, KtoExample, Message, PreferenceExample, TextExample
from finetuning.formats.measures import (
    get_label,
    measure_labels,
    measure_length,
    measure_length_bias,
    measure_lengths,
)

untimed = settings(deadline=None)
HI = (Message("user", "Hi"),)


def answer(text: str) -> tuple[Message, ...]:
    return (Message("assistant", text),)


def test_labels_and_lengths_of_examples():
    assert get_label(ClassificationExample("Fine", "pos")) == "pos"
    assert [get_label(KtoExample(HI, answer("Yo"), good)) for good in (True, False)] == ["desirable", "undesirable"]
    assert get_label(TextExample("Once")) == ""
    assert measure_length(PreferenceExample(HI, answer("abc"), answer("d"))) == 6


def test_balance_counts_the_most_frequent_first():
    balance = measure_labels(["b", "a", "b", "c", "c"])
    assert list(balance.counts.items()) == [("b", 2), ("c", 2), ("a", 1)]
    assert (balance.total, balance.majority_share) == (5, 0.4)
    assert [problem.code for problem in balance.warnings] == ["rare_label"]


def test_balance_warns_of_what_cannot_be_learned():
    assert [problem.code for problem in measure_labels(["a"] * 5).warnings] == ["one_class"]
    assert [problem.code for problem in measure_labels(["a"] * 99 + ["b"] * 2).warnings] == ["lopsided_labels"]
    assert measure_labels([]).warnings == []
    assert measure_labels(["a", "b"] * 5).warnings == []


@untimed
@given(st.lists(st.integers(0, 5000), min_size=1, max_size=200), st.integers(1, 30))
def test_a_histogram_counts_everything_once(lengths, max_bins):
    found = measure_lengths(lengths, max_bins=max_bins)
    assert len(found.bins) <= max_bins and found.count == len(lengths)
    assert [part.count for part in found.bins] == [
        sum(part.start <= length < part.end for length in lengths) for part in found.bins
    ]
    assert sum(part.count for part in found.bins) == len(lengths)
    assert (found.minimum, found.maximum) == (min(lengths), max(lengths))
    ordered = sorted(lengths)
    for percent, value in ((50, found.median), (95, found.p95), (99, found.p99)):
        assert value == ordered[-(-percent * len(lengths) // 100) - 1]


def test_no_rows_have_an_empty_histogram():
    assert measure_lengths([]).bins == []


def test_length_bias_of_pairs_is_told():
    longer, shorter = answer("a long answer"), answer("short")
    pairs = [PreferenceExample(HI, longer, shorter)] * 9 + [PreferenceExample(HI, shorter, longer)]
    share, warnings = measure_length_bias(pairs)
    assert share == 0.9 and "longer" in warnings[0].message
    assert "shorter" in measure_length_bias([PreferenceExample(HI, shorter, longer)])[1][0].message
    assert measure_length_bias([pairs[0], pairs[-1]]) == (0.5, [])
    assert measure_length_bias([]) == (0.5, [])
