"""What a client needs to know of a model version, and what a page shows of a model. Plain data, no ORM objects."""

from __future__ import annotations

from dataclasses import dataclass, field

CHAT, CLASSIFICATION, FILL_MASK = "chat", "classification", "fill_mask"
OPENAI_CHAT, ENGINE = "openai_chat", "engine"


@dataclass(frozen=True, kw_only=True)
class ModelTarget:
    """One version of one model at one provider, resolved once per reply."""

    slug: str
    name: str
    task: str
    kind: str
    base_url: str
    api_key: str = field(repr=False)
    provider_model: str
    version_id: int
    version_number: int
    context_window: int | None
    default_options: dict
    learned_parameters: dict
    connection_id: int
    fallback_slug: str = ""
    system_prompt: str = ""  # what the version was trained with, for a conversation that has none


@dataclass(frozen=True, kw_only=True)
class ModelCard:
    """A model as the picker and the models page show it."""

    slug: str
    name: str
    description: str
    task: str
    task_label: str
    version: int | None
    context_window: int | None
    is_available: bool
    reason: str
    connection: str
