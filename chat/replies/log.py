"""The log of every reply, in Valkey: one stream a reply, whose entry ids carry the sequence numbers.

An entry's id is `<sequence number>-<n>`: n is 0 for the delta itself, above 0 for what follows it (a finished block,
the end). Ids only grow, so appending the same entries again after a lost answer changes nothing. A fence names the
owner token that may append no more: a process that was paused, declared dead and woke up cannot write behind the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

from redis.exceptions import ResponseError

from config.valkey import get_valkey

HEARTBEAT_TTL = 10
KEEP_AFTER_END = 3600
KEEP_RUNNING = 24 * 3600

# An id that the log has already is what a repeated append meets, and is no error. A log that lacks what came before was
# lost with a Valkey that keeps nothing, and takes no more until it is appended whole.
_APPEND = """
if redis.call('GET', KEYS[2]) == ARGV[1] then return -1 end
if ARGV[3] ~= '' and #redis.call('XRANGE', KEYS[1], ARGV[3], ARGV[3]) == 0 then return -2 end
for i = 4, #ARGV, 3 do
  local added = redis.pcall('XADD', KEYS[1], ARGV[i], 'kind', ARGV[i + 1], 'frame', ARGV[i + 2])
  if type(added) == 'table' and added.err and not string.find(added.err, 'equal or smaller') then
    return redis.error_reply(added.err)
  end
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
"""
_FENCED, _HAS_GAP = -1, -2

DELTA = "delta"
BLOCK = "block"
END = "end"
RESUME = "resume"  # a continued reply goes on from here; never shown


class Entry(NamedTuple):
    """One frame of a reply. `kind` is delta, block, end or resume; `frame` is the JSON that goes on the wire."""

    sequence_number: int
    step: int
    kind: str
    frame: str

    @property
    def place(self) -> tuple[int, int]:
        return self.sequence_number, self.step

    @property
    def id(self) -> str:
        return f"{self.sequence_number}-{self.step}"


@dataclass
class Append:
    """New entries of one reply, `behind` one that the log must have, and what became of them."""

    message_id: UUID
    owner_token: UUID
    entries: Sequence[Entry]
    keep: int = KEEP_RUNNING
    behind: Entry | None = None
    fenced: bool = field(default=False, init=False)
    has_gap: bool = field(default=False, init=False)


def log_key(message_id: UUID) -> str:
    return f"reply:{{{message_id}}}:log"


def fence_key(message_id: UUID) -> str:
    return f"reply:{{{message_id}}}:fence"


def heartbeat_key(message_id: UUID) -> str:
    return f"reply:{{{message_id}}}:alive"


async def append(appends: Sequence[Append]) -> None:
    """Append all in one pipelined call. Raises RedisError or OSError when it is not known that all were kept."""
    pipe = get_valkey().pipeline(transaction=False)
    for item in appends:
        values = [value for entry in item.entries for value in (entry.id, entry.kind, entry.frame)]
        keys = (log_key(item.message_id), fence_key(item.message_id))
        behind = item.behind.id if item.behind else ""
        pipe.eval(_APPEND, 2, *keys, str(item.owner_token), item.keep, behind, *values)
    results = await pipe.execute(raise_on_error=False)
    for item, result in zip(appends, results, strict=True):
        if isinstance(result, Exception):
            raise result
        item.fenced, item.has_gap = result == _FENCED, result == _HAS_GAP


async def beat(owners: Iterable[tuple[UUID, UUID]]) -> None:
    """Say that these replies (message id, owner token) are alive."""
    pipe = get_valkey().pipeline(transaction=False)
    for message_id, owner_token in owners:
        pipe.set(heartbeat_key(message_id), str(owner_token), ex=HEARTBEAT_TTL)
    await pipe.execute()


async def alive(owners: Sequence[tuple[UUID, UUID]]) -> list[bool]:
    """For each reply whether its owner's heartbeat is there."""
    if not owners:
        return []
    values = await get_valkey().mget([heartbeat_key(message_id) for message_id, _ in owners])
    return [value == str(token) for value, (_, token) in zip(values, owners, strict=True)]


async def fence(message_id: UUID, owner_token: UUID) -> None:
    """From now on this owner can append nothing."""
    await get_valkey().set(fence_key(message_id), str(owner_token), ex=KEEP_RUNNING)


async def read(message_id: UUID) -> list[Entry]:
    """The whole log, oldest first; empty when it has expired."""
    return [_entry(*item) for item in await get_valkey().xrange(log_key(message_id))]


async def exists(message_id: UUID) -> bool:
    return bool(await get_valkey().exists(log_key(message_id)))


async def read_new(positions: dict[UUID, str], *, wake_key: str, block_ms: int) -> list[tuple[UUID, list[Entry]]]:
    """Wait until one of the logs (message id: last entry id seen) has something new, or somebody calls `wake`."""
    ids = {log_key(message_id): message_id for message_id in positions}
    streams = {key: positions[message_id] for key, message_id in ids.items()} | {wake_key: "$"}
    answer: Any = await get_valkey().xread(streams, block=block_ms)
    return [(ids[key], [_entry(*item) for item in items]) for key, items in answer or [] if key in ids]


async def wake(wake_key: str) -> None:
    """End the blocking read on this key. Nobody waiting is no error."""
    pipe = get_valkey().pipeline(transaction=False)
    pipe.xadd(wake_key, {"wake": "1"}, maxlen=1)
    pipe.expire(wake_key, HEARTBEAT_TTL)
    await pipe.execute()


async def close(message_id: UUID, last: Entry | None, frame: str) -> None:
    """Append the end of a reply whose owner is gone, behind the last entry it left."""
    number, step = (last.sequence_number, last.step + 1) if last else (0, 1)
    await append([Append(message_id, UUID(int=0), [Entry(number, step, END, frame)], KEEP_AFTER_END)])


async def uptime() -> float:
    """Seconds since Valkey started. A young Valkey may not have heard the living yet."""
    info: dict[str, Any] = await get_valkey().info("server")
    return float(info["uptime_in_seconds"])


def _entry(entry_id: str, values: dict[str, str]) -> Entry:
    number, _, step = entry_id.partition("-")
    try:
        return Entry(int(number), int(step), values["kind"], values["frame"])
    except KeyError:
        raise ResponseError(f"The log entry {entry_id} is not one of ours.") from None
