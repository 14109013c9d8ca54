"""Exactly the answers and their stop tokens are trained, whatever the template looks like."""

from __future__ import annotations

import pytest

from finetuning.training.errors import (
    DoubleBosError,
    MissingStopTokenError,
    TemplateError,
    TrainedShareError,
)
from finetuning.training.rendering import IGNORED, ChatRenderer
from tests.finetuning.training.builders import (
    CHATML,
    GEMMA,
    LLAMA3,
    MISTRAL,
    NEVER_STOPS,
    REASONING,
    build_tokenizer,
    conversation,
)

ENDINGS = {CHATML: "<|im_end|>", LLAMA3: "<|eot_id|>", MISTRAL: "</s>", GEMMA: "<end_of_turn>"}
templates = pytest.mark.parametrize("template", ENDINGS, ids=["chatml", "llama3", "mistral", "gemma"])


def trained_texts(renderer: ChatRenderer, messages) -> list[str]:
    (sequence,) = renderer.render(messages)
    return [text for text, is_trained in renderer.pieces(sequence) if is_trained]


@templates
def test_answers_and_their_stop_tokens_are_trained_and_nothing_else(template):
    renderer = ChatRenderer(build_tokenizer(template))
    messages = conversation("hello", "there you are", "and the code word?", "blue\nand green")
    texts = [text.strip() for text in trained_texts(renderer, messages)]
    assert texts == [f"there you are{ENDINGS[template]}", f"blue\nand green{ENDINGS[template]}"]


@templates
def test_answer_of_weight_zero_is_not_trained(template):
    renderer = ChatRenderer(build_tokenizer(template))
    messages = conversation("hello", "bad answer", "again", "good answer")
    messages[1]["weight"] = 0
    assert [text.strip() for text in trained_texts(renderer, messages)] == [f"good answer{ENDINGS[template]}"]


@templates
def test_ids_are_those_the_chat_template_gives(template):
    tokenizer = build_tokenizer(template)
    (sequence,) = ChatRenderer(tokenizer).render(messages := conversation("hello", "there", "how", "so"))
    assert sequence.input_ids.tolist() == tokenizer.apply_chat_template(messages, return_dict=False)


@templates
def test_trained_part_follows_exactly_the_prompt_of_the_chat(template):
    renderer = ChatRenderer(build_tokenizer(template))
    messages = conversation("hello", "there you are")
    (sequence,) = renderer.render(messages)
    first = sequence.is_trained.argmax()
    assert sequence.input_ids[:first].tolist() == renderer.render_prompt(messages[:1])


@templates
def test_sequence_begins_with_one_bos(template):
    tokenizer = build_tokenizer(template)
    (sequence,) = ChatRenderer(tokenizer).render(conversation("hello", "there"))
    assert sequence.input_ids.tolist()[:2].count(tokenizer.bos_token_id) == 1


@templates
def test_stop_token_stays_in_the_labels_where_it_is_the_pad_token_too(template):
    tokenizer = build_tokenizer(template)
    stop = tokenizer.convert_tokens_to_ids(ENDINGS[template])
    tokenizer.pad_token = ENDINGS[template]
    (sequence,) = ChatRenderer(tokenizer).render(conversation("hello", "there"))
    assert sequence.labels[sequence.labels != IGNORED].tolist()[-1] == stop


def test_stop_token_that_only_the_template_knows_is_found():
    tokenizer = build_tokenizer(LLAMA3)
    renderer = ChatRenderer(tokenizer)
    assert renderer.stop_token_ids == {
        tokenizer.convert_tokens_to_ids(name) for name in ("<|eot_id|>", "<|end_of_text|>")
    }


def test_template_without_a_stop_token_is_refused():
    renderer = ChatRenderer(build_tokenizer(NEVER_STOPS))
    with pytest.raises(MissingStopTokenError):
        renderer.render(conversation("hello", "there"))


def test_template_that_writes_bos_twice_is_refused():
    renderer = ChatRenderer(build_tokenizer(LLAMA3), chat_template="{{ bos_token }}" + LLAMA3)
    with pytest.raises(DoubleBosError):
        renderer.render(conversation("hello", "there"))


def test_template_that_rewrites_earlier_turns_gives_a_sequence_for_each_answer():
    renderer = ChatRenderer(build_tokenizer(REASONING))
    messages = conversation("a", "<think>x</think>first", "b", "<think>y</think>second")
    sequences = renderer.render(messages)
    texts = ["".join(text for text, _ in renderer.pieces(sequence)) for sequence in sequences]
    trained = [[text for text, is_trained in renderer.pieces(s) if is_trained] for s in sequences]
    assert trained == [["<think>x</think>first<|im_end|>"], ["<think>y</think>second<|im_end|>"]]
    assert "<think>x" in texts[0] and "<think>x" not in texts[1]


def test_token_that_would_reach_from_prompt_into_answer_is_split_there():
    """`\\n\\n` is one token here: in chat the prompt ends with one line break, so in training it must too."""
    tokenizer = build_tokenizer(CHATML, extra_texts=["\n\n"] * 50)
    assert len(tokenizer("\n\n")["input_ids"]) == 1
    renderer = ChatRenderer(tokenizer)
    messages = conversation("hello", "\n\nthere")
    (sequence,) = renderer.render(messages)
    assert sequence.input_ids.tolist() != tokenizer.apply_chat_template(messages, return_dict=False)
    prompt = renderer.render_prompt(messages[:1])
    assert sequence.input_ids[: len(prompt)].tolist() == prompt
    assert trained_texts(renderer, messages) == ["\n\nthere<|im_end|>"]


def test_conversation_the_template_refuses_is_a_template_error():
    renderer = ChatRenderer(build_tokenizer(MISTRAL))
    with pytest.raises(TemplateError, match="Only user and assistant"):
        renderer.render(conversation("hello", "there", system="be nice"))


def test_template_whose_answers_do_not_follow_the_prompt_is_refused():
    odd = CHATML.replace("'<|im_start|>assistant\n'", "'<|im_start|>assistant\n<think>\n'")
    renderer = ChatRenderer(build_tokenizer(CHATML), chat_template=odd)
    with pytest.raises(TemplateError, match="told apart"):
        renderer.render(conversation("hello", "there"))


def test_conversation_without_a_trained_answer_is_refused():
    renderer = ChatRenderer(build_tokenizer())
    with pytest.raises(TrainedShareError):
        renderer.render(conversation("hello", "there", weight=0))


def test_model_without_a_template_is_refused():
    tokenizer = build_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(TemplateError, match="no chat template"):
        ChatRenderer(tokenizer)


def test_system_prompt_is_put_in_front_unless_the_conversation_has_one():
    renderer = ChatRenderer(build_tokenizer(), system_prompt="Be brief.")
    (with_ours,) = renderer.render(conversation("hello", "there"))
    (with_own,) = renderer.render(conversation("hello", "there", system="Be long."))
    texts = ["".join(text for text, _ in renderer.pieces(s)) for s in (with_ours, with_own)]
    assert "Be brief." in texts[0] and "Be brief." not in texts[1]


def test_hash_changes_with_template_and_system_prompt():
    tokenizer = build_tokenizer()
    plain, same = ChatRenderer(tokenizer).template_hash, ChatRenderer(tokenizer).template_hash
    prompted = ChatRenderer(tokenizer, system_prompt="Be brief.").template_hash
    other = ChatRenderer(build_tokenizer(), chat_template=CHATML + " ").template_hash
    assert plain == same and len({plain, prompted, other}) == 3
