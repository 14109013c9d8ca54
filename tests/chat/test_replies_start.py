"""What the door refuses before anything is written."""

from asgiref.sync import sync_to_async

from chat import services
from chat.models import Conversation

ANSWER_FOR_EVER = "[[tokens=100 rate=50]]"


async def test_reply_that_still_runs_cannot_be_continued(alice, model, connect):
    socket = await connect(alice)
    started = await socket.ask(ANSWER_FOR_EVER, model="scripted")
    await socket.send("reply.continue", message_id=started["id"], request_id="early")
    error = await socket.receive_until("error")
    assert (error["code"], error["request_id"]) == ("invalid", "early")
    await socket.send("reply.cancel", message_id=started["id"])
    assert (await socket.finish(started["id"]))["status"] == "stopped"


async def test_empty_model_is_an_unknown_model_not_the_default(alice, model, connect):
    socket = await connect(alice)
    await socket.send("message.create", content="Hello", model="")
    assert (await socket.receive_until("error"))["code"] == "model_unavailable"
    assert not await sync_to_async(Conversation.objects.exists)()
    started = await socket.ask("[[tokens=2]]", model="scripted")
    await socket.finish(started["id"])
    fields = {"conversation_id": started["conversation_id"], "parent_id": started["parent_id"]}
    await socket.send("reply.create", model="", **fields)
    assert (await socket.receive_until("error"))["code"] == "model_unavailable"


async def test_deleting_a_conversation_stops_its_running_reply(alice, model, connect, upstream):
    socket = await connect(alice)
    started = await socket.ask("[[tokens=500 rate=50]]", model="scripted")
    await socket.receive_until("reply.delta")
    conversation = await sync_to_async(Conversation.objects.get)()
    await sync_to_async(services.delete_conversation)(conversation)
    ended = await socket.finish(started["id"])
    assert ended["status"] == "stopped" and ended["content"]
    await upstream.wait(lambda server: server.chats[-1].hung_up)
