"""Chat over the OpenAI protocol: OpenAI itself, and everything that speaks like it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager

import httpx2
import openai

from models_hub.base import (
    ModelHubError,
    PromptMessage,
    ProviderBadResponseError,
    ProviderNotFoundError,
    ReplyOptions,
    ReplyPart,
    Role,
    UsageSoFar,
)
from models_hub.clients.answer_reader import AnswerReader
from models_hub.clients.errors import error_from_answer, mapped_errors
from models_hub.clients.parameters import Parameters, build_body
from models_hub.clients.retries import Attempts
from models_hub.clients.sse import SseDecoder
from models_hub.clients.transport import get_client
from models_hub.targets import ModelTarget

# After the finish reason only the usage is missing; a provider that forgets to hang up does not hold the reply open.
SECONDS_FOR_USAGE = 5.0
# Reading a stream to its very end lets its connection be used again.
SECONDS_FOR_DRAINING = 0.05

Remember = Callable[[ModelTarget, dict], None]


class OpenAIChatModel:
    def __init__(
        self, target: ModelTarget, *, request_timeout: float, max_retries: int, remember: Remember | None = None
    ) -> None:
        """`remember` is told what the provider was found to refuse; it must not block."""
        self.target = target
        self._silence = request_timeout
        self._max_retries = max_retries
        self._remember = remember

    async def stream(
        self, messages: Sequence[PromptMessage], *, options: ReplyOptions
    ) -> AsyncGenerator[ReplyPart, None]:
        attempts = self._attempts()
        while True:
            is_shown = False
            try:
                async with aclosing(self._attempt(messages, options)) as parts:
                    async for part in parts:
                        is_shown = is_shown or not isinstance(part, UsageSoFar)
                        yield part
                return
            except ModelHubError as error:
                if is_shown:
                    raise
                await attempts.pause(error)

    async def count_tokens(self, messages: Sequence[PromptMessage]) -> int | None:
        return None

    async def check(self) -> None:
        try:
            await self.get(f"/models/{self.target.provider_model}")
        except ProviderNotFoundError:
            # Not every compatible server lists its models; a single token settles it.
            await self._answer_one_token()

    async def check_connection(self) -> None:
        """Like `check`, without a model: the provider answers and takes the key."""
        await self.get("/models")

    async def get(self, path: str) -> dict:
        """A plain JSON request, tried again like a reply that has shown nothing."""
        client = get_client(self.target)
        return await self._request(lambda: client.get(path, cast_to=httpx2.Response))

    async def post(self, path: str, body: dict) -> dict:
        client = get_client(self.target)
        return await self._request(lambda: client.post(path, cast_to=httpx2.Response, body=body))

    async def _request(self, send: Callable[[], Awaitable[httpx2.Response]]) -> dict:
        attempts = self._attempts()
        while True:
            try:
                with mapped_errors(self.target, silence=self._silence):
                    async with asyncio.timeout(self._silence):
                        return _as_object(await send())
            except ModelHubError as error:
                await attempts.pause(error)

    def _attempts(self) -> Attempts:
        return Attempts(max_retries=self._max_retries, longest_wait=self._silence)

    async def _answer_one_token(self) -> None:
        options = ReplyOptions(max_new_tokens=1, temperature=1.0)
        async with aclosing(self.stream([PromptMessage(Role.USER, "Hi")], options=options)) as parts:
            async for _ in parts:
                pass

    async def _attempt(
        self, messages: Sequence[PromptMessage], options: ReplyOptions
    ) -> AsyncGenerator[ReplyPart, None]:
        is_continuation = bool(messages and messages[-1].role == Role.ASSISTANT and messages[-1].content)
        reader, decoder = AnswerReader(self.target, is_continuation=is_continuation), SseDecoder()
        async with self._open(messages, options) as response:
            chunks, has_news, deadline = response.aiter_bytes(), True, 0.0
            while not reader.is_done:
                if has_news:  # comments that only keep the connection alive are none
                    deadline = asyncio.get_running_loop().time() + self._patience(reader)
                chunk = await self._next(chunks, reader, deadline)
                events = decoder.feed(chunk) if chunk else decoder.finish()
                has_news = bool(events)
                for part in reader.read(events):
                    yield part
                if reader.usage and not reader.has_finished:
                    yield UsageSoFar(reader.usage)
                if not chunk:
                    break
            if reader.has_finished:
                await _drain(chunks)
        for last in reader.finish():
            yield last

    def _patience(self, reader: AnswerReader) -> float:
        return min(SECONDS_FOR_USAGE, self._silence) if reader.has_finished else self._silence

    async def _next(self, chunks: AsyncIterator[bytes], reader: AnswerReader, deadline: float) -> bytes:
        """The next bytes, or none at the end. Once the answer has finished, no fault can take it back."""
        try:
            async with asyncio.timeout_at(deadline):
                return await anext(chunks, b"")
        except (TimeoutError, httpx2.HTTPError):
            if reader.has_finished:
                return b""
            with mapped_errors(self.target, silence=self._silence):
                raise

    @asynccontextmanager
    async def _open(self, messages: Sequence[PromptMessage], options: ReplyOptions) -> AsyncIterator[httpx2.Response]:
        """The response whose body is the stream; leaving closes it, and with it the upstream request."""
        client, parameters = get_client(self.target), Parameters(self.target)
        while True:
            body = build_body(self.target, messages, options, parameters)
            try:
                with mapped_errors(self.target, silence=self._silence):
                    async with asyncio.timeout(self._silence):
                        response = await self._send(client, body)
                break
            except ModelHubError as error:
                if not self._corrected(parameters, body, error.__cause__):
                    raise
        try:
            await self._refuse_what_is_no_stream(response)
            yield response
        finally:
            await response.aclose()

    async def _send(self, client: openai.AsyncOpenAI, body: dict) -> httpx2.Response:
        # The typed `chat.completions.create` costs 2 ms more for each request and 100 us for each chunk.
        stream = await client.post(
            "/chat/completions", cast_to=object, body=body, stream=True, stream_cls=openai.AsyncStream[object]
        )
        return stream.response

    def _corrected(self, parameters: Parameters, body: dict, error: BaseException | None) -> bool:
        if not isinstance(error, openai.BadRequestError | openai.UnprocessableEntityError):
            return False
        can_try_again, is_lesson = parameters.correct(body, error.body)
        if is_lesson and self._remember:
            self._remember(self.target, parameters.to_dict())
        return can_try_again

    async def _refuse_what_is_no_stream(self, response: httpx2.Response) -> None:
        kind = response.headers.get("content-type", "").split(";")[0].strip().lower()
        if kind == "application/json":
            with mapped_errors(self.target, silence=self._silence):
                async with asyncio.timeout(self._silence):
                    await response.aread()
            answer = _as_object(response)
            if answer.get("error"):
                raise error_from_answer(self.target, None, answer["error"])
        if kind in {"application/json", "text/html"}:
            message = f"The provider of {self.target.name} did not answer with a stream. Is its address right?"
            raise ProviderBadResponseError(message, detail=kind)


def _as_object(response: httpx2.Response) -> dict:
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise ProviderBadResponseError("The provider sent an answer that makes no sense. Is its address right?")
    return answer


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    try:
        async with asyncio.timeout(SECONDS_FOR_DRAINING):
            async for _ in chunks:
                pass
    except (TimeoutError, httpx2.HTTPError):
        pass  # the answer is whole; only the connection is lost
