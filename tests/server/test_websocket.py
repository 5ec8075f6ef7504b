"""The control connection: messages, pictures as JPEG, and clients that misbehave."""

import io
import json
import random
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from sana_streaming.server import stamp, websocket
from sana_streaming.server.app import Server, create_app
from sana_streaming.server.trust import Trust
from sana_streaming.server.websocket import HEADER

from .fakes import FakeHub, picture

OPEN = {"type": "open", "prompt": "make it snow", "width": 64, "height": 64, "fps": 30}


@pytest.fixture
def hub():
    return FakeHub()


@contextmanager
def client_of(hub, **options):
    with TestClient(create_app(Server(hub, **options)), base_url="http://127.0.0.1:8000") as client:
        yield client


def connect(client):
    return client.websocket_connect("ws://127.0.0.1:8000/api/session")


def receive(socket, kind):
    """The next message of that type."""
    while True:
        message = json.loads(socket.receive_text())
        if message["type"] == kind:
            return message


def jpeg(rgb):
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def until(true, seconds=30.0):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.005)


def next_picture(socket):
    while (data := socket.receive().get("bytes")) is None:
        pass
    return HEADER.unpack_from(data), np.asarray(Image.open(io.BytesIO(data[HEADER.size :])))


def test_open_and_command(hub):
    with client_of(hub) as client, connect(client) as socket:
        socket.send_json(OPEN)
        opened = receive(socket, "opened")
        assert opened["id"] == "session-0"
        assert opened["edits"][0]["name"] == "watercolor"
        socket.send_json({"type": "set_prompt", "prompt": "make it night", "n": 7})
        assert receive(socket, "accepted") == {"type": "accepted", "n": 7, "command": "set_prompt"}
        assert hub.commands[0][1].prompt == "make it night"


def test_pictures_come_back_with_their_number_and_time(hub):
    rgb = picture()
    with client_of(hub) as client, connect(client) as socket:
        socket.send_json(OPEN)
        receive(socket, "opened")
        socket.send_bytes(HEADER.pack(1, 42, 1234.5) + jpeg(rgb))
        header, edited = next_picture(socket)
        assert header == (1, 42, 1234.5)
        assert abs(edited.astype(int) - (255 - rgb)).mean() < 3
        assert hub.pushed[0].rgb.shape == (64, 64, 3)
        assert hub.pushed[0].pts == 0


def test_pictures_carry_their_stamp(hub):
    rgb = picture(size=(128, 128))
    with client_of(hub) as client, connect(client) as socket:
        socket.send_json(OPEN | {"width": 128, "height": 128, "stamped": True})
        receive(socket, "opened")
        socket.send_bytes(HEADER.pack(1, 1, 0.0) + jpeg(stamp.draw(rgb, 31337)))
        _, edited = next_picture(socket)
        assert edited.shape == (64 + stamp.ROWS, 64, 3)
        cut, value = stamp.cut(edited, 64)
        assert value == 31337
        assert abs(cut.astype(int).mean() - (255 - rgb).mean()) < 3
        assert hub.pushed[0].stamp == 31337


def test_a_slow_consumer_gets_fewer_pictures(hub, monkeypatch):
    """Each is the latest at its time: nothing queues up."""
    slow = websocket.to_jpeg
    monkeypatch.setattr(websocket, "to_jpeg", lambda *given: (time.sleep(0.2), slow(*given))[1])
    with client_of(hub) as client, connect(client) as socket:
        socket.send_json(OPEN)
        receive(socket, "opened")
        for i in range(20):
            socket.send_bytes(HEADER.pack(1, i, 1000 * i / 30) + jpeg(picture(i)))
            time.sleep(1 / 30)
        numbers = [next_picture(socket)[0][1] for _ in range(4)]
        assert numbers == sorted(set(numbers))
        assert numbers[-1] - numbers[0] > 6


