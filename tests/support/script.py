"""What a script tells the upstream to answer: its words, and how it breaks off. The directives are in `upstream.py`."""

from __future__ import annotations

import re
from functools import lru_cache

PROMPT_SCRIPT = re.compile(r"\[\[(\w+=[^\]]*)\]\]")
_EMOJI = ("é", "漢字", "👩‍👩‍👧", "🇩🇪", "日本", "ß")
_MARKDOWN = (
    "# Title\n\n",
    "Some *text* ",
    "and more.\n\n",
    "- one\n",
    "- two\n\n",
    "```python\n",
    "x = 1\n",
    "```\n\n",
)


def parse_script(text: str) -> dict[str, str]:
    return dict(part.split("=", 1) for part in re.split(r"[+\s;]+", text) if "=" in part)


@lru_cache(maxsize=100_000)
def token_at(index: int, kind: str = "words") -> str:
    if kind == "multibyte":
        return f"{_EMOJI[index % len(_EMOJI)]}{index} "
    if kind == "markdown":
        return _MARKDOWN[index % len(_MARKDOWN)]
    if kind == "wide":
        return f"w{index}".ljust(9_999, "x") + " "
    return f"w{index} "


def answer_text(tokens: int, kind: str = "words", *, start: int = 0) -> str:
    """What a script of so many tokens answers."""
    return "".join(token_at(index, kind) for index in range(start, tokens))


class Script:
    """The parsed directives of one request, with defaults."""

    def __init__(self, values: dict[str, str], body: dict) -> None:
        self.values = values
        messages = body.get("messages") or [{}]
        last = messages[-1]
        self.kind = values.get("text", "words")
        total = int(values.get("tokens", 12))
        self.start = self._tokens_in(last.get("content", ""), total) if last.get("role") == "assistant" else 0
        tokens = range(self.start, max(total, self.start + 1) if total else self.start)
        limit = body.get("max_completion_tokens") or body.get("max_tokens")
        self.finish = values.get("finish", "stop")
        if limit and len(tokens) > limit:
            tokens, self.finish = tokens[:limit], "length"
        self.answer = [token_at(index, self.kind) for index in tokens]
        if self.kind == "echo":
            users = [m["content"] for m in messages if m.get("role") == "user"]
            self.answer = [word + " " for word in PROMPT_SCRIPT.sub("", users[-1] if users else "").split()] or ["..."]
        self.prompt_tokens = sum(len(str(m.get("content", "")).split()) + 4 for m in messages)
        self.rate = float(values.get("rate", 0))
        self.end = values.get("end", "")
        self.end_at = int(values.get("at", len(self.answer) // 2))

    def _tokens_in(self, prefix: str, total: int) -> int:
        text, index = "", 0
        while len(text) < len(prefix) and index < total:
            text += token_at(index, self.kind)
            index += 1
        return index

    def deltas(self) -> list[tuple[str, str]]:
        """(field, text) of everything the answer sends."""
        thinking = [("reasoning_content", f"r{i} ") for i in range(int(self.values.get("reasoning", 0)))]
        thoughts = int(self.values.get("think", 0))
        if thoughts:
            # The tags are cut across chunk borders on purpose.
            parts = ["<th", "ink>", *(f"t{i} " for i in range(thoughts)), "</thi", "nk>"]
            thinking += [("content", part) for part in parts]
        return thinking + [("content", token) for token in self.answer]

    @property
    def usage(self) -> dict[str, int]:
        completion = len(self.answer) + int(self.values.get("reasoning", 0)) + int(self.values.get("think", 0))
        total = self.prompt_tokens + completion
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": completion, "total_tokens": total}
