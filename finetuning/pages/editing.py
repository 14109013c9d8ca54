"""The form that edits one example: its fields from the content, and the content back from its fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.http import QueryDict

from finetuning.models import Dataset
from finetuning.pages.shown import ROLES, SECTIONS

MAX_ROWS, LINE = 16, 90


@dataclass(frozen=True, slots=True)
class EditedTurn:
    content: str = ""
    role: str = "user"
    weight: int = 1

    @property
    def rows(self) -> int:
        """Lines of the text field."""
        lines = sum(1 + len(line) // LINE for line in self.content.split("\n"))
        return min(MAX_ROWS, max(3, lines + 1))


@dataclass(frozen=True, slots=True)
class EditedSection:
    name: str
    title: str
    turns: list[EditedTurn]

    @property
    def can_grow(self) -> bool:
        return self.name != "text"

    @property
    def blank(self) -> EditedTurn:
        return EditedTurn()


def edit_sections(content: Mapping[str, Any], kind: str) -> list[EditedSection]:
    if kind not in SECTIONS:
        return [EditedSection("text", "", [EditedTurn(str(content.get("text", "")))])]
    return [
        EditedSection(name, title, [_turn(message) for message in content.get(name, ())])
        for name, title, _ in SECTIONS[kind]
    ]


def _turn(message: Mapping[str, Any]) -> EditedTurn:
    return EditedTurn(message["content"], message["role"], message.get("weight", 1))


def read_content(form: QueryDict, kind: str) -> dict[str, Any]:
    """What somebody wrote, in the shape of `finetuning.formats`; whether it makes sense is for the service to say."""
    if kind not in SECTIONS:
        content: dict[str, Any] = {"text": _unix(form.get("text-content", ""))}
    else:
        content = {name: _read_turns(form, name) for name, _, _ in SECTIONS[kind]}
    if kind == Dataset.Kind.CLASSIFICATION:
        content["label"] = form.get("label", "").strip()
    elif kind == Dataset.Kind.KTO:
        content["label"] = form.get("label") == "true"
    return content


def _read_turns(form: QueryDict, name: str) -> list[dict[str, Any]]:
    roles, texts = form.getlist(f"{name}-role"), form.getlist(f"{name}-content")
    weights = form.getlist(f"{name}-weight") or ["1"] * len(texts)
    turns = []
    for role, text, weight in zip(roles, texts, weights, strict=False):
        turn: dict[str, Any] = {"role": role if role in ROLES else "user", "content": _unix(text)}
        if weight == "0" and role == "assistant":
            turn["weight"] = 0
        turns.append(turn)
    return turns


def _unix(text: str) -> str:
    """Browsers send every line break of a text field as CR LF."""
    return text.replace("\r\n", "\n")
