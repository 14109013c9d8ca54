"""One reply while this process produces it: its text, its numbered log entries, and who watches them here."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from uuid import UUID

from chat.events import ReplyBlock, ReplyDelta, encode
from chat.markdown import Block, BlockStream, Tail
from chat.replies.log import BLOCK, DELTA, END, RESUME, Append, Entry
from chat.replies.watch import Watch, visible
from chat.text import storable


@dataclass(frozen=True)
class Progress:
    """What the database keeps of a running reply: its text up to a sequence number that the log has acknowledged."""

    message_id: UUID
    owner_token: UUID
    content: str
    reasoning: str
    last_sequence_number: int


@dataclass
class _Cut:
    """How much of content and reasoning one sequence number covers."""

    content: int
    reasoning: int


class RunningReply:
    """Text goes in by `add_text`; the pump cuts it into entries, and those that the log has reach the watchers."""

    def __init__(
        self,
        message_id: UUID,
        conversation_id: UUID,
        owner_token: UUID,
        *,
        content: str = "",
        reasoning: str = "",
        last_sequence_number: int = 0,
    ) -> None:
        self.message_id = message_id
        self.conversation_id = conversation_id
        self.owner_token = owner_token
        self.sequence_number = last_sequence_number
        self.cancel_requested = False
        self.is_told_to_stop = False
        self.is_lost = False
        self.is_ending = False
        self.is_seeded = False
        self.first_sequence_number = last_sequence_number
        # The inner task asks the model and may be cancelled; the runner around it keeps the words and may not.
        self.task: asyncio.Task[None] | None = None
        self.runner: asyncio.Task[None] | None = None
        self.entries: list[Entry] = []
        self.logged = 0
        self.log_has_gap = False
        self.unrendered: list[Block] = []
        self.html: list[str] = []
        self.logged_everything = asyncio.Event()
        self._step = 0
        self._content = [content] if content else []
        self._reasoning = [reasoning] if reasoning else []
        self._new_text: list[str] = []
        self._new_reasoning: list[str] = []
        self._blocks = BlockStream()
        self.unrendered += self._blocks.feed(content)
        self._tail = self._blocks.tail
        self._watches: set[Watch] = set()
        self._cuts = {last_sequence_number: _Cut(len(self._content), len(self._reasoning))}
        self._kept_sequence_number = last_sequence_number
        self._kept_cut = _Cut(0, 0)
        self._kept_content = self._kept_reasoning = ""

    @property
    def content(self) -> str:
        return "".join(self._content) + "".join(self._new_text)

    @property
    def reasoning(self) -> str:
        return "".join(self._reasoning) + "".join(self._new_reasoning)

    @property
    def has_shown_anything(self) -> bool:
        return bool(self._content or self._new_text or self._reasoning or self._new_reasoning)

    @property
    def has_ended(self) -> bool:
        return bool(self.entries) and self.entries[-1].kind == END

    def add_text(self, text: str) -> None:
        self._new_text.append(storable(text))

    def add_reasoning(self, text: str) -> None:
        self._new_reasoning.append(storable(text))

    def stop(self) -> None:
        """Ask the model no further; when it was not asked yet, it will not be."""
        self.is_told_to_stop = True
        if self.task:
            self.task.cancel()

    def cut(self) -> None:
        """Number what is new as entries: first the thinking, then the text; finished blocks wait to be rendered."""
        if self._new_reasoning:
            text = "".join(self._new_reasoning)
            self._reasoning.append(text)
            self._new_reasoning.clear()
            self._add_delta(reasoning=text)
        if self._new_text:
            text = "".join(self._new_text)
            self._content.append(text)
            self._new_text.clear()
            finished, tail = self._blocks.feed(text), self._blocks.tail
            is_new = tail is not None and (bool(finished) or tail != self._tail)
            self._tail = tail
            self.unrendered += finished
            self._add_delta(text=text, tail=tail if is_new else None)

    def finish_blocks(self) -> None:
        self.unrendered += self._blocks.finish()

    def add_block(self, block: Block, html: str) -> None:
        """A finished block, rendered; it follows the deltas it covers."""
        self.html.append(html)
        frame = ReplyBlock(
            message_id=str(self.message_id),
            conversation_id=str(self.conversation_id),
            index=block.index,
            html=html,
            length=block.length,
        )
        self._add(BLOCK, encode(frame))

    def add_end(self, frame: str) -> None:
        self._add(END, frame)

    def append(self, *, again: bool, keep: int) -> Append | None:
        """What the log lacks; everything when it may have lost something."""
        first = 0 if again or self.log_has_gap else self.logged
        if first == len(self.entries):
            return None
        behind = self.entries[first - 1] if first else None
        return Append(self.message_id, self.owner_token, tuple(self.entries[first:]), keep, behind)

    def acknowledge(self, count: int) -> None:
        """The log has the first `count` entries: hand the new ones to whoever watches here."""
        self.log_has_gap = False
        fresh, self.logged = visible(self.entries[self.logged : count]), max(self.logged, count)
        for watch in tuple(self._watches):
            watch.show(fresh)
        if self.has_ended and self.logged == len(self.entries):
            self.logged_everything.set()

    def add_watch(self, watch: Watch) -> None:
        """Replay what the log has that it was not shown yet (blocks from the first), then go on live, with no gap."""
        watch.show(visible(self.entries[: self.logged]))
        self._watches.add(watch)

    def discard_watch(self, watch: Watch) -> None:
        self._watches.discard(watch)

    def hand_over(self) -> set[Watch]:
        """Let go of the watches."""
        watches, self._watches = self._watches, set()
        return watches

    def resume(self, *, log_is_gone: bool) -> None:
        """Go on behind an earlier end. When its log is gone, the text so far is logged again under the same numbers."""
        if log_is_gone:
            self.is_seeded = True
            content, reasoning = "".join(self._content), "".join(self._reasoning)
            self.sequence_number = 0
            if reasoning:
                self._add_delta(reasoning=reasoning)
            if content or not reasoning:
                self._add_delta(text=content)
            while self.sequence_number < self.first_sequence_number:
                self._add_delta(text="")
        # The log has steps behind this number already; the clock is ahead of all of them.
        self._step = time.time_ns() // 1_000_000
        self._add(RESUME, "")

    def progress(self) -> Progress | None:
        """The logged text, if it grew since the last time this was asked."""
        number = self.entries[self.logged - 1].sequence_number if self.logged else self._kept_sequence_number
        if number == self._kept_sequence_number:
            return None
        self._kept_sequence_number = number
        kept, cut = self._kept_cut, self._cuts[number]
        # Only what is new is joined, and no number below this one is asked for again.
        self._kept_content += "".join(self._content[kept.content : cut.content])
        self._kept_reasoning += "".join(self._reasoning[kept.reasoning : cut.reasoning])
        self._kept_cut = cut
        self._cuts = {later: place for later, place in self._cuts.items() if later >= number}
        return Progress(self.message_id, self.owner_token, self._kept_content, self._kept_reasoning, number)

    def _add_delta(self, *, text: str | None = None, reasoning: str | None = None, tail: Tail | None = None) -> None:
        self.sequence_number += 1
        self._step = -1
        self._cuts[self.sequence_number] = _Cut(len(self._content), len(self._reasoning))
        frame = ReplyDelta(
            message_id=str(self.message_id),
            conversation_id=str(self.conversation_id),
            sequence_number=self.sequence_number,
            text=text,
            reasoning=reasoning,
            tail={"kind": tail.kind, "language": tail.language} if tail else None,
        )
        self._add(DELTA, encode(frame))

    def _add(self, kind: str, frame: str) -> None:
        self._step += 1
        self.entries.append(Entry(self.sequence_number, self._step, kind, frame))
