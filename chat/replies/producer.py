"""Produces one reply: asks the model, or its fallback, and writes how it ended. Knows no socket and no HTTP."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing

import structlog

from chat.models import Message
from chat.replies import context
from chat.replies.prompt import with_own_system_prompt
from chat.replies.running import RunningReply
from chat.replies.start import ReplyJob
from chat.replies.store import ReplyEnd
from chat.text import storable
from models_hub import breaker, clients
from models_hub.base import (
    ChatModel,
    ContextLengthExceededError,
    Finished,
    Labels,
    ModelHubError,
    PromptMessage,
    ProviderBadResponseError,
    ProviderError,
    ProviderRefusedError,
    ProviderUnreachableError,
    ReasoningDelta,
    Role,
    TextDelta,
    Usage,
    UsageSoFar,
)
from models_hub.targets import CHAT, ENGINE, ModelTarget

# Whoever presses Stop waits for it.
LONGEST_COUNT = 0.5
logger = structlog.get_logger(__name__)


class Producer:
    """`on_text` is called whenever the reply has something new."""

    def __init__(self, reply: RunningReply, job: ReplyJob, *, on_text: Callable[[], None]) -> None:
        self._reply = reply
        self._job = job
        self._on_text = on_text
        self._started = time.monotonic()
        self._asked: tuple[ChatModel, Sequence[PromptMessage]] | None = None
        self._end = ReplyEnd(status=Message.Status.COMPLETE, content="", messages_left_out=job.left_out)

    async def produce(self) -> None:
        """Stream the answer into the reply. Raises a ModelHubError, or CancelledError when it is stopped."""
        await self._ask_in_turn()

    async def count(self, outcome: BaseException | None) -> None:
        """What a reply that was cut short has used: providers say it only at the end, but our engine counts for us."""
        was_cut = self._reply.cancel_requested or isinstance(outcome, ModelHubError)
        if self._end.usage or not was_cut or not self._asked or not self._reply.content:
            return
        model, prompt = self._asked
        before = prompt[:-1] if prompt[-1].role == Role.ASSISTANT else prompt
        whole = (*before, PromptMessage(Role.ASSISTANT, self._reply.content))
        try:
            async with asyncio.timeout(LONGEST_COUNT):
                counts = await asyncio.gather(model.count_tokens(prompt), model.count_tokens(whole))
        except (ModelHubError, TimeoutError):
            return
        if None not in counts:
            self._end.usage = Usage(counts[0], max(0, counts[1] - counts[0]))

    def end(self, outcome: BaseException | None) -> ReplyEnd:
        """How it ended, given what `produce` raised."""
        if isinstance(outcome, asyncio.CancelledError):
            self._end.set_stopped() if self._reply.cancel_requested else self._end.set_interrupted()
        elif isinstance(outcome, ModelHubError):
            self._end.set_error(outcome)
        elif outcome is not None:
            logger.error("reply_crashed", message_id=str(self._job.message_id), exc_info=outcome)
            self._end.set_error(ProviderBadResponseError("Something went wrong here while asking the model."))
        self._end.content, self._end.reasoning = self._reply.content, self._reply.reasoning
        self._end.total_ms = self._elapsed_ms()
        if self._end.usage and (before := self._job.used):
            now = self._end.usage
            tokens = before.prompt_tokens + now.prompt_tokens, before.completion_tokens + now.completion_tokens
            self._end.usage = Usage(*tokens)
        self._log_end()
        return self._end

    async def _ask_in_turn(self) -> None:
        """The requested model, then its fallback; the fallback answers only when nothing was shown yet."""
        *first_choices, last = self._job.targets
        for target in first_choices:
            try:
                return await self._ask(target)
            except ContextLengthExceededError:
                raise
            except ModelHubError as error:
                if self._reply.has_shown_anything:
                    raise
                logger.info("fallback_answers", model=target.slug, code=error.code, fallback=last.slug)
        return await self._ask(last)

    async def _ask(self, target: ModelTarget) -> None:
        breaker.check(target.slug)
        self._end.answered_by = target
        if target is not self._job.targets[0]:
            self._end.requested_model = self._job.targets[0].slug
        try:
            await self._stream_fitting(clients.open_reply_source(target), target)
        except ProviderRefusedError:
            breaker.record_success(target.slug)
            raise
        except ProviderError as error:
            # Our own engine, while it starts again: it is back before a rest would be over.
            if not (target.kind == ENGINE and isinstance(error, ProviderUnreachableError)):
                breaker.record_failure(target.slug)
            raise
        breaker.record_success(target.slug)

    async def _stream_fitting(self, model: ChatModel, target: ModelTarget) -> None:
        """An estimated prompt that turns out too long is halved once."""
        options, prompt = self._job.options, with_own_system_prompt(self._job.prompt, target)
        if target.task != CHAT:  # it reads the question and nothing else
            self._end.messages_left_out = 0
            return await self._stream(model, context.FittedPrompt(prompt, 0))
        fitted = await context.fit_prompt(
            model, prompt, window=target.context_window, max_new_tokens=options.max_new_tokens
        )
        self._end.messages_left_out = self._job.left_out + fitted.left_out
        try:
            return await self._stream(model, fitted)
        except ContextLengthExceededError:
            shorter = context.halve(fitted.messages)
            if shorter is None or self._reply.has_shown_anything:
                raise
            self._end.messages_left_out += shorter.left_out
            return await self._stream(model, shorter)

    async def _stream(self, model: ChatModel, prompt: context.FittedPrompt) -> None:
        reply, self._asked = self._reply, (model, prompt.messages)
        async with aclosing(model.stream(prompt.messages, options=self._job.options)) as parts:
            async for part in parts:
                match part:
                    case TextDelta(text):
                        reply.add_text(text)
                        self._note_progress()
                    case ReasoningDelta(text):
                        reply.add_reasoning(text)
                        self._note_progress()
                    case Labels(labels):
                        self._end.labels = [{"label": storable(item.label), "score": item.score} for item in labels]
                    case UsageSoFar(usage):
                        self._end.usage = usage
                    case Finished(finish_reason, usage):
                        self._end.finish_reason, self._end.usage = finish_reason, usage

    def _note_progress(self) -> None:
        if self._end.first_token_ms is None:
            self._end.first_token_ms = self._elapsed_ms()
        self._on_text()

    def _elapsed_ms(self) -> int:
        return round((time.monotonic() - self._started) * 1000)

    def _log_end(self) -> None:
        end = self._end
        logger.info(
            "reply_ended",
            message_id=str(self._job.message_id),
            model=self._job.targets[0].slug,
            status=end.status,
            code=end.error_code or None,
            characters=len(end.content),
            first_token_ms=end.first_token_ms,
            total_ms=end.total_ms,
        )
