"""A loaded chat model: renders a conversation, keeps places in the batch, and turns tokens into text."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass

import jinja2
import structlog
from transformers import PreTrainedTokenizerBase

from models_hub.engine.batch_loop import BatchLoop
from models_hub.engine.detokenizer import IncrementalDetokenizer
from models_hub.engine.errors import ContextLengthExceededError, EngineBusyError, InvalidRequestError
from models_hub.engine.formats import ChatMessage, ChatRequest, Sampling
from models_hub.engine.stop_strings import StopStrings

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Started:
    """The request has its place in the batch."""


@dataclass(frozen=True)
class Delta:
    text: str


@dataclass(frozen=True)
class Finished:
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


THINK = "<think>"
LONGEST_TAG = 16  # tokens of it and of the line ends behind it, a byte each at worst
ChatEvent = Started | Delta | Finished


class ChatTokenizer:
    """The tokenizer and chat template of one model. The template renders the whole prompt, special tokens included."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._lock = threading.Lock()
        # A first call settles its padding and truncation, which a later one would have to change under others.
        self._tokenizer("settled", add_special_tokens=False)

    def encode(self, messages: Sequence[ChatMessage]) -> list[int]:
        """Blocks: call it in a thread. A last message of role assistant is a prefix to continue."""
        with self._lock:
            return self._tokenizer(self.render(messages), add_special_tokens=False)["input_ids"]

    def render(self, messages: Sequence[ChatMessage]) -> str:
        turns = [{"role": message.role, "content": message.content} for message in messages]
        prefix = turns.pop()["content"] if turns[-1]["role"] == "assistant" else ""
        try:
            prompt = self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        except (jinja2.TemplateError, IndexError, KeyError, TypeError, ValueError) as error:
            message = f"The model's chat template does not accept these messages: {error}"
            raise InvalidRequestError(message, param="messages") from error
        return prompt + prefix

    def opens_thinking(self, ids: Sequence[int]) -> bool:
        """Whether the template has opened the model's thinking: the model itself then writes only where it ends."""
        return self._tokenizer.decode(ids[-LONGEST_TAG:], skip_special_tokens=False).rstrip().endswith(THINK)

    def decode(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


class LoadedChatModel:
    """At most `max_requests` replies are in the batch; the others wait in the order they came."""

    def __init__(
        self,
        tokenizer: ChatTokenizer,
        loop: BatchLoop,
        *,
        context_window: int,
        vocabulary_size: int,
        stop_ids: frozenset[int],
        max_requests: int,
        max_waiting: int,
        default_max_tokens: int,
    ) -> None:
        self.tokenizer = tokenizer
        self.loop = loop
        self.context_window = context_window
        self._vocabulary_size = vocabulary_size
        self._stop_ids = stop_ids
        self._max_waiting = max_waiting
        self._default_max_tokens = default_max_tokens
        self._places = asyncio.Semaphore(max_requests)
        self.waiting = 0

    async def warm_up(self) -> None:
        """Run a few tokens through everything, so that the first person waits for nothing."""
        messages = (ChatMessage("user", "Hello"),)
        request = ChatRequest(
            model="",
            messages=messages,
            sampling=Sampling(temperature=0.7, top_p=0.9),
            max_tokens=4,
            stop=(),
            stream=True,
            include_usage=False,
        )
        async with aclosing(self.reply(request)) as events:
            async for _event in events:
                pass

    async def stop(self) -> None:
        await self.loop.stop()

    async def count_tokens(self, messages: Sequence[ChatMessage]) -> int:
        return len(await asyncio.to_thread(self.tokenizer.encode, messages))

    async def reply(self, request: ChatRequest) -> AsyncIterator[ChatEvent]:
        """Yield `Started`, then text as it is written, then `Finished`. Closing it frees the place at once."""
        ids = await asyncio.to_thread(self.tokenizer.encode, request.messages)
        self._validate(ids)
        room = self.context_window - len(ids)
        max_new_tokens = min(request.max_tokens or self._default_max_tokens, room)
        async with self._place():
            stream = await self.loop.submit(ids, max_new_tokens=max_new_tokens, sampling=request.sampling)
            try:
                yield Started()
                if self.tokenizer.opens_thinking(ids):
                    yield Delta(f"{THINK}\n")
                writer = _Writer(self.tokenizer, request.stop, self._stop_ids)
                async with aclosing(stream.batches()) as batches:
                    async for batch in batches:
                        text = writer.write(batch)
                        if text:
                            yield Delta(text)
                        if writer.is_done:
                            break
                rest = writer.finish()
                if rest:
                    yield Delta(rest)
                yield Finished(writer.finish_reason, len(ids), writer.tokens)
            finally:
                self.loop.release(stream)

    def _validate(self, ids: list[int]) -> None:
        """What the batch loop cannot digest ends every reply in it, so it is refused here."""
        if not ids:
            raise InvalidRequestError("The prompt is empty.", param="messages")
        if len(ids) >= self.context_window:
            raise ContextLengthExceededError(
                context_window=self.context_window, prompt_tokens=len(ids), param="messages"
            )
        if min(ids) < 0 or max(ids) >= self._vocabulary_size:
            message = "The prompt holds a token that the model has no embedding for."
            raise InvalidRequestError(message, param="messages")

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        if self.waiting >= self._max_waiting:
            raise EngineBusyError(f"{self.waiting} requests are already waiting for this model; try again soon.")
        self.waiting += 1
        started = time.monotonic()
        try:
            await self._places.acquire()
        finally:
            self.waiting -= 1
        log.debug("engine.admitted", waited_ms=round((time.monotonic() - started) * 1000))
        try:
            yield
        finally:
            self._places.release()


class _Writer:
    """Token ids in, text out: stop tokens and stop strings end it, half characters and half stop strings wait."""

    def __init__(self, tokenizer: ChatTokenizer, stops: Sequence[str], stop_ids: frozenset[int]) -> None:
        self._detokenizer = IncrementalDetokenizer(tokenizer.decode)
        self._stop_strings = StopStrings(stops)
        self._stop_ids = stop_ids
        self._met_stop_token = False
        self.tokens = 0

    @property
    def is_done(self) -> bool:
        return self._met_stop_token or self._stop_strings.found

    @property
    def finish_reason(self) -> str:
        return "stop" if self.is_done else "length"

    def write(self, ids: list[int]) -> str:
        """One id after another, so that usage counts exactly up to the token that completes a stop string."""
        pieces = []
        for token in ids:
            self.tokens += 1
            if token in self._stop_ids:
                self._met_stop_token = True
                break
            pieces.append(self._stop_strings.feed(self._detokenizer.feed([token])))
            if self._stop_strings.found:
                break
        return "".join(pieces)

    def finish(self) -> str:
        return self._stop_strings.finish()