def test_a_flood_of_pictures_does_not_grow(hub, monkeypatch):
    decode = websocket.from_jpeg
    monkeypatch.setattr(websocket, "from_jpeg", lambda *given: (time.sleep(0.05), decode(*given))[1])
    with client_of(hub) as client, connect(client) as socket:
        socket.send_json(OPEN)
        receive(socket, "opened")
        for i in range(100):
            socket.send_bytes(HEADER.pack(1, i, float(i)) + jpeg(picture(i)))
        until(lambda: hub.pushed)
        time.sleep(0.3)
        assert len(hub.pushed) < 20
        assert len(client.app.user_middleware) == 1


def test_where_every_frame_counts_none_is_left_out(hub):
    with client_of(hub) as client, connect(client) as socket:
        socket.send_json(OPEN | {"policy": "every"})
        receive(socket, "opened")
        for i in range(30):
            socket.send_bytes(HEADER.pack(1, i, 1000 * i / 30) + jpeg(picture(i)))
        until(lambda: len(hub.pushed) == 30)
        pts = [frame.pts for frame in hub.pushed]
        assert pts == sorted(set(pts))
        assert float(pts[-1]) == pytest.approx(29 / 30, abs=1e-3)


def test_token(hub):
    with client_of(hub, trust=Trust("s3cret")) as client:
        for wrong in ({}, {"token": "guess"}):
            with connect(client) as socket:
                socket.send_json(OPEN | wrong)
                assert receive(socket, "error")["code"] == "token"
                with pytest.raises(WebSocketDisconnect) as closed:
                    socket.receive_text()
                assert closed.value.code == 1008
        with connect(client) as socket:
            socket.send_json(OPEN | {"token": "s3cret"})
            receive(socket, "opened")
    assert len(hub.opened) == 1


def test_what_cannot_be_opened_is_said(hub):
    with client_of(hub) as client, connect(client) as socket:
        socket.send_json(OPEN | {"prompt": "wrong"})
        assert receive(socket, "error")["message"] == "expected another prompt"
        with pytest.raises(WebSocketDisconnect):
            socket.receive_text()


def test_the_first_message_opens(hub):
    with client_of(hub) as client, connect(client) as socket:
        socket.send_json({"type": "pause", "n": 1})
        assert receive(socket, "error")["code"] == "state"
        with pytest.raises(WebSocketDisconnect):
            socket.receive_text()


def test_queue(hub):
    hub.rooms = 0
    with client_of(hub) as client, connect(client) as socket:
        socket.send_json(OPEN)
        assert receive(socket, "queued")["position"] == 1
        hub.tell_opened("session-0")
        assert receive(socket, "opened")["id"] == "session-0"
        socket.send_bytes(HEADER.pack(1, 1, 0.0) + jpeg(picture()))
        assert next_picture(socket)[0][1] == 1


def test_a_lost_connection_is_taken_up_again(hub):
    with client_of(hub) as client:
        with connect(client) as socket:
            socket.send_json(OPEN)
            id = receive(socket, "opened")["id"]  # noqa: A001
            socket.send_bytes(HEADER.pack(1, 5, 500_000.0) + jpeg(picture()))
            next_picture(socket)
        until(lambda: hub.detached == [id])
        with connect(client) as socket:
            socket.send_json(OPEN | {"resume": id})
            assert receive(socket, "opened")["resumed"]
            socket.send_bytes(HEADER.pack(1, 1, 0.0) + jpeg(picture(1)))  # the page's clock began anew
            until(lambda: len(hub.pushed) == 2)
            first, second = (frame.pts for frame in hub.pushed)
            assert first < second < first + 5
        with connect(client) as socket:
            socket.send_json(OPEN | {"resume": "guess"})
            assert receive(socket, "error")["code"] == "unknown_session"


def test_a_session_taken_up_elsewhere_leaves_the_first_connection(hub):
    with client_of(hub) as client, connect(client) as first:
        first.send_json(OPEN)
        id = receive(first, "opened")["id"]  # noqa: A001
        with connect(client) as second:
            second.send_json(OPEN | {"resume": id})
            receive(second, "opened")
            with pytest.raises(WebSocketDisconnect):
                while True:
                    first.receive_text()
            assert hub.detached == []
            second.send_json({"type": "pause"})
            receive(second, "accepted")


