from __future__ import annotations

import pytest

from finetuning.formats import (
    ChatExample,
    ClassificationExample,
    KtoExample,
    Message,
    PreferenceExample,
    Severity,
    TextExample,
    UnknownFormatError,
    check_example,
    parse,
)
from finetuning.formats.layout import Layout
from tests.finetuning.formats.reading import chat, read_row

HI, YO = Message("user", "Hi"), Message("assistant", "Yo")
TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]


def code(format_name: str, row: object) -> str:
    result = read_row(format_name, row)
    assert result.example is None and result.severity is Severity.ERROR
    return result.problems[-1].code.value


@pytest.mark.parametrize(
    ("format_name", "row"),
    [
        ("chat_messages", {"messages": TURNS}),
        (
            "chat_messages",
            {"messages": [HI.to_dict(), {"role": "assistant", "content": [{"type": "text", "text": "Yo"}]}]},
        ),
        (
            "sharegpt",
            {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}], "system": ""},
        ),
        ("prompt_completion", {"prompt": "Hi", "completion": "Yo"}),
        ("prompt_completion", {"prompt": TURNS[:1], "completion": TURNS[1:]}),
        ("alpaca", {"instruction": "Hi", "input": "", "output": "Yo"}),
        ("alpaca", {"instruction": "Hi", "output": "Yo", "history": []}),
    ],
)
def test_every_chat_format_gives_the_same_example(format_name, row):
    result = read_row(format_name, row)
    assert result.example == ChatExample((HI, YO))
    assert result.severity is Severity.OK


def test_system_text_beside_the_turns_comes_first():
    for format_name, row in [
        ("sharegpt", {"system": "Be brief.", "conversations": [{"from": "human", "value": "Hi"}, TURNS[1]]}),
        ("alpaca", {"system": "Be brief.", "instruction": "Hi", "output": "Yo"}),
        ("prompt_completion", {"system": "Be brief.", "prompt": "Hi", "completion": "Yo"}),
    ]:
        assert read_row(format_name, row).example == ChatExample((Message("system", "Be brief."), HI, YO))


def test_alpaca_joins_instruction_and_input_and_puts_history_before():
    row = {"instruction": "Translate.", "input": "Haus", "output": "house", "history": [["Hi", "Yo"]]}
    question = Message("user", "Translate.\n\nHaus")
    assert read_row("alpaca", row).example == ChatExample((HI, YO, question, Message("assistant", "house")))


def test_answers_inside_a_prompt_are_not_trained():
    row = {"prompt": [*TURNS, {"role": "user", "content": "More"}], "completion": "Done"}
    assert [message.weight for message in read_row("prompt_completion", row).example.messages] == [1, 0, 1, 1]


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([], "not_messages"),
        ("Hi", "not_messages"),
        (["Hi"], "not_messages"),
        ([{"role": "narrator", "content": "Once"}], "unknown_role"),
        ([{"content": "Once"}], "unknown_role"),
        ([{"role": ["user"], "content": "Once"}], "unknown_role"),
        ([{"role": "tool", "content": "42"}], "tools_unsupported"),
        ([TURNS[0], {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}], "tools_unsupported"),
        ([TURNS[0], {"role": "assistant", "content": None}], "empty_turn"),
        ([TURNS[0], {"role": "assistant", "content": "  \n"}], "empty_turn"),
        ([TURNS[0], {"role": "assistant", "content": 42}], "not_text"),
        ([TURNS[0], {"role": "assistant", "content": [{"type": "image_url"}]}], "media_unsupported"),
        ([TURNS[0]], "no_assistant_turn"),
        (TURNS[::-1], "wrong_order"),
        ([TURNS[0], TURNS[0], TURNS[1]], "wrong_order"),
        ([*TURNS, {"role": "system", "content": "Late"}], "wrong_order"),
        ([TURNS[0], {**TURNS[1], "weight": 0}], "nothing_trained"),
        ([TURNS[0], {**TURNS[1], "weight": 0.5}], "bad_weight"),
        ([TURNS[0], {**TURNS[1], "weight": True}], "bad_weight"),
        ([TURNS[0], {**TURNS[1], "content": "a\x00b"}], "nul"),
        ([TURNS[0], {**TURNS[1], "content": "a\ud800b"}], "lone_surrogate"),
        (TURNS * 1001, "too_many_messages"),
    ],
)
def test_bad_messages_are_refused_with_their_code(messages, expected):
    assert code("chat_messages", {"messages": messages}) == expected


