"""What a model is asked: the branch's last messages, the system prompt, and the options that apply."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import connection

from chat.models import Conversation, Message
from config.app_settings import get_settings
from models_hub.base import PromptMessage, ReplyOptions, Role
from models_hub.targets import ModelTarget

# One query, however long the branch is: up from the message before the question, parent by parent.
_BRANCH = """
WITH RECURSIVE branch (id, parent_id, steps) AS (
    SELECT id, parent_id, 0 FROM chat_message WHERE id = %s
    UNION ALL
    SELECT above.id, above.parent_id, branch.steps + 1
    FROM chat_message above JOIN branch ON above.id = branch.parent_id
    WHERE branch.steps < %s
)
SELECT chat_message.id, role, content, status FROM chat_message JOIN branch ON branch.id = chat_message.id
ORDER BY branch.steps DESC
"""


def take_context(question: Message, count: int) -> tuple[list[Message], int]:
    """The question and at most `count` messages before it, oldest first, and how many earlier ones stay behind.

    The question need not be stored yet. Replies without a word are passed over: they would only
    teach the model to say nothing.
    """
    if question.parent_id is None or not count:
        return [question], question.depth
    key = Message._meta.pk.get_db_prep_value(question.parent_id, connection)
    branch = list(Message.objects.raw(_BRANCH, [key, count - 1]))
    said = [message for message in branch if message.role != Role.ASSISTANT or message.content.strip()]
    return [*said, question], question.depth - len(branch)


def system_prompt_of(conversation: Conversation, options: dict[str, Any]) -> str:
    return options.get("system_prompt", conversation.system_prompt).strip()


def with_own_system_prompt(prompt: Sequence[PromptMessage], target: ModelTarget) -> tuple[PromptMessage, ...]:
    """Before a prompt that has none, the one that the version was trained with: asked otherwise, it answers worse.

    Added for whoever answers, so that a fallback gets its own and not the first model's.
    """
    has_one = any(message.role == Role.SYSTEM for message in prompt)
    if has_one or not target.system_prompt.strip():
        return tuple(prompt)
    return (PromptMessage(Role.SYSTEM, target.system_prompt.strip()), *prompt)


def reply_options(*layers: dict[str, Any]) -> ReplyOptions:
    """The installation's defaults, overridden by each layer in turn: model, conversation, message."""
    settings = get_settings()
    values: dict[str, Any] = {"max_new_tokens": settings.max_new_tokens, "temperature": settings.temperature}
    for layer in layers:
        values |= {name: value for name, value in layer.items() if value is not None and name != "system_prompt"}
    values["stop"] = tuple(values.get("stop", ()))
    return ReplyOptions(**values)