def test_close(hub):
    with client_of(hub) as client:
        with connect(client) as socket:
            socket.send_json(OPEN)
            receive(socket, "opened")
            socket.send_json({"type": "close"})
            assert receive(socket, "closed")["reason"] == "asked to"
            with pytest.raises(WebSocketDisconnect) as closed:
                socket.receive_text()
            assert closed.value.code == 1000
        assert "sana_streaming_sessions 0.0" in client.get("/metrics").text
    assert hub.detached == []


def test_what_was_said_counts_although_nothing_can_be_sent_back(hub, monkeypatch):
    """A client that says good-bye and is gone leaves no session that waits for it."""

    async def broken(connection, data):
        raise OSError("the line is gone")

    with client_of(hub) as client, connect(client) as socket:
        socket.send_json(OPEN)
        receive(socket, "opened")
        monkeypatch.setattr(websocket.Connection, "_send", broken)
        socket.send_json({"type": "pause"})
        until(lambda: [message.type for _, message in hub.commands] == ["pause"])
        time.sleep(0.05)  # the answer fails
        socket.send_json({"type": "close"})
        until(lambda: [message.type for _, message in hub.commands] == ["pause", "close"])
    assert hub.detached == []


def test_who_does_not_read_is_not_listened_to_any_more(hub, monkeypatch):
    async def full(connection, data):
        raise TimeoutError

    server = Server(hub)
    with TestClient(create_app(server), base_url="http://127.0.0.1:8000") as client, connect(client) as socket:
        socket.send_json(OPEN)
        receive(socket, "opened")
        monkeypatch.setattr(websocket.Connection, "_send", full)
        socket.send_json({"type": "pause"})
        until(lambda: server.connections == 0, websocket.PATIENCE / 2)


def test_malformed_messages_change_nothing(hub):
    rng = random.Random(0)
    whole = json.dumps({"type": "set_prompt", "prompt": "x", "n": 1})
    broken = ["", "null", "[]", "{}", '{"type": "nothing"}', '{"type": "open"}', "\x00", '{"type": ["pause"]}', "1e999"]
    broken += [whole[: rng.randrange(1, len(whole) - 1)] for _ in range(10)]
    with client_of(hub) as client, connect(client) as socket:
        socket.send_json(OPEN)
        receive(socket, "opened")
        for text in broken:
            socket.send_text(text)
            assert receive(socket, "error")["code"] == "invalid"
        for data in (b"", b"\x01", bytes(16), HEADER.pack(1, 1, float("nan")) + b"x", HEADER.pack(9, 1, 1.0) + b"x"):
            socket.send_bytes(data)
            assert receive(socket, "error")["code"] == "invalid"
        for data in (b"no jpeg", jpeg(picture())[:200], rng.randbytes(500)):
            socket.send_bytes(HEADER.pack(1, 1, 1.0) + data)
        socket.send_json({"type": "candidate", "candidate": "x", "sdpMid": "0", "n": 3})
        assert receive(socket, "error")["n"] == 3
        socket.send_json({"type": "offer", "sdp": "v=0", "n": 4})
        assert receive(socket, "error")["n"] == 4
        socket.send_json({"type": "pause", "n": 5})
        assert receive(socket, "accepted")["n"] == 5
    assert [message.type for _, message in hub.commands] == ["pause"]


def test_a_command_that_fails_is_said_and_the_next_one_works(hub, monkeypatch):
    with client_of(hub) as client, connect(client) as socket:
        socket.send_json(OPEN)
        receive(socket, "opened")
        with monkeypatch.context() as patch:
            patch.setattr(hub, "command", lambda *_: 1 / 0)
            socket.send_json({"type": "pause", "n": 1})
            assert receive(socket, "error")["code"] == "internal"
        socket.send_json({"type": "pause", "n": 2})
        assert receive(socket, "accepted")["n"] == 2


