"""The checks all row formats share: texts, lists of messages, their roles and their order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from finetuning.formats.examples import Message, Messages, Role
from finetuning.formats.problems import DEFAULT_LIMITS, Code, Problem, fail, warn

Row = dict[str, Any]

OPENAI_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",  # OpenAI's newer word for the same
    "user": "user",
    "assistant": "assistant",
}
SHAREGPT_ROLES: dict[str, Role] = {
    **OPENAI_ROLES,
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
}
TOOL_ROLES = {"tool", "function", "function_call", "tool_call", "tool_response", "observation"}
TOOL_KEYS = ("tools", "functions", "tool_calls", "function_call")
MEDIA_KEYS = ("images", "image", "videos", "audios", "audio")
MAX_MESSAGES = DEFAULT_LIMITS.max_messages


def check_text(value: object, name: str) -> str:
    """`value` when it is text that can be stored and tokenized; else RowError."""
    if type(value) is not str:
        fail(Code.NOT_TEXT, f"{name} is {_kind_of(value)} where a text is expected.")
    if "\x00" in value:
        fail(Code.NUL, f"{name} contains a NUL character.")
    if not value.isascii():  # asks a flag; only other texts pay for the encoding
        try:
            value.encode()
        except UnicodeEncodeError:
            fail(Code.LONE_SURROGATE, f"{name} contains half of a character (a lone surrogate) or a broken byte.")
    return value


def get_text(row: Row, name: str) -> str:
    """A required text that says something."""
    value = row.get(name)
    if value is None:
        fail(Code.MISSING_FIELD, f'The row has no "{name}".')
    text = check_text(value, f'"{name}"')
    if not text.strip():
        fail(Code.EMPTY_TEXT, f'"{name}" is empty.')
    return text


def get_optional_text(row: Row, name: str) -> str:
    value = row.get(name)
    if value is None:
        return ""
    text = check_text(value, f'"{name}"')
    return text if text.strip() else ""


def refuse_tools_and_media(row: Row) -> None:
    """A row that needs tools or pictures means something else without them."""
    for key in TOOL_KEYS:
        if row.get(key):
            fail(Code.TOOLS_UNSUPPORTED, f'The row uses tools ("{key}"), which training does not support.')
    for key in MEDIA_KEYS:
        if row.get(key):
            fail(Code.MEDIA_UNSUPPORTED, f'The row comes with media ("{key}"); only text can be trained.')


def read_messages(
    value: object, name: str, *, warnings: list[Problem], roles: Mapping[str, Role] = SHAREGPT_ROLES
) -> list[Message]:
    """A list of {role, content} or {from, value} turns, each checked by itself; the order is another question."""
    if type(value) is not list or not value:
        fail(Code.NOT_MESSAGES, f'"{name}" is {_kind_of(value)} where a list of messages is expected.')
    if len(value) > MAX_MESSAGES:
        fail(Code.TOO_MANY_MESSAGES, f'"{name}" has {len(value)} messages; at most {MAX_MESSAGES} are read.')
    messages = []
    for number, turn in enumerate(value, 1):
        message = read_message(turn, number, warnings=warnings, roles=roles)
        if message is not None:
            messages.append(message)
    return messages


def read_message(turn: object, number: int, *, warnings: list[Problem], roles: Mapping[str, Role]) -> Message | None:
    """One turn; None for an empty system message, which says nothing and is left out with a warning."""
    if type(turn) is not dict:
        fail(Code.NOT_MESSAGES, f"Message {number} is {_kind_of(turn)} where an object is expected.")
    if "role" in turn:
        given, content = turn["role"], turn.get("content")
    else:
        given, content = turn.get("from"), turn.get("value")
    role = roles.get(given) if type(given) is str else None
    if role is None:
        _refuse_role(given, number)
    if len(turn) > 2:  # role and content are two; the rest is rare and worth a look
        _check_extras(turn, number)
    if type(content) is list:
        content = _join_parts(content, number)
    if content is None:
        fail(Code.EMPTY_TURN, f"Message {number} ({role}) has no content.")
    text = check_text(content, f"Message {number}")
    if not text.strip():
        if role == "system":
            warnings.append(warn(Code.EMPTY_SYSTEM_DROPPED, "An empty system message is left out."))
            return None
        fail(Code.EMPTY_TURN, f"Message {number} ({role}) is empty.")
    return Message(role, text, _read_weight(turn, role, number, warnings) if len(turn) > 2 else 1)


def check_order(messages: list[Message], *, first_number: int = 1) -> None:
    """System first if at all, then user and assistant in turn, as every chat template can render it."""
    expected = "user"
    for number, message in enumerate(messages, first_number):
        role = message.role
        if role == "system":
            if number > 1:
                fail(Code.WRONG_ORDER, f"Message {number} is a system message; only the first may be one.")
        elif role != expected:
            fail(Code.WRONG_ORDER, f"Message {number} is from the {role} where the {expected} is expected.")
        else:
            expected = "assistant" if role == "user" else "user"


def check_prompt(messages: list[Message]) -> Messages:
    """A prompt ends with a question that waits for its answer."""
    check_order(messages)
    if not messages or messages[-1].role != "user":
        fail(Code.WRONG_ORDER, "The prompt does not end with a message from the user.")
    return tuple(messages)


def check_conversation(messages: list[Message], warnings: list[Problem]) -> Messages:
    """A conversation to train on: in order, with at least one trained answer."""
    check_order(messages)
    if not any(message.role == "assistant" for message in messages):
        fail(Code.NO_ASSISTANT_TURN, "The conversation has no message from the assistant, so nothing to learn.")
    if not any(message.role == "assistant" and message.weight for message in messages):
        fail(Code.NOTHING_TRAINED, "Every message from the assistant has weight 0, so nothing is trained.")
    if messages[-1].role != "assistant":
        warnings.append(warn(Code.UNANSWERED_END, "The last message has no answer and is not trained."))
    return tuple(messages)


def read_prompt(value: object, name: str, *, system: str = "", warnings: list[Problem]) -> list[Message]:
    """A prompt given as text or as messages."""
    if value is None or (type(value) is list and not value):
        fail(Code.MISSING_FIELD, f'The row has no "{name}".')
    if type(value) is list:
        messages = read_messages(value, name, warnings=warnings)
    else:
        messages = [Message("user", get_text({name: value}, name))]
    if system and messages[:1] and messages[0].role != "system":
        messages.insert(0, Message("system", system))
    return messages


def read_answer(value: object, name: str, *, warnings: list[Problem]) -> list[Message]:
    """An answer given as text, as one message or as messages that begin and end with the assistant."""
    if value is None:
        fail(Code.MISSING_FIELD, f'The row has no "{name}".')
    if type(value) is dict:
        value = [value]
    if type(value) is not list:
        return [Message("assistant", get_text({name: value}, name))]
    messages = read_messages(value, name, warnings=warnings)
    if not messages or messages[-1].role != "assistant":
        fail(Code.NO_ASSISTANT_TURN, f'"{name}" does not end with a message from the assistant.')
    return messages


def _refuse_role(given: object, number: int) -> NoReturn:
    if type(given) is not str:
        fail(Code.UNKNOWN_ROLE, f"Message {number} names no role.")
    if given in TOOL_ROLES:
        fail(Code.TOOLS_UNSUPPORTED, f"Message {number} belongs to a tool call, which training does not support.")
    fail(Code.UNKNOWN_ROLE, f"Message {number} has the unknown role {given[:40]!a}.")


def _check_extras(turn: Row, number: int) -> None:
    for key in TOOL_KEYS:
        if turn.get(key):
            fail(Code.TOOLS_UNSUPPORTED, f"Message {number} calls a tool, which training does not support.")


def _join_parts(parts: list[object], number: int) -> str:
    """OpenAI's content parts, as long as all of them are text."""
    texts = []
    for part in parts:
        if type(part) is not dict or part.get("type") != "text":
            fail(Code.MEDIA_UNSUPPORTED, f"Message {number} has a part that is not text; only text can be trained.")
        texts.append(check_text(part.get("text", part.get("value")), f"Message {number}"))
    return "".join(texts)


def _read_weight(turn: Row, role: Role, number: int, warnings: list[Problem]) -> int:
    weight = turn.get("weight", turn.get("loss_weight"))
    if weight is None:
        return 1
    if role != "assistant":
        if weight:
            warnings.append(warn(Code.WEIGHT_IGNORED, "A weight counts on messages from the assistant only."))
        return 1
    if type(weight) not in (int, float) or weight not in (0, 1):  # True and "1" are no weights
        fail(Code.BAD_WEIGHT, f"Message {number} has a weight that is neither 0 nor 1.")
    return int(weight)


def _kind_of(value: object) -> str:
    """What a value is, in words; never the value itself."""
    if value is None:
        return "missing"
    if type(value) in (list, dict) and not value:
        return "empty"
    names = {
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
    }
    return names.get(type(value), f"a {type(value).__name__}")
