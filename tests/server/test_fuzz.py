"""Nonsense, by seed, at every door: no failure of the server, always one clear line, and the next session works."""

import asyncio
import io
import json
import math
import random

import httpx2
import pytest
from PIL import Image
from websockets.exceptions import ConnectionClosed

from sana_streaming.server import websocket
from sana_streaming.server.hub import Limits
from sana_streaming.server.sdp import FRAGMENT, SDP
from sana_streaming.server.trust import Bucket
from sana_streaming.server.websocket import HEADER

from .fakes import picture
from .peers import Camera, Client
from .wire import OPEN, SIDE, Page, next_session_works, running, wait

LONGEST_LINE = 600  # characters
WHOLE = [
    OPEN,
    {"type": "set_prompt", "prompt": "make it snow", "policy": "keep", "n": 1},
    {"type": "set_seed", "seed": 7, "n": 2},
    {"type": "bypass", "on": True, "n": 3},
    {"type": "record", "on": True, "n": 4},
    {"type": "candidate", "candidate": "1 1 udp 1 127.0.0.1 5 typ host", "sdpMid": "0", "sdpMLineIndex": 0, "n": 5},
    {"type": "offer", "sdp": "v=0", "n": 6},
]
NONSENSE = [
    None,
    True,
    -1,
    1.5,
    10**30,
    10**400,
    math.nan,
    math.inf,
    "",
    "x" * 5000,
    "\x00\ud800\u2028 \n",
    [],
    {},
    [[[[[]]]]],
    {"type": "open"},
]


def texts(seed, count):
    """Messages that are wrong in every way, and some that are right."""
    rng = random.Random(seed)
    for _ in range(count):
        message = dict(rng.choice(WHOLE))
        kind = rng.randrange(7)
        if kind == 0:
            yield rng.randbytes(rng.randrange(60)).decode("latin-1")
        elif kind == 1:
            whole = json.dumps(message)
            yield whole[: rng.randrange(len(whole))]
        elif kind == 2:
            message[rng.choice(list(message))] = rng.choice(NONSENSE)
            yield json.dumps(message)
        elif kind == 3:
            message[rng.choice(["x", "n", "", "token", "y" * 3000])] = rng.choice(NONSENSE)
            yield json.dumps(message)
        elif kind == 4:
            del message[rng.choice(list(message))]
            yield json.dumps(message)
        elif kind == 5:
            yield rng.choice(["[", '{"type":']) * rng.choice([1, 50, 20_000]) + rng.choice(["", "1", "]"])
        else:
            yield json.dumps({"type": rng.choice(["opened", "stats", "closed", "OPEN", "open ", "__class__"]), "n": 1})


def frames(seed, count):
    """Binary messages: short, long, with wrong headers, with pictures that are none, or of odd sizes and kinds."""
    rng = random.Random(seed)
    for _ in range(count):
        body = rng.choice(pictures())
        kind = rng.randrange(4)
        if kind == 0:
            yield rng.randbytes(rng.randrange(200))
        elif kind == 1:
            yield (
                HEADER.pack(rng.randrange(2**32), rng.randrange(2**32), rng.choice([math.nan, math.inf, -1e300])) + body
            )
        elif kind == 2:
            yield HEADER.pack(1, rng.randrange(2**32), rng.uniform(-1e16, 1e16)) + body
        else:
            broken = bytearray(body)
            for _ in range(rng.randrange(1, 20)):
                broken[rng.randrange(len(broken))] = rng.randrange(256)
            yield HEADER.pack(1, 1, 1.0) + broken[: rng.randrange(1, len(broken) + 1)]


def pictures():
    def encoded(image, kind="JPEG"):
        buffer = io.BytesIO()
        image.save(buffer, kind)
        return buffer.getvalue()

    odd = [Image.new("RGB", size, (9, 99, 199)) for size in ((1, 1), (1, 4000), (4000, 1), (SIDE, SIDE), (777, 333))]
    others = [Image.new("L", (SIDE, SIDE)), Image.new("CMYK", (SIDE, SIDE))]
    return [encoded(image) for image in odd + others] + [encoded(odd[3], kind) for kind in ("PNG", "GIF", "BMP")]


@pytest.fixture
def unlimited(monkeypatch):
    """So that all is looked at, not only as much as a client may say."""
    monkeypatch.setattr(websocket, "Bucket", lambda rate, burst, clock: Bucket(1e9, 1e9, clock))


def heard_until(page, n):
    """What is said before the receipt of command `n`."""
    heard = []
    while True:
        data = page.socket.recv(timeout=30)
        if isinstance(data, bytes):
            continue
        message = json.loads(data)
        if message.get("n") == n:
            return heard
        heard.append(message)