def test_a_client_that_leaves_while_its_session_is_opened_leaves_none(hub):
    opening, begun = hub.open, threading.Event()

    def slow(message, notify):
        begun.set()
        time.sleep(0.2)
        return opening(message, notify)

    hub.open = slow
    server = Server(hub)
    with TestClient(create_app(server), base_url="http://127.0.0.1:8000") as client:
        with connect(client) as socket:
            socket.send_json(OPEN)
            begun.wait()
        until(lambda: hub.opened and not hub.sessions)
        assert server.lives == {}


def test_a_client_that_leaves_while_it_takes_a_session_up_again_leaves_it_to_the_next(hub):
    opening, begun = hub.open, threading.Event()
    with client_of(hub) as client:
        with connect(client) as socket:
            socket.send_json(OPEN)
            id = receive(socket, "opened")["id"]  # noqa: A001
        until(lambda: hub.detached == [id])

        def slow(message, notify):
            begun.set()
            time.sleep(0.2)
            return opening(message, notify)

        hub.open = slow
        with connect(client) as socket:
            socket.send_json(OPEN | {"resume": id})
            begun.wait()
        until(lambda: hub.detached == [id, id])
        with connect(client) as socket:
            socket.send_json(OPEN | {"resume": id})
            receive(socket, "opened")


def test_too_many_messages_are_left_out_then_end_the_connection(hub):
    with client_of(hub) as client, connect(client) as socket:
        socket.send_json(OPEN)
        receive(socket, "opened")
        for _ in range(1500):
            socket.send_json({"type": "anchor"})
        assert receive(socket, "error")["code"] == "too_many"
        with pytest.raises(WebSocketDisconnect) as closed:
            while True:
                socket.receive_text()
        assert closed.value.code == 1008
    assert len(hub.commands) < 500


def test_too_large_a_picture_ends_the_connection(hub):
    with client_of(hub) as client, connect(client) as socket:
        socket.send_json(OPEN)
        receive(socket, "opened")
        socket.send_bytes(HEADER.pack(1, 1, 0.0) + bytes(websocket.LARGEST_FRAME))
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_text()
        assert closed.value.code == 1009


def test_a_bomb_is_not_decoded(hub):
    bomb = io.BytesIO()
    Image.new("L", (5000, 5000)).save(bomb, "JPEG")
    with pytest.raises(ValueError, match="too large"):
        websocket.from_jpeg(bomb.getvalue(), (64, 64))


@pytest.mark.parametrize("sent", [(300, 100), (100, 300), (1, 4096), (4096, 1)])
def test_cropped_to_its_middle(sent):
    width, height = sent
    rgb = np.zeros((height, width, 3), np.uint8)
    x, y = (width - min(sent)) // 2, (height - min(sent)) // 2
    rgb[y : y + min(sent), x : x + min(sent)] = 200
    fitted, value = websocket.from_jpeg(jpeg(rgb), (64, 64))
    assert fitted.shape == (64, 64, 3)
    assert value is None
    if min(sent) > 1:  # one pixel is less than JPEG keeps
        assert fitted[4:-4, 4:-4].min() > 180


def test_stats_reach_page_and_metrics(hub):
    with client_of(hub) as client, connect(client) as socket:
        socket.send_json(OPEN)
        receive(socket, "opened")
        hub.tick()
        assert receive(socket, "stats")["dropped"] == 3
        assert "sana_streaming_dropped_frames_total 3.0" in client.get("/metrics").text


def test_nothing_is_left_of_many_connections(hub):
    server = Server(hub)
    with TestClient(create_app(server), base_url="http://127.0.0.1:8000") as client:
        for _ in range(20):
            with connect(client) as socket:
                socket.send_json(OPEN)
                receive(socket, "opened")
                socket.send_bytes(HEADER.pack(1, 1, 0.0) + jpeg(picture()))
                next_picture(socket)
                socket.send_json({"type": "close"})
                receive(socket, "closed")
        until(lambda: server.connections == 0)
        assert server.lives == {}
        assert hub.sessions == {}
