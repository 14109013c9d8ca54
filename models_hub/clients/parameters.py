"""Which request parameters a provider takes for a model: a small table, learned from its refusals (status 400)."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from models_hub.base import PromptMessage, ReplyOptions
from models_hub.targets import ModelTarget

LIMIT_NAMES = ("max_tokens", "max_completion_tokens")
CORRECTABLE = {*LIMIT_NAMES, "temperature", "top_p", "stop", "seed", "stream_options"}
UNSUPPORTED = {"unsupported_parameter", "unsupported_value", "unknown_parameter", "extra_forbidden"}

# What this process learned, ahead of what is stored: requests that run beside the first one profit at once.
_learned: dict[tuple[int, str], list[str]] = {}


class Parameters:
    """The table's row for one model of one connection: the names it refuses."""

    def __init__(self, target: ModelTarget) -> None:
        self._key = (target.connection_id, target.provider_model)
        self._limit_names = LIMIT_NAMES[::-1] if _is_openai(target.base_url) else LIMIT_NAMES
        self.refused = {*target.learned_parameters.get("refused", ()), *_learned.get(self._key, ())}

    @property
    def limit(self) -> str:
        """What this model calls the longest answer; empty when it takes no such option at all."""
        return next((name for name in self._limit_names if name not in self.refused), "")

    def to_dict(self) -> dict:
        return {"refused": sorted(self.refused)}

    def correct(self, sent: dict, error_body: object) -> tuple[bool, bool]:
        """(the request can be sent again without what was refused, the refusal is worth remembering)."""
        name, code = _refused_name(error_body)
        if name not in sent or name not in CORRECTABLE:
            return False, False
        if code not in UNSUPPORTED and code != "None":
            return False, False  # a value out of range, say: the person's to know
        self.refused.add(name)
        if code in UNSUPPORTED:
            _learned[self._key] = sorted(self.refused)
        return True, code in UNSUPPORTED


def build_body(
    target: ModelTarget, messages: Sequence[PromptMessage], options: ReplyOptions, parameters: Parameters
) -> dict:
    optional = {
        "temperature": options.temperature,
        "top_p": options.top_p if options.top_p != 1.0 else None,
        "stop": list(options.stop) or None,
        "seed": options.seed,
        "stream_options": {"include_usage": True},
    }
    body = {
        "model": target.provider_model,
        "messages": [{"role": message.role.value, "content": message.content} for message in messages],
        "stream": True,
    }
    if parameters.limit:
        body[parameters.limit] = options.max_new_tokens
    return body | {k: v for k, v in optional.items() if v is not None and k not in parameters.refused}


def _is_openai(base_url: str) -> bool:
    """OpenAI's own models take the new name of the limit, older servers only the old one."""
    host = urlsplit(base_url).hostname or "api.openai.com"
    return host == "openai.com" or host.endswith(".openai.com")


def _refused_name(body: object) -> tuple[str, str]:
    """The parameter an error body blames, and the code: OpenAI's `param`, or the last step of FastAPI's `loc`."""
    if not isinstance(body, dict):
        return "", ""
    details = body.get("detail")
    if isinstance(details, list) and details and isinstance(details[0], dict):
        return str((details[0].get("loc") or [""])[-1]), str(details[0].get("type"))
    return str(body.get("param") or ""), str(body.get("code"))
