"""Chat with local Hugging Face models through the engine, which speaks the OpenAI protocol and can count tokens."""

from __future__ import annotations

from collections.abc import Sequence

from models_hub.base import PromptMessage, ProviderBadResponseError, ProviderNotFoundError
from models_hub.clients.openai_chat import OpenAIChatModel


class TransformersChatModel(OpenAIChatModel):
    async def count_tokens(self, messages: Sequence[PromptMessage]) -> int | None:
        """Exact; None where another server stands in the engine's place and cannot tell."""
        rows = [{"role": message.role.value, "content": message.content} for message in messages]
        try:
            answer = await self.post("/tokenize", {"model": self.target.provider_model, "messages": rows})
        except ProviderNotFoundError:
            return None
        count = answer.get("tokens")
        return count if isinstance(count, int) else None

    async def check(self) -> None:
        await check_is_served(self)


async def check_is_served(client: OpenAIChatModel) -> None:
    """The engine lists what it can load; asking it for a token would load the model and push out another."""
    answer = await client.get("/models")
    models = answer.get("data")
    if not isinstance(models, list):
        raise ProviderBadResponseError("The engine sent a list of models that makes no sense.")
    names = {model.get("id") for model in models if isinstance(model, dict)}
    if client.target.provider_model not in names:
        raise ProviderNotFoundError(f"The engine does not know {client.target.provider_model}.")