def test_a_row_that_needs_tools_or_pictures_is_refused():
    assert code("chat_messages", {"messages": TURNS, "tools": [{"type": "function"}]}) == "tools_unsupported"
    assert code("sharegpt", {"conversations": TURNS, "images": ["a.png"]}) == "media_unsupported"
    assert code("sharegpt", {"conversations": [{"from": "function_call", "value": "{}"}]}) == "tools_unsupported"
    assert read_row("chat_messages", {"messages": TURNS, "tools": []}).severity is Severity.OK


def test_what_is_odd_but_usable_is_a_warning():
    empty_system = {"messages": [{"role": "system", "content": ""}, *TURNS]}
    unanswered = {"messages": [*TURNS, {"role": "user", "content": "More"}]}
    weighed = {"messages": [{**TURNS[0], "weight": 1}, TURNS[1]]}
    for row, expected in [
        (empty_system, "empty_system_dropped"),
        (unanswered, "unanswered_end"),
        (weighed, "weight_ignored"),
    ]:
        result = read_row("chat_messages", row)
        assert result.severity is Severity.WARNING
        assert [problem.code for problem in result.problems] == [expected]
        assert result.example.messages[:2] == (HI, YO)


@pytest.mark.parametrize(
    ("format_name", "row"),
    [
        ("preference", {"prompt": "Hi", "chosen": "Yo", "rejected": "No"}),
        (
            "preference",
            {"prompt": TURNS[:1], "chosen": TURNS[1:], "rejected": [{"role": "assistant", "content": "No"}]},
        ),
        ("preference", {"prompt": TURNS[:1], "chosen": TURNS[1], "rejected": {"from": "gpt", "value": "No"}}),
        ("preference", {"chosen": TURNS, "rejected": [TURNS[0], {"role": "assistant", "content": "No"}]}),
        (
            "preference",
            {"prompt": "Hi", "chosen": TURNS, "rejected": [TURNS[0], {"role": "assistant", "content": "No"}]},
        ),
        (
            "openai_preference",
            {
                "input": {"messages": TURNS[:1], "tools": []},
                "preferred_output": TURNS[1:],
                "non_preferred_output": [{"role": "assistant", "content": "No"}],
            },
        ),
    ],
)
def test_every_preference_shape_gives_the_same_example(format_name, row):
    assert read_row(format_name, row).example == PreferenceExample((HI,), (YO,), (Message("assistant", "No"),))


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "Hi", "chosen": "Yo", "rejected": " Yo "}, "equal_sides"),
        ({"chosen": TURNS, "rejected": TURNS}, "equal_sides"),
        ({"prompt": "Hi", "chosen": "Yo"}, "missing_field"),
        ({"chosen": "Yo", "rejected": "No"}, "missing_field"),
        ({"prompt": "Hi", "chosen": "", "rejected": "No"}, "empty_text"),
        ({"prompt": "Hi", "chosen": 1, "rejected": "No"}, "not_text"),
        ({"prompt": TURNS, "chosen": "Yo", "rejected": "No"}, "wrong_order"),
        ({"prompt": TURNS[:1], "chosen": TURNS[:1], "rejected": "No"}, "no_assistant_turn"),
        ({"prompt": [{"role": "system", "content": " "}], "chosen": "Yo", "rejected": "No"}, "wrong_order"),
    ],
)
def test_bad_pairs_are_refused_with_their_code(row, expected):
    assert code("preference", row) == expected


@pytest.mark.parametrize("label", [True, 1, 1.0, "true", "True", "1", " yes ", "👍", "👍🏻", "thumbs_up", "good", "+1"])
def test_kto_good_labels(label):
    assert read_row("kto", {"prompt": "Hi", "completion": "Yo", "label": label}).example.label is True


