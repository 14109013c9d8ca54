from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from finetuning.formats import TextExample
from finetuning.formats.hashing import DuplicateFilter, diff_versions, drop_duplicates, hash_version

untimed = settings(deadline=None)
hashes = st.lists(st.sampled_from("abcdef"), max_size=12)


def test_of_exact_duplicates_the_first_is_kept():
    examples = [TextExample(text) for text in ("a", "b", "a", "A", "a ")]
    assert [example.text for example in drop_duplicates(examples)] == ["a", "b", "A", "a "]


def test_a_filter_knows_what_it_was_given():
    one, two = (TextExample(text).content_hash() for text in "ab")
    duplicates = DuplicateFilter([one])
    assert [duplicates.is_new(one), duplicates.is_new(two), duplicates.is_new(two)] == [False, True, False]


@untimed
@given(hashes, hashes)
def test_versions_are_equal_when_their_hashes_are(left, right):
    assert (hash_version(left) == hash_version(right)) == (left == right)


def test_a_version_depends_on_its_splits_and_never_changes():
    plain, train, held_out = hash_version("ab"), hash_version("ab", splits="tt"), hash_version("ab", splits="tv")
    assert len({plain, train, held_out}) == 3
    assert plain == "31aee73e270db78d34554f5ebe5ffda3decea6cc27da019cbeff53cc449f2fe4"


@untimed
@given(hashes, hashes)
def test_a_diff_leads_from_the_old_version_to_the_new(old, new):
    diff = diff_versions(old, new)
    assert sorted([*old, *diff.added]) == sorted([*new, *diff.removed])
    assert not set(diff.added) & set(diff.removed)
    assert diff.kept == len(new) - len(diff.added) == len(old) - len(diff.removed)
    assert diff_versions(old, old) == type(diff)([], [], len(old), False)


def test_a_diff_tells_another_order():
    assert diff_versions("abc", "cab").is_reordered
    assert not diff_versions("abc", "axbc").is_reordered
