"""What one socket is told about the replies it follows."""


async def test_every_stop_is_answered_even_when_one_would_have_done(alice, model, connect):
    socket = await connect(alice)
    started = await socket.ask("[[tokens=100 rate=20]]", model="scripted")
    for request_id in ("first", "second"):
        await socket.send("reply.cancel", message_id=started["id"], request_id=request_id)
    ends = [await socket.receive_until("reply.stopped") for _ in range(2)]
    # In no fixed order: one is answered when the log has the end, the other perhaps by the row, which has it earlier.
    assert sorted(end["request_id"] for end in ends) == ["first", "second"]
    assert ends[0]["message"] == ends[1]["message"]
