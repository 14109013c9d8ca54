"""The order of rows is grouped, seeded, complete, and the same however a step is split."""

from __future__ import annotations

import random

from finetuning.training.batching import BatchOrder, split_by_length

LENGTHS = [random.Random(p).randint(5, 200) for p in range(403)]


def order(**changes) -> BatchOrder:
    return BatchOrder(LENGTHS, **{"batch_size": 4, "accumulation_steps": 2, "seed": 1} | changes)


def rows(batches) -> list[int]:
    return [row for batch in batches for row in batch]


def test_every_row_comes_once_an_epoch():
    plan = order()
    for epoch in range(2):
        steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
        assert sorted(row for step in steps for row in rows(plan.batches(step))) == list(range(len(LENGTHS)))


def test_any_step_is_known_without_running_the_others():
    whole = [order().batches(step) for step in range(120)]
    plan = order()
    assert [plan.batches(step) for step in reversed(range(120))] == whole[::-1]


def test_epochs_and_seeds_differ():
    plan = order()
    assert plan.batches(0) != plan.batches(plan.steps_per_epoch)
    assert plan.batches(0) != order(seed=2).batches(0)


def test_step_holds_the_same_rows_however_it_is_split():
    one, four = order(batch_size=8, accumulation_steps=1), order(batch_size=2, accumulation_steps=4)
    for step in range(one.steps_per_epoch):
        assert rows(one.batches(step)) == rows(four.batches(step))
        assert len(four.batches(step)) <= 4


def test_grouping_leaves_little_padding():
    tokens = sum(LENGTHS)
    plan = order()
    assert plan.padded_tokens(plan.steps_per_epoch) < 1.15 * tokens
    shuffled = random.Random(1).sample(range(403), 403)
    ungrouped = [shuffled[start : start + 4] for start in range(0, 403, 4)]
    assert sum(len(batch) * max(LENGTHS[row] for row in batch) for batch in ungrouped) > 1.4 * tokens


def test_batches_of_one_epoch_are_not_sorted_by_length():
    plan = order()
    longest = [LENGTHS[plan.batches(step)[0][0]] for step in range(plan.steps_per_epoch)]
    assert longest != sorted(longest) and longest != sorted(longest, reverse=True)


def test_longest_batch_holds_the_longest_rows():
    assert sorted(LENGTHS[row] for row in order().longest_batch()) == sorted(LENGTHS)[-4:]


def test_evaluation_batches_hold_every_row_once():
    batches = split_by_length(range(403), LENGTHS, batch_size=10)
    assert sorted(rows(batches)) == list(range(403)) and max(map(len, batches)) == 10
