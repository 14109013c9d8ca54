"""Announcements leave in the order they were made, also from threads, and reach nobody before the change is kept."""

from __future__ import annotations

import asyncio

from asgiref.sync import sync_to_async
from channels.layers import get_channel_layer
from django.db import transaction

from chat import broadcast
from chat.events import ConversationUpdated
from chat.replies import get_hub


async def listen(user_id: int) -> str:
    layer = get_channel_layer()
    channel = await layer.new_channel()
    await layer.group_add(broadcast.user_group(user_id), channel)
    return channel


async def titles(channel: str, count: int) -> list[str]:
    layer = get_channel_layer()
    async with asyncio.timeout(10):
        return [(await layer.receive(channel))["frame"]["conversation"]["title"] for _ in range(count)]


def announce_all(user_id: int, names: list[str]) -> None:
    for name in names:
        broadcast.announce(user_id, ConversationUpdated(conversation={"title": name}))


async def test_announcements_leave_in_the_order_they_were_made(alice, live):
    get_hub().start()
    channel = await listen(alice.id)
    names = [str(number) for number in range(20)]
    await sync_to_async(announce_all)(alice.id, names)
    assert await titles(channel, 20) == names


async def test_without_a_hub_they_leave_all_the_same(alice, live):
    channel = await listen(alice.id)
    await sync_to_async(announce_all)(alice.id, ["one"])
    assert await titles(channel, 1) == ["one"]


async def test_what_was_rolled_back_is_not_announced(alice, live):
    get_hub().start()
    channel = await listen(alice.id)

    def roll_back() -> None:
        with transaction.atomic():
            announce_all(alice.id, ["never"])
            transaction.set_rollback(True)
        announce_all(alice.id, ["kept"])

    await sync_to_async(roll_back)()
    assert await titles(channel, 1) == ["kept"]
