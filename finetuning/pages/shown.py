"""Examples as people read them: turns with a name each, personal data marked, the original beside what was edited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from finetuning.formats.measures import UNDESIRABLE
from finetuning.models import Dataset, Example
from finetuning.scanning import FindingKind, scan

SHOWN_CHARS = 20_000
ROLES = {"system": "Instructions", "user": "Question", "assistant": "Answer"}
SECTIONS = {
    Dataset.Kind.CHAT: (("messages", "", ""),),
    Dataset.Kind.PREFERENCE: (
        ("prompt", "What was asked", ""),
        ("chosen", "The better answer", "good"),
        ("rejected", "The worse answer", "bad"),
    ),
    Dataset.Kind.KTO: (("prompt", "What was asked", ""), ("completion", "The answer", "")),
}
FINDINGS = {
    FindingKind.EMAIL: "E-mail address",
    FindingKind.PHONE: "Phone number",
    FindingKind.IBAN: "Bank account",
    FindingKind.CARD: "Card number",
    FindingKind.IP: "IP address",
    FindingKind.API_KEY: "API key",
    FindingKind.TOKEN: "Access token",
    FindingKind.PASSWORD: "Password",
    FindingKind.PRIVATE_KEY: "Private key",
}


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text; `finding` names what kind of personal data it is."""

    text: str
    finding: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    role: str
    title: str
    pieces: Sequence[Piece]
    hidden_chars: int = 0
    is_trained: bool = False
    is_changed: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    name: str
    title: str
    tone: str
    turns: Sequence[Turn]


@dataclass(slots=True)
class ShownExample:
    """What the templates draw: `sections` as it is now, `before` as it came in when somebody changed it."""

    row: Example
    sections: list[Section]
    before: list[Section] = field(default_factory=list)
    findings: list[tuple[str, int]] = field(default_factory=list)

    @property
    def is_undesirable(self) -> bool:
        return self.row.label == UNDESIRABLE


def show_example(row: Example, kind: str) -> ShownExample:
    """`kind` is the dataset's; a row is stored in the shape of `finetuning.formats`."""
    before = show_content(row.original, kind) if row.original else []
    sections = show_content(row.content, kind, compared_with=row.original)
    return ShownExample(row, sections, before, name_findings(row.findings))


def show_content(
    content: Mapping[str, Any], kind: str, *, compared_with: Mapping[str, Any] | None = None
) -> list[Section]:
    if kind not in SECTIONS:
        is_changed = compared_with is not None and compared_with.get("text") != content.get("text")
        return [Section("text", "", "", [_show_text(str(content.get("text", "")), is_changed=is_changed)])]
    return [
        Section(name, title, tone, _show_turns(content.get(name, ()), kind, name, compared_with))
        for name, title, tone in SECTIONS[kind]
    ]


def _show_text(text: str, *, is_changed: bool) -> Turn:
    pieces, hidden = mark_findings(text)
    return Turn("text", "Text", pieces, hidden, is_changed=is_changed)


def _show_turns(
    messages: Sequence[Mapping[str, Any]], kind: str, name: str, compared_with: Mapping[str, Any] | None
) -> list[Turn]:
    others = compared_with.get(name, ()) if compared_with is not None else None
    turns = []
    for number, message in enumerate(messages):
        pieces, hidden = mark_findings(message["content"])
        is_changed = others is not None and (number >= len(others) or others[number] != message)
        is_trained = message["role"] == "assistant" and message.get("weight", 1) != 0 and kind == Dataset.Kind.CHAT
        title = ROLES.get(message["role"], message["role"])
        turns.append(Turn(message["role"], title, pieces, hidden, is_trained, is_changed))
    return turns


def mark_findings(text: str) -> tuple[list[Piece], int]:
    """The text in pieces, those that look like personal data named; and how many characters are left out."""
    hidden = max(0, len(text) - SHOWN_CHARS)
    text = text[:SHOWN_CHARS]
    pieces, position = [], 0
    for found in scan(text):
        if found.start > position:
            pieces.append(Piece(text[position : found.start]))
        pieces.append(Piece(text[found.start : found.end], FINDINGS[found.kind]))
        position = found.end
    if position < len(text) or not pieces:
        pieces.append(Piece(text[position:]))
    return pieces, hidden


def name_findings(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """The stored counts by kind in words, the most frequent first."""
    names = {kind.value: name for kind, name in FINDINGS.items()}
    return sorted(((names.get(kind, kind), count) for kind, count in counts.items()), key=lambda item: -item[1])


@dataclass(frozen=True, slots=True)
class ListedRow:
    """A row as a list shows it: what was asked and what was answered, cut short."""

    row: Example
    asked: str
    answered: str


def list_row(row: Example, kind: str) -> ListedRow:
    return ListedRow(row, *excerpt(row.content, kind))


def excerpt(content: Mapping[str, Any], kind: str, *, length: int = 240) -> tuple[str, str]:
    """A line or two for a list: what was asked, and what was answered."""
    if kind not in SECTIONS:
        return _cut(str(content.get("text", "")), length), ""
    messages = [message for name, _, _ in SECTIONS[kind] for message in content.get(name, ())]
    asked = next((message["content"] for message in messages if message["role"] == "user"), "")
    answers = content.get("chosen") or content.get("completion") or content.get("messages", ())
    answered = next((message["content"] for message in reversed(answers) if message["role"] == "assistant"), "")
    return _cut(asked, length), _cut(answered, length)


def _cut(text: str, length: int) -> str:
    line = " ".join(text[: length * 2].split())
    return line if len(line) <= length else f"{line[: length - 1].rstrip()}…"
