from __future__ import annotations

import random
from collections import Counter, defaultdict

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from finetuning.formats.splits import TRAIN, SplitItem, assign_splits

untimed = settings(deadline=None)
items = st.lists(
    st.builds(
        SplitItem,
        st.text("0123456789abcdef", min_size=4, max_size=4),
        st.sampled_from(["", "x", "y", "z"]),
        st.sampled_from(["", "pos", "neg"]),
    ),
    max_size=40,
)


# The same text under two labels.
LABELLED_TWICE = [("0000", ""), ("0000", "pos"), ("0001", "pos"), ("0002", "pos"), ("0003", "")]


def make_items(count: int, *, labels: str = "abc", group_size: int = 1) -> list[SplitItem]:
    return [
        SplitItem(f"{n:04x}", str(n // group_size) if group_size > 1 else "", labels[n // group_size % len(labels)])
        for n in range(count)
    ]


@untimed
@given(items, st.integers(0, 5), st.randoms())
@example([SplitItem(content_hash, label=label) for content_hash, label in LABELLED_TWICE], 0, random.Random(0))
def test_groups_stay_whole_and_the_order_of_rows_does_not_matter(rows, seed, shuffler):
    splits = assign_splits(rows, seed=seed)
    of_group = defaultdict(set)
    for row, split in zip(rows, splits, strict=True):
        of_group[row.key].add(split)
    assert all(len(found) == 1 for found in of_group.values())
    order = list(range(len(rows)))
    shuffler.shuffle(order)
    again = assign_splits([rows[n] for n in order], seed=seed)
    assert again == [splits[n] for n in order]
    if len(of_group) > 1:
        assert set(splits) == {TRAIN, "validation"}
    else:
        assert set(splits) <= {TRAIN}


@pytest.mark.parametrize("count", [20, 137, 1000])
def test_every_label_keeps_its_share(count):
    rows = make_items(count, labels="aaaaaabbbc")
    splits = assign_splits(rows, seed=1, shares={"validation": 0.1, "test": 0.2})
    counts = Counter(zip((row.label for row in rows), splits, strict=True))
    of_label = Counter(row.label for row in rows)
    for label, total in of_label.items():
        assert abs(counts[label, "validation"] - total * 0.1) <= 1.5
        assert abs(counts[label, "test"] - total * 0.2) <= 1.5
    assert abs(splits.count("validation") - count * 0.1) <= 1


def test_uneven_groups_come_near_the_share():
    chance = random.Random(3)
    rows = [SplitItem(f"{n}", f"g{int(chance.expovariate(1 / 40))}") for n in range(2000)]
    share = assign_splits(rows, seed=0).count("validation") / 2000
    assert 0.08 < share < 0.12


def test_one_seed_gives_one_split_and_another_seed_another():
    rows = make_items(100, group_size=3)
    assert assign_splits(rows, seed=1) == assign_splits(rows, seed=1) != assign_splits(rows, seed=2)


def test_more_rows_leave_most_of_the_others_where_they_were():
    before = assign_splits(make_items(1000), seed=1)
    after = assign_splits(make_items(1030), seed=1)
    assert sum(left == right for left, right in zip(before, after, strict=False)) > 980


def test_equal_rows_without_a_group_share_a_split():
    rows = [SplitItem("same"), SplitItem("same"), *make_items(10)]
    splits = assign_splits(rows, seed=0, shares={"validation": 0.5})
    assert splits[0] == splits[1]


def test_a_label_seen_once_is_for_training():
    rows = [*make_items(50, labels="a"), SplitItem("ffff", label="rare")]
    assert all(assign_splits(rows, seed=seed)[-1] == TRAIN for seed in range(20))


def test_large_shares_leave_every_label_something_to_train():
    rows = make_items(9)
    splits = assign_splits(rows, seed=0, shares={"validation": 0.9})
    assert {row.label for row, split in zip(rows, splits, strict=True) if split == TRAIN} == set("abc")


@pytest.mark.parametrize("shares", [{"validation": 1.0}, {"validation": -0.1}, {"a": 0.5, "b": 0.5}])
def test_shares_that_leave_nothing_are_refused(shares):
    with pytest.raises(ValueError, match="shares"):
        assign_splits(make_items(10), seed=0, shares=shares)


def test_no_share_means_no_held_out_rows():
    assert set(assign_splits(make_items(10), seed=0, shares={})) == {TRAIN}
    assert set(assign_splits(make_items(10), seed=0, shares={"validation": 0})) == {TRAIN}
