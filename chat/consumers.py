"""The chat socket: checks who speaks, parses a frame, makes one call, answers. No rule lives here."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import structlog
from channels.consumer import get_handler_name
from channels.generic.websocket import AsyncWebsocketConsumer
from django.db import Error as DatabaseFault

from chat import events
from chat.broadcast import key_group, session_group, tell, user_group
from chat.errors import ChatError, InvalidError
from chat.replies import follow, get_hub, start
from chat.replies.database import reader, writer
from chat.replies.start import Started
from chat.socket_access import SocketAccess
from chat.subscriptions import Outbox, Subscriptions

logger = structlog.get_logger(__name__)

UNAUTHENTICATED = 4401
TRY_AGAIN_LATER = 1013


class ChatConsumer(AsyncWebsocketConsumer):
    access: SocketAccess | None
    subscriptions: Subscriptions | None = None

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:  # nobody says "disconnect" to one that failed or was cancelled
            if self.subscriptions is not None:
                self.subscriptions.close()

    async def dispatch(self, message: dict[str, Any]) -> None:
        """As Channels does, but for its look in another thread for old database connections: ours are kept."""
        await getattr(self, get_handler_name(message))(message)

    async def connect(self) -> None:
        self.access = self.scope["access"]
        await self.accept()
        if self.access is None:
            return await self.close(UNAUTHENTICATED)
        get_hub().start()
        self.subscriptions = Subscriptions(Outbox(self.send, self._overflow))
        for group in self._groups(self.access):
            await self.channel_layer.group_add(group, self.channel_name)

    async def disconnect(self, code: int) -> None:
        if self.subscriptions is None:
            return
        self.subscriptions.close()
        for group in self._groups(self.access):
            await self.channel_layer.group_discard(group, self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self.subscriptions is None:
            return
        request_id = None
        try:
            if text_data is None:
                raise InvalidError("The socket takes JSON text, not binary data.")
            frame = events.parse_client_frame(text_data)
            request_id = frame.request_id
            await _HANDLERS[type(frame)](self, frame)
        except ChatError as error:
            request_id = getattr(error, "request_id", request_id)
            self.subscriptions.put(events.ErrorFrame.of(error, request_id))
        except DatabaseFault:
            logger.exception("frame_failed")
            sentence = "The database did not answer. Nothing was changed; send it again."
            self.subscriptions.put(events.ErrorFrame(code="unavailable", message=sentence, request_id=request_id))

    async def create_message(self, frame: events.MessageCreate) -> None:
        await self._show(await get_hub().begin(start.create_message, self.access.asker, frame), frame)

    async def create_reply(self, frame: events.ReplyCreate) -> None:
        await self._show(await get_hub().begin(start.create_reply, self.access.asker, frame), frame)

    async def continue_reply(self, frame: events.ReplyContinue) -> None:
        await get_hub().settle(frame.message_id)
        await self._show(await get_hub().begin(start.continue_reply, self.access.asker, frame), frame)

    async def _show(self, started: Started, frame: events.ClientFrame) -> None:
        """Tell this socket in the contract's order, then the person's other sockets."""
        self.subscriptions.add(UUID(started.conversation["id"]))
        for event in started.events(frame.request_id):
            self.subscriptions.put(event)
        await self.subscriptions.follow(started.reply, after=started.sequence_number)
        if started.job:
            tell(user_group(self.access.asker.user_id), started.news(origin=self.channel_name))

    async def cancel_reply(self, frame: events.ReplyCancel) -> None:
        ended = await writer.run(follow.cancel_reply, self.access.asker, frame.message_id)
        if ended:
            return self.subscriptions.put(events.ReplyEnded(message=ended, request_id=frame.request_id))
        await self.subscriptions.follow_end(frame.message_id, frame.request_id)
        await get_hub().cancel(frame.message_id)

    async def select_leaf(self, frame: events.ConversationSelect) -> None:
        conversation = await writer.run(follow.select_leaf, self.access.asker, frame.conversation_id, frame.message_id)
        self.subscriptions.put(events.ConversationUpdated(conversation=conversation, request_id=frame.request_id))

    async def subscribe(self, frame: events.ConversationSubscribe) -> None:
        shown = await reader.run(
            follow.list_replies_to_show, self.access.asker, frame.conversation_id, frame.after.keys()
        )
        self.subscriptions.add(frame.conversation_id)
        self.subscriptions.put(
            events.ConversationSubscribed(
                conversation_id=str(frame.conversation_id),
                current_leaf_id=shown.current_leaf_id,
                running=shown.running,
                request_id=frame.request_id,
            )
        )
        for message in [*shown.running, *shown.ended]:
            await self.subscriptions.follow(message, after=frame.after.get(UUID(message["id"]), 0))

    async def unsubscribe(self, frame: events.ConversationUnsubscribe) -> None:
        if not self.subscriptions.follows(frame.conversation_id):
            await reader.run(follow.check_conversation, self.access.asker, frame.conversation_id)
        self.subscriptions.remove(frame.conversation_id)

    async def ping(self, frame: events.Ping) -> None:
        self.subscriptions.put(events.Pong(request_id=frame.request_id))

    async def conversation_event(self, message: dict[str, Any]) -> None:
        """Something about one of this person's conversations, from any process."""
        self.subscriptions.put_frame(message["frame"])

    async def reply_begun(self, message: dict[str, Any]) -> None:
        """A socket of this person has started a reply: another one than this, show it where it is followed."""
        is_ours = message["origin"] == self.channel_name
        if not (is_ours and message["conversation"]["type"] == events.ConversationCreated.type):  # it was told already
            self.subscriptions.put_frame(message["conversation"])
        if is_ours:
            return
        if self.subscriptions.follows(UUID(message["reply"]["conversation_id"])):
            await self.subscriptions.show_beginning(message["frames"], message["reply"], after=message["after"])

    async def access_ended(self, message: dict[str, Any]) -> None:
        await self.close(UNAUTHENTICATED)

    async def _overflow(self) -> None:
        await self.close(TRY_AGAIN_LATER)

    @staticmethod
    def _groups(access: SocketAccess) -> list[str]:
        groups = [user_group(access.asker.user_id)]
        if access.asker.api_key_id is not None:
            groups.append(key_group(access.asker.api_key_id))
        if access.session_key_hash:
            groups.append(session_group(access.session_key_hash))
        return groups


_HANDLERS = {
    events.MessageCreate: ChatConsumer.create_message,
    events.ReplyCreate: ChatConsumer.create_reply,
    events.ReplyContinue: ChatConsumer.continue_reply,
    events.ReplyCancel: ChatConsumer.cancel_reply,
    events.ConversationSelect: ChatConsumer.select_leaf,
    events.ConversationSubscribe: ChatConsumer.subscribe,
    events.ConversationUnsubscribe: ChatConsumer.unsubscribe,
    events.Ping: ChatConsumer.ping,
}