@pytest.mark.parametrize("stamped", [False, True])
def test_messages(unlimited, stamped):
    with running(Limits(grace_seconds=0.2)) as here:
        with Page(here, stamped=stamped) as page:
            page.hear("opened")
            answered = 0
            for i, text in enumerate(texts(3 + stamped, 250)):
                page.tell(text)
                page.tell({"type": "anchor", "n": 1000 + i})
                said = [message for message in heard_until(page, 1000 + i) if message["type"] == "error"]
                answered += len(said)
                assert len(said) <= 1, text
                for message in said:
                    assert "\n" not in message["message"]
                    assert 0 < len(message["message"]) < LONGEST_LINE, text
                    assert message["code"] != "internal", message
            assert answered > 150
            for i, data in enumerate(frames(5 + stamped, 250)):
                page.tell(bytes(data))
                page.tell({"type": "anchor", "n": 5000 + i})
                said = [message for message in heard_until(page, 5000 + i) if message["type"] == "error"]
                assert all(message["code"] == "invalid" and len(message["message"]) < LONGEST_LINE for message in said)
        wait(lambda: not here.hub.sessions)
        assert "error" not in [event for event, _ in here.events]
        next_session_works(here)


def test_first_messages():
    """Whatever comes first, the connection ends with a line or two, and nothing is left."""
    with running(Limits(grace_seconds=0.2)) as here:
        for i, text in enumerate(texts(7, 60)):
            with Page(here, opening=text if i % 10 else random.Random(i).randbytes(50)) as page:
                kinds = []
                try:
                    while "opened" not in kinds:
                        kinds.append(json.loads(page.socket.recv(timeout=30))["type"])
                except ConnectionClosed:
                    assert "opened" not in kinds
                assert kinds.count("error") <= 1
        wait(lambda: not here.hub.sessions and here.server.connections == 0)
        wait(lambda: not here.server.lives)
        next_session_works(here)


def descriptions(seed, count, whole):
    """Offers that are wrong in every way."""
    rng = random.Random(seed)
    lines = whole.splitlines()
    for _ in range(count):
        changed = list(lines)
        kind = rng.randrange(6)
        if kind == 0:
            yield rng.randbytes(rng.randrange(1, 300))
            continue
        if kind == 1:
            yield whole[: rng.randrange(len(whole))].encode()
            continue
        for _ in range(rng.randrange(1, 4)):
            i = rng.randrange(len(changed))
            if kind == 2:
                del changed[i]
            elif kind == 3:
                changed.insert(i, changed[rng.randrange(len(changed))])
            elif kind == 4:
                key, _, value = changed[i].partition(":")
                changed[i] = f"{key}:{rng.choice(['', '-1', '9' * 50, 'x' * 3000, value[::-1]])}"
            else:
                changed[i] = "".join(rng.choice([c, c, c, chr(rng.randrange(32, 127))]) for c in changed[i])
        yield "\r\n".join(changed).encode()


def test_offers_and_fragments():
    async def offer():
        client = Client()
        client.pc.addTrack(Camera(lambda i: picture()))
        whole = await client.offer()
        await client.close()
        return whole

    whole = asyncio.run(offer())
    with running(Limits(sessions=100, idle_seconds=1e9)) as here, httpx2.Client(base_url=here.url) as http:
        statuses = {}

        def checked(answer):
            statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
            assert answer.status_code < 500, answer.text
            if answer.status_code >= 400:
                assert 0 < len(answer.text) < LONGEST_LINE
                assert answer.text.count("\n") == 1
            return answer

        for sdp in descriptions(11, 120, whole):
            answer = checked(http.post("/whip", params={"prompt": "x"}, content=sdp, headers={"content-type": SDP}))
            if answer.status_code == 201:
                place = answer.headers["location"]
                for part in descriptions(len(sdp), 2, whole):
                    tag = {"content-type": FRAGMENT, "if-match": answer.headers["etag"]}
                    checked(http.patch(place, content=part, headers=tag))
                checked(http.delete(place))
        rng = random.Random(13)
        for _ in range(60):
            key = rng.choice(["prompt", "size", "fps", "seed", "steps", "x", ""])
            value = rng.choice(["", "-1", "9" * 400, "nan", "inf", "0x0", "99999x99999", "1e999", "\x00", "é" * 100])
            query = {"prompt": "x"} | {key: value}
            path = rng.choice(["/whip", "/whep/x", "/whip/x", "/whep/x/y", "/whep/%00", "/whep/" + "z" * 2000])
            method = rng.choice(["POST", "PATCH", "DELETE", "GET", "PUT", "HEAD", "OPTIONS"])
            content = rng.choice([b"", b"v=0", rng.randbytes(30)])
            kind = {"content-type": rng.choice([SDP, FRAGMENT, "application/json", ""])}
            answer = http.request(method, path, params=query, content=content, headers=kind)
            assert answer.status_code < 500, (method, path, query, answer.text)
        wait(lambda: not here.hub.sessions)
        wait(lambda: not here.server.lives)
        assert statuses[400] > 50
        assert statuses[200] > 5  # some were whole enough
        next_session_works(here)
