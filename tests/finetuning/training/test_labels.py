"""What becomes of every row is said; too long rows are cut where it hurts least and never lose all that is trained."""

from __future__ import annotations

import pytest

from finetuning.training.errors import DataError, TooLongError
from finetuning.training.labels import choose_max_length, fit, prepare_conversations
from finetuning.training.rendering import ChatRenderer
from tests.finetuning.training.builders import MISTRAL, build_tokenizer, conversation

LONG = "word " * 40


@pytest.fixture(scope="module")
def renderer() -> ChatRenderer:
    return ChatRenderer(build_tokenizer())


def text_of(renderer: ChatRenderer, sequence) -> str:
    return "".join(text for text, _ in renderer.pieces(sequence))


def test_oldest_exchange_goes_first_and_the_last_answer_stays_whole(renderer):
    messages = conversation(LONG, "old answer", "short question", "new answer", system="Be nice.")
    (sequence,), dropped, _ = fit(renderer, messages, max_length=60)
    text = text_of(renderer, sequence)
    assert dropped == 2
    assert "Be nice." in text and "old answer" not in text and text.rstrip().endswith("new answer<|im_end|>")


def test_answer_too_long_on_its_own_is_cut_at_its_end(renderer):
    (sequence,), dropped, cut = fit(renderer, conversation("hello", LONG), max_length=60)
    assert (len(sequence), dropped) == (60, 0)
    assert cut > 0 and sequence.is_trained[-1]


def test_prompt_that_leaves_nothing_to_train_is_refused(renderer):
    with pytest.raises(TooLongError):
        fit(renderer, conversation(LONG, "answer"), max_length=60)


def test_trained_answer_is_not_dropped_for_an_untrained_one(renderer):
    messages = conversation("hello", "trained answer", LONG, "untrained", weight=0)
    (sequence,), dropped, _ = fit(renderer, messages, max_length=60)
    assert dropped == 0 and "trained answer<|im_end|>" in text_of(renderer, sequence)


def test_report_names_every_row_that_is_cut_or_excluded(renderer):
    rows = [
        conversation("hello", "there"),
        conversation("hello", "there", weight=0),
        conversation("hello", LONG),
        conversation(LONG, "answer"),
    ]
    prepared = prepare_conversations(rows, renderer, context_window=256, max_length=60)
    report = prepared.report
    assert [(excluded.row, excluded.code) for excluded in report.excluded] == [(1, "trained_share"), (3, "too_long")]
    assert [cut.row for cut in report.cut] == [2]
    assert report.cut[0].trained_tokens > 0
    assert prepared.rows == [0, 2] and report.rows == 4 and report.sequences == 2


def test_report_counts_tokens_and_trained_tokens(renderer):
    prepared = prepare_conversations([conversation("hello", "there")] * 3, renderer, context_window=256)
    report = prepared.report
    assert report.tokens == 3 * len(prepared.sequences[0])
    assert report.trained_tokens == 3 * prepared.sequences[0].trained_tokens
    assert 0 < report.trained_share < 1
    assert sum(report.length_histogram.values()) == 3
    assert report.template_hash == renderer.template_hash


def test_row_that_a_template_refuses_does_not_stop_the_others():
    renderer = ChatRenderer(build_tokenizer(MISTRAL))
    rows = [conversation("hello", "there", system="no"), conversation("hello", "there")]
    prepared = prepare_conversations(rows, renderer, context_window=256)
    assert prepared.rows == [1]
    assert prepared.report.excluded[0].code == "chat_template"


def test_no_usable_row_at_all_is_an_error(renderer):
    with pytest.raises(DataError, match="None of the 1 rows"):
        prepare_conversations([conversation("hello", "there", weight=0)], renderer, context_window=256)


def test_length_comes_from_the_data_and_never_exceeds_the_window():
    assert choose_max_length([100] * 99 + [1000], context_window=8192) == 1000
    assert choose_max_length([100] * 999 + [1000], context_window=8192) == 104
    assert choose_max_length([100] * 99 + [1000], context_window=512) == 512
