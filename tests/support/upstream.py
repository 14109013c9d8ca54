"""A scripted provider over real HTTP: it speaks OpenAI's protocol (and the engine's additions) and fails on cue.

A script is `key=value` pairs joined by `+`. It is read, later ones winning, from the server's own default
(`Upstream("tokens=5")`, `--script`), the model's name (`tokens=200+rate=20`; any other name is just a name), the header
`X-Script`, and `[[tokens=200 rate=20]]` anywhere in the last user message.

    tokens=N        how long the answer is (12); `max_tokens` cuts it with finish_reason length
    rate=R          tokens a second (0: at once)           first=S   seconds before the first token
    text=KIND       words (`w0 w1 `), multibyte, markdown, wide (10,000 characters a token), echo (the question),
                     clock (each token is the moment it is sent)
    reasoning=N     N tokens of reasoning_content first    think=N   N tokens inside <think></think> first
    usage=no        never says usage (`running`: with each token)
    finish=F        the finish reason (stop); `none`: ends without one
    linger=yes      says the finish reason, then neither usage nor good-bye
    noise=yes       empty choices, comments and unknown fields between the chunks

    fail=KIND       401 403 404 429 500 503 not_ready (503) context (400) bad (400)
                    html garbage json (all 200, and no answer) drop (no answer at all) hang (no answer headers)
    times=K         only the first K requests of this model fail that way     retry_after=S   sent with 429 and 503
    refuses=NAMES   400 when the request carries one of them, e.g. `refuses=max_tokens,temperature`
    end=KIND        in the stream, after `at=N` tokens (half of them; 0: before the first): drop hang garbage html error
                    ping (comments alone, for ever)

The text is deterministic: `answer_text(N)`. A last message of role assistant is continued: counting goes on after it.
Every request is kept in `upstream.requests`, with what was sent and whether the client hung up early.

In tests: the fixture `upstream` (`tests/support/fixtures.py`). Alone: `python -m tests.support.upstream --port 9000`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from typing import Self

from aiohttp import web

from tests.support.refusals import failure, refused_parameter
from tests.support.script import PROMPT_SCRIPT, Script, answer_text, parse_script, token_at

__all__ = ["HUNG_UP", "Recorded", "Upstream", "answer_text", "parse_script", "token_at"]

HUNG_UP = "hung_up"
CHUNKS_AT_ONCE = 32


@dataclass
class Recorded:
    """One request as it arrived, and how it went."""

    path: str
    headers: dict[str, str]
    body: dict
    peer: tuple = ()
    tokens_sent: int = 0
    outcome: str = "running"  # running | finished | hung_up (by the client) | failed (as scripted)
    started_at: float = field(default_factory=time.monotonic)
    ended_at: float | None = None

    @property
    def hung_up(self) -> bool:
        return self.outcome == HUNG_UP


class Upstream:
    """The server, in a thread with a loop of its own, so that sync and async tests use it alike."""

    def __init__(self, script: str = "", *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.script = script
        self.requests: list[Recorded] = []
        self.labels = [("positive", 0.9), ("negative", 0.1)]
        self.models_are_listed = True
        self._address = (host, port)
        self._seen: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._ids = count(1)

    @property
    def base_url(self) -> str:
        """With `/v1`, as OPENAI_BASE_URL wants it."""
        return f"{self.url}/v1"

    @property
    def url(self) -> str:
        """Without `/v1`, as ENGINE_URL wants it."""
        return f"http://{self._address[0]}:{self._address[1]}"

    @property
    def chats(self) -> list[Recorded]:
        return [request for request in self.requests if request.path.endswith("/chat/completions")]

    def start(self) -> Self:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="upstream", daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.open(), self._loop).result(10)
        return self

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def wait_until(self, condition: Callable[[Upstream], object], *, timeout: float = 10) -> None:
        """Block until the condition holds; it is looked at whenever a request begins, moves or ends."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition(self), timeout):
                raise AssertionError(f"The upstream never got there: {self.requests}")

    async def wait(self, condition: Callable[[Upstream], object], *, timeout: float = 10) -> None:  # noqa: ASYNC109
        await asyncio.to_thread(self.wait_until, condition, timeout=timeout)

    async def open(self) -> None:
        """Listen, in the running loop."""
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/v1/models/{name:.+}", self._model)
        app.router.add_post("/v1/tokenize", self._tokenize)
        app.router.add_post("/v1/classify", self._classify)
        app.router.add_post("/v1/fill-mask", self._fill_mask)
        app.router.add_get("/health", self._health)
        # Without handler_cancellation a client that hangs up during a pause is noticed only at the next write.
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, *self._address, backlog=1024)
        await site.start()
        self._address = site._server.sockets[0].getsockname()[:2]

    @contextmanager
    def _recorded(self, request: web.Request, body: dict):
        record = Recorded(request.path, dict(request.headers), body, request.transport.get_extra_info("peername"))
        with self._changed:
            self.requests.append(record)
            self._changed.notify_all()
        try:
            yield record
            record.outcome = "finished" if record.outcome == "running" else record.outcome
        except (asyncio.CancelledError, ConnectionError):
            record.outcome = HUNG_UP if record.outcome == "running" else record.outcome
            raise
        finally:
            record.ended_at = time.monotonic()
            with self._changed:
                self._changed.notify_all()

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        with self._recorded(request, body) as record:
            values = self._values(request, body)
            name = f"{body.get('model')} {values.get('fail', '')}"
            self._seen[name] += 1
            refused = await self._refuse(request, record, values, attempt=self._seen[name])
            if refused is not None:
                record.outcome = "failed"
                return refused
            script = Script(values, body)
            await asyncio.sleep(float(values.get("first", 0)))
            if not body.get("stream"):
                return web.json_response(self._whole_answer(script, body))
            return await self._stream(request, body, script, record)

    def _values(self, request: web.Request, body: dict) -> dict[str, str]:
        users = [m.get("content") for m in body.get("messages", ()) if m.get("role") == "user"]
        in_prompt = PROMPT_SCRIPT.findall(str(users[-1])) if users else []
        texts = [self.script, body.get("model", ""), request.headers.get("X-Script", ""), *in_prompt]
        return {key: value for text in texts for key, value in parse_script(text).items()}

    async def _refuse(
        self, request: web.Request, record: Recorded, values: dict[str, str], *, attempt: int
    ) -> web.StreamResponse | None:
        for name in values.get("refuses", "").split(","):
            if name and name in record.body:
                return refused_parameter(name)
        kind = values.get("fail", "")
        if not kind or attempt > int(values.get("times", 1_000_000)):
            return None
        if kind == "hang":
            await asyncio.sleep(3600)
        if kind == "drop":
            request.transport.abort()
            return web.Response()  # goes nowhere
        return failure(kind, values.get("retry_after", ""))

    async def _stream(self, request: web.Request, body: dict, script: Script, record: Recorded) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        head, tail = self._frame(body)
        await response.write(head + b'{"role":"assistant","content":""}' + tail(None))
        await self._send_deltas(request, response, script, record, head, tail)
        if record.outcome == "failed":
            return response
        if script.finish != "none":
            await response.write(head + b"{}" + tail(script.finish))
        if script.values.get("linger"):
            await asyncio.sleep(3600)
        if (body.get("stream_options") or {}).get("include_usage") and script.values.get("usage") != "no":
            frame = json.loads((head + b"{}" + tail(None))[6:]) | {"choices": [], "usage": script.usage}
            await response.write(sse(json.dumps(frame)))
        if script.finish != "none":
            await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        return response

    async def _send_deltas(self, request, response, script: Script, record: Recorded, head: bytes, tail) -> None:
        clock = asyncio.get_running_loop().time
        started, waiting, ending = clock(), [], tail(None)
        noise = b': hello\n\nevent: x\ndata: {"choices":[]}\n\n' if script.values.get("noise") else b""
        deltas = script.deltas()
        for index, (name, text) in enumerate([*deltas, ("", "")]):
            if script.end and index == script.end_at + len(deltas) - len(script.answer):
                await response.write(b"".join(waiting) or noise)
                return await self._break(request, response, script.end, record)
            if not name:
                break
            if script.kind == "clock":
                text = f"{time.monotonic():.4f} "
            waiting.append(noise + head + encoded(name, text) + ending)
            if script.values.get("usage") == "running":
                waiting.append(
                    sse(json.dumps({"choices": [], "usage": script.usage | {"completion_tokens": index + 1}}))
                )
            record.tokens_sent += 1
            if script.rate or len(waiting) == CHUNKS_AT_ONCE:
                await response.write(b"".join(waiting))
                waiting.clear()
                # Against the start, not the last token: a slow reader does not stretch the schedule.
                await asyncio.sleep(max(0, started + (index + 1) / script.rate - clock()) if script.rate else 0)
        await response.write(b"".join(waiting))

    async def _break(self, request: web.Request, response: web.StreamResponse, kind: str, record: Recorded) -> None:
        with self._changed:
            self._changed.notify_all()
        if kind == "hang":
            await asyncio.sleep(3600)
        while kind == "ping":  # silence with a sign of life
            await response.write(b": still there\n\n")
            await asyncio.sleep(0.05)
        record.outcome = "failed"
        if kind == "drop":
            await asyncio.sleep(0.02)  # lets what was written leave before the reset overtakes it
            request.transport.abort()
            return
        broken = {
            "garbage": b'data: {"choices": [{"delta": {"content": "w\n\n',
            "html": b"data: <html><body>Bad gateway</body></html>\n\n",
            "error": sse(json.dumps({"error": {"message": "Overloaded.", "type": "server_error", "code": None}})),
        }
        await response.write(broken[kind])
        await response.write_eof()

    def _frame(self, body: dict) -> tuple[bytes, Callable[[str | None], bytes]]:
        opening = {"id": f"chatcmpl-{next(self._ids)}", "object": "chat.completion.chunk", "created": 1}
        opening |= {"model": body.get("model")}
        head = b"data: " + json.dumps(opening).encode()[:-1] + b', "choices": [{"index": 0, "delta": '
        return head, lambda finish: b', "finish_reason": ' + json.dumps(finish).encode() + b"}]}\n\n"

    def _whole_answer(self, script: Script, body: dict) -> dict:
        message = {"role": "assistant", "content": "".join(script.answer)}
        choice = {"index": 0, "message": message, "finish_reason": script.finish}
        answer = {"id": f"chatcmpl-{next(self._ids)}", "object": "chat.completion", "created": 1}
        return answer | {"model": body.get("model"), "choices": [choice], "usage": script.usage}

    async def _models(self, request: web.Request) -> web.Response:
        with self._recorded(request, {}):
            refused = self._refuse_plain(self.script)
            return refused or web.json_response({"object": "list", "data": [{"id": "scripted", "object": "model"}]})

    async def _model(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        with self._recorded(request, {}):
            refused = self._refuse_plain(f"{self.script}+{name}" if self.models_are_listed else "fail=404")
            return refused or web.json_response({"id": name, "object": "model", "created": 1, "owned_by": "tests"})

    def _refuse_plain(self, script: str) -> web.Response | None:
        kind = parse_script(script).get("fail", "")
        return failure(kind, "") if kind and kind not in {"hang", "drop"} else None

    async def _tokenize(self, request: web.Request) -> web.Response:
        body = await request.json()
        with self._recorded(request, body):
            refused = self._refuse_plain(body.get("model", ""))
            return refused or web.json_response({"tokens": Script({}, body).prompt_tokens})

    async def _classify(self, request: web.Request) -> web.Response:
        body = await request.json()
        with self._recorded(request, body):
            rows = [{"label": label, "score": score} for label, score in self.labels][: body.get("top_k") or None]
            usage = {"prompt_tokens": sum(len(text.split()) for text in body["input"]), "total_tokens": 0}
            answer = {"object": "list", "data": [rows for _ in body["input"]], "usage": usage}
            return self._refuse_plain(body.get("model", "")) or web.json_response(answer)

    async def _fill_mask(self, request: web.Request) -> web.Response:
        body = await request.json()
        with self._recorded(request, body):
            words = (("cat", 0.6), ("dog", 0.3), ("cow", 0.1))
            candidates = [{"label": word, "score": score} for word, score in words][: body.get("top_k", 5)]
            [text] = body["input"]
            data = [candidates] * (text.count("[MASK]") or body.get("continue_tokens", 5))
            usage = {"prompt_tokens": len(text.split()), "completion_tokens": len(data)}
            answer = {"object": "list", "data": data, "text": text.replace("[MASK]", "cat"), "usage": usage}
            return self._refuse_plain(body.get("model", "")) or web.json_response(answer)

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})


@lru_cache(maxsize=100_000)
def encoded(name: str, text: str) -> bytes:
    return json.dumps({name: text}, ensure_ascii=False).encode()


def sse(data: str) -> bytes:
    return f"data: {data}\n\n".encode()


async def serve(upstream: Upstream) -> None:
    await upstream.open()
    print(f"Listening on {upstream.base_url}", flush=True)
    await asyncio.Event().wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--script", default="", help="the default script of every request")
    options = parser.parse_args()
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(Upstream(options.script, host=options.host, port=options.port)))


if __name__ == "__main__":
    main()
