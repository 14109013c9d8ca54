"""Makes training sequences of whole conversations and says of every row what became of it. Nothing is cut silently."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from finetuning.training.errors import ConversationError, DataError, TooLongError
from finetuning.training.rendering import ChatRenderer, Message, TrainingSequence, trained_turns

MIN_LENGTH = 16


@dataclass(frozen=True)
class Excluded:
    """A row (counted from 0) that is not trained on, why (a stable code), and a sentence."""

    row: int
    code: str
    message: str


@dataclass(frozen=True)
class Cut:
    """What had to go so that the row fits: whole turns from its beginning first, then tokens from its end."""

    row: int
    messages: int
    tokens: int
    trained_tokens: int


@dataclass
class PreparationReport:
    """What became of the rows. `length_histogram` maps the upper edge of each bin (a power of two) to rows."""

    rows: int = 0
    max_length: int = 0
    sequences: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    template_hash: str = ""
    excluded: list[Excluded] = field(default_factory=list)
    cut: list[Cut] = field(default_factory=list)
    length_histogram: dict[int, int] = field(default_factory=dict)

    @property
    def trained_share(self) -> float:
        return self.trained_tokens / self.tokens if self.tokens else 0.0


@dataclass(frozen=True)
class Prepared:
    """`rows[i]` is the row that `sequences[i]` was made of."""

    sequences: list[TrainingSequence]
    rows: list[int]
    report: PreparationReport


def prepare_conversations(
    conversations: Iterable[Sequence[Message]],
    renderer: ChatRenderer,
    *,
    context_window: int,
    max_length: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Prepared:
    """Render all conversations; without `max_length` it becomes the 99th percentile of their lengths.

    `progress` is called with the number of rows done. Raises `DataError` when no row can be trained on.
    """
    report = PreparationReport(template_hash=renderer.template_hash)
    rendered: list[tuple[int, Sequence[Message], list[TrainingSequence]]] = []
    for row, messages in enumerate(conversations):
        report.rows += 1
        try:
            rendered.append((row, messages, renderer.render(messages)))
        except ConversationError as error:
            report.excluded.append(Excluded(row, error.code, error.message))
        if progress:
            progress(report.rows)
    lengths = [len(sequence) for _, _, sequences in rendered for sequence in sequences]
    report.max_length = min(context_window, max_length or choose_max_length(lengths, context_window=context_window))
    prepared = Prepared([], [], report)
    for row, messages, sequences in rendered:
        _add_fitting(prepared, renderer, row, messages, sequences)
    _count(prepared, lengths)
    return prepared


def choose_max_length(lengths: Sequence[int], *, context_window: int) -> int:
    """The 99th percentile, rounded up to a multiple of eight, so that one huge row does not slow the whole run."""
    if not lengths:
        return context_window
    percentile = int(np.percentile(lengths, 99, method="higher"))
    return min(context_window, max(MIN_LENGTH, -(-percentile // 8) * 8))


def fit(
    renderer: ChatRenderer, messages: Sequence[Message], *, max_length: int
) -> tuple[list[TrainingSequence], int, int]:
    """Sequences of at most `max_length` tokens, the messages dropped from the front and the tokens cut from the end.

    The oldest exchanges go first, as they do in chat; the last trained answer is cut only when it alone is too long.
    Raises `TooLongError` when nothing trained would be left.
    """
    remaining = renderer.with_system_prompt(messages)
    total = len(remaining)
    sequences = renderer.render(remaining)
    while max(map(len, sequences)) > max_length and (shorter := _without_oldest_exchange(remaining)):
        remaining = shorter
        sequences = renderer.render(remaining)
    kept = [cut for sequence in sequences if (cut := sequence.cut_right(max_length)).trained_tokens]
    if not kept:
        raise TooLongError(f"The prompt alone is longer than {max_length} tokens: nothing trained would be left.")
    return kept, total - len(remaining), sum(map(len, sequences)) - sum(map(len, kept))


def _without_oldest_exchange(messages: Sequence[Message]) -> list[Message] | None:
    """Without all up to the second user message, the system prompt apart; None when no trained turn would stay."""
    head = 1 if messages[0]["role"] == "system" else 0
    users = [p for p, message in enumerate(messages) if message["role"] == "user"]
    shorter = [*messages[:head], *messages[users[1] :]] if len(users) > 1 else []
    return shorter if trained_turns(shorter) else None


def _add_fitting(
    prepared: Prepared,
    renderer: ChatRenderer,
    row: int,
    messages: Sequence[Message],
    sequences: list[TrainingSequence],
) -> None:
    report = prepared.report
    if max(map(len, sequences)) > report.max_length:
        before = sum(map(len, sequences)), sum(sequence.trained_tokens for sequence in sequences)
        try:
            sequences, dropped, _ = fit(renderer, messages, max_length=report.max_length)
        except ConversationError as error:
            report.excluded.append(Excluded(row, error.code, error.message))
            return
        after = sum(map(len, sequences)), sum(sequence.trained_tokens for sequence in sequences)
        report.cut.append(Cut(row, dropped, before[0] - after[0], before[1] - after[1]))
    prepared.sequences.extend(sequences)
    prepared.rows.extend([row] * len(sequences))


def _count(prepared: Prepared, lengths: Sequence[int]) -> None:
    report = prepared.report
    report.excluded.sort(key=lambda excluded: excluded.row)
    report.sequences = len(prepared.sequences)
    report.tokens = sum(map(len, prepared.sequences))
    report.trained_tokens = sum(sequence.trained_tokens for sequence in prepared.sequences)
    for length in lengths:
        edge = 1 << (length - 1).bit_length()
        report.length_histogram[edge] = report.length_histogram.get(edge, 0) + 1
    if not prepared.sequences:
        first = f" The first row: {report.excluded[0].message}" if report.excluded else ""
        raise DataError(f"None of the {report.rows} rows can be trained on.{first}", report=report)
