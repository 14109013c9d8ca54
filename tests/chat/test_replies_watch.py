"""What of a reply's log is shown."""

from chat.replies.log import BLOCK, DELTA, END, RESUME, Entry
from chat.replies.watch import visible

FIRST = [Entry(1, 0, DELTA, "a"), Entry(1, 1, BLOCK, "<p>a</p>"), Entry(1, 2, END, "stopped")]
AGAIN = [
    Entry(1, 9, RESUME, ""),
    Entry(2, 0, DELTA, "b"),
    Entry(2, 1, BLOCK, "<p>ab</p>"),
    Entry(2, 2, END, "complete"),
]


def frames(entries: list[Entry]) -> list[str]:
    return [entry.frame for entry in visible(entries)]


def test_reply_without_a_break_is_shown_whole():
    assert frames(FIRST) == ["a", "<p>a</p>", "stopped"]


def test_continued_reply_shows_each_block_once_and_only_its_last_end():
    assert frames([*FIRST, *AGAIN]) == ["a", "b", "<p>ab</p>", "complete"]


def test_continued_reply_that_runs_shows_no_end():
    assert frames([*FIRST, *AGAIN[:2]]) == ["a", "b"]
