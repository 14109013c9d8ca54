"""Text classification and masked-token generation with BERT-like models, through the engine."""

from __future__ import annotations

from collections.abc import Sequence

from models_hub.base import LabelScore, ProviderBadResponseError, Usage
from models_hub.clients.counts import read_scores, read_usage
from models_hub.clients.openai_chat import OpenAIChatModel
from models_hub.clients.transformers_chat import check_is_served

MAX_LABELS = 20


class DistilBertClassifier:
    def __init__(self, connection: OpenAIChatModel) -> None:
        self._connection = connection
        self.target = connection.target

    async def classify(self, texts: Sequence[str]) -> list[list[LabelScore]]:
        return (await self.classify_with_usage(texts))[0]

    async def classify_with_usage(self, texts: Sequence[str]) -> tuple[list[list[LabelScore]], Usage | None]:
        body = {"model": self.target.provider_model, "input": list(texts), "top_k": MAX_LABELS}
        answer = await self._connection.post("/classify", body)
        rows = _rows(answer)
        if len(rows) != len(texts) or not all(rows):
            raise ProviderBadResponseError("The engine did not label every text.")
        return [read_scores(row) for row in rows], read_usage(answer.get("usage"))

    async def check(self) -> None:
        await check_is_served(self._connection)


class DistilBertMaskFiller:
    def __init__(self, connection: OpenAIChatModel) -> None:
        self._connection = connection
        self.target = connection.target

    async def fill_mask(self, text: str, *, top_k: int = 5) -> list[list[LabelScore]]:
        return (await self.fill_mask_with_usage(text, top_k=top_k))[0]

    async def fill_mask_with_usage(
        self, text: str, *, top_k: int, continue_tokens: int | None = None
    ) -> tuple[list[list[LabelScore]], Usage | None]:
        """`continue_tokens`: how many masks the engine puts behind a text that has none."""
        body = {"model": self.target.provider_model, "input": [text], "top_k": top_k}
        if continue_tokens:
            body["continue_tokens"] = continue_tokens
        answer = await self._connection.post("/fill-mask", body)
        masks = [read_scores(candidates) for candidates in _rows(answer)]
        if not masks or not all(masks):
            raise ProviderBadResponseError("The engine did not fill the masks.")
        return masks, read_usage(answer.get("usage"))

    async def check(self) -> None:
        await check_is_served(self._connection)


def _rows(answer: dict) -> list:
    rows = answer.get("data")
    if not isinstance(rows, list):
        raise ProviderBadResponseError("The engine sent an answer that makes no sense.")
    return rows