@pytest.mark.parametrize("label", [False, 0, 0.0, -1, "false", "False", "0", "no", "👎", "thumbs_down", "bad", "-1"])
def test_kto_bad_labels_never_become_good(label):
    assert read_row("kto", {"prompt": "Hi", "completion": "Yo", "label": label}).example.label is False


@pytest.mark.parametrize("label", ["maybe", 2, 5, 0.7, [1], {"good": True}, "truthy", "4 stars", "nan"])
def test_kto_other_labels_are_refused_not_guessed(label):
    assert code("kto", {"prompt": "Hi", "completion": "Yo", "label": label}) == "unknown_label"


def test_kto_without_label_is_refused():
    assert code("kto", {"prompt": "Hi", "completion": "Yo"}) == "missing_label"
    assert code("kto", {"prompt": "Hi", "completion": "Yo", "label": None}) == "missing_label"
    assert code("kto", {"prompt": "Hi", "completion": "Yo", "label": ""}) == "missing_label"


def test_kto_label_of_a_conversation_rates_its_last_answer():
    row = {
        "messages": [*TURNS, {"role": "user", "content": "More"}, {"role": "assistant", "content": "No"}],
        "label": 0,
    }
    expected = KtoExample((HI, YO, Message("user", "More")), (Message("assistant", "No"),), False)
    assert read_row("kto", row).example == expected
    assert code("kto", {"messages": [*TURNS, TURNS[0]], "label": True}) == "no_assistant_turn"


@pytest.mark.parametrize(
    ("label", "expected"), [("pos", "pos"), (" pos ", "pos"), (1, "1"), (0, "0"), (False, "false")]
)
def test_classification_labels_are_words(label, expected):
    assert read_row("classification", {"text": "Fine", "label": label}).example == ClassificationExample(
        "Fine", expected
    )


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"text": "Fine"}, "missing_label"),
        ({"text": "Fine", "label": " "}, "missing_label"),
        ({"text": "Fine", "label": 0.5}, "not_text"),
        ({"text": "Fine", "label": "x" * 201}, "unknown_label"),
        ({"text": "", "label": "pos"}, "empty_text"),
        ({"label": "pos"}, "missing_field"),
    ],
)
def test_bad_classification_rows_are_refused_with_their_code(row, expected):
    assert code("classification", row) == expected


def test_plain_text():
    assert read_row("text", {"text": "Once upon a time"}).example == TextExample("Once upon a time")
    assert code("text", {"text": None}) == "missing_field"


def test_caller_names_the_columns():
    columns = {"text": "Review", "label": "Stars", "group": "customer"}
    result = read_row(
        "classification", {"Review": "Fine", "Stars": 5, "label": "other", "customer": 7}, columns=columns
    )
    assert (result.example, result.group) == (ClassificationExample("Fine", "5"), "7")


def test_a_named_column_that_is_absent_is_not_replaced_by_a_namesake():
    result = read_row("classification", {"text": "Fine", "label": "wrong"}, columns={"label": "Stars"})
    assert [problem.code for problem in result.problems] == ["missing_label"]


def test_an_unknown_format_is_an_error_at_once(tmp_path):
    with pytest.raises(UnknownFormatError):
        parse(tmp_path / "nothing", Layout("jsonl", "no_such_format"))


def test_an_edited_example_is_checked_like_an_imported_one():
    example, problems = check_example("chat", chat("Hi", "Yo"))
    assert example == ChatExample((HI, YO)) and problems == ()
    example, problems = check_example("chat", chat("Hi", ""))
    assert example is None and problems[0].code == "empty_turn"


def test_a_sentence_never_quotes_what_people_said():
    secret = "my very private words"
    for row in ({"messages": [{"role": "user", "content": secret}]}, chat(secret, ""), {"messages": secret}):
        result = read_row("chat_messages", row)
        assert result.problems and all(secret not in problem.message for problem in result.problems)
