"""The engine's answers in OpenAI's shapes."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any

from models_hub.engine.chat import Finished


class ChatAnswer:
    """Builds the chunks, or the whole completion, of one reply: same id, time and model name throughout."""

    def __init__(self, model: str) -> None:
        self._head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}

    def role_chunk(self) -> bytes:
        return self._chunk([_choice({"role": "assistant", "content": ""})])

    def text_chunk(self, text: str) -> bytes:
        return self._chunk([_choice({"content": text})])

    def end_chunk(self, finished: Finished) -> bytes:
        return self._chunk([_choice({}, finished.finish_reason)])

    def usage_chunk(self, finished: Finished) -> bytes:
        return self._chunk([], usage=usage_to_dict(finished.prompt_tokens, finished.completion_tokens))

    def whole(self, text: str, finished: Finished) -> dict[str, Any]:
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finished.finish_reason}
        usage = usage_to_dict(finished.prompt_tokens, finished.completion_tokens)
        return {**self._head, "object": "chat.completion", "choices": [choice], "usage": usage}

    def _chunk(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        return event({**self._head, "object": "chat.completion.chunk", "choices": choices, **more})


def event(data: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def usage_to_dict(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    total = prompt_tokens + completion_tokens
    return {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens, "total_tokens": total}


def model_to_dict(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "dialoop"}


def _choice(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
