"""WHIP in and WHEP out, over HTTP, with clients of WebRTC in the same process."""

import asyncio
from contextlib import asynccontextmanager

import httpx2
import pytest

from sana_streaming.server.app import Server, create_app
from sana_streaming.server.trust import LARGEST_MESSAGE, Trust
from sana_streaming.server.whip import FRAGMENT, SDP, candidates, watch_name

from .fakes import FakeHub, picture
from .peers import Camera, Client, Tone, until, without_candidates

BEARER = {"authorization": "Bearer s3cret"}
TYPE = {"content-type": SDP}


@asynccontextmanager
async def serving(hub, **options):
    server = Server(hub, **options)
    app = create_app(server)
    async with server.running(app):
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
            yield server, http
    await asyncio.sleep(0.05)  # peers close


async def watching(http, path, headers):
    viewer = Client()
    viewer.pc.addTransceiver("video", direction="recvonly")
    viewer.pc.addTransceiver("audio", direction="recvonly")
    answer = await http.post(path, content=await viewer.offer(), headers=headers | TYPE)
    assert answer.status_code == 201, answer.text
    await viewer.take(answer.text)
    return viewer, answer


def test_in_by_whip_and_out_to_viewers_by_whep():
    async def run():
        hub = FakeHub()
        async with serving(hub, trust=Trust("s3cret")) as (server, http):
            source = Client()
            source.pc.addTrack(Camera(lambda i: picture(size=(128, 96))))
            source.pc.addTrack(Tone())
            offer, found = without_candidates(await source.offer())
            query = {"prompt": "make it snow", "size": "128x96", "fps": "30", "seed": "5", "steps": "2"}
            answer = await http.post("/whip", params=query, content=offer, headers=BEARER | TYPE)
            assert answer.status_code == 201, answer.text
            assert answer.headers["content-type"] == SDP
            where = answer.headers["location"]
            await source.take(answer.text)
            opened = hub.opened[0]
            assert (opened.prompt, opened.width, opened.height, opened.seed, opened.steps) == (
                "make it snow",
                128,
                96,
                5,
                2,
            )

            fragment = "a=ice-ufrag:x\r\nm=video 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n" + "\r\n".join(found)
            fragment += "\r\na=end-of-candidates\r\n"
            trickle = BEARER | {"content-type": FRAGMENT}
            other = await http.patch(where, content=fragment, headers=trickle | {"if-match": '"other"'})
            assert other.status_code == 412
            restart = await http.patch(where, content=fragment, headers=trickle | {"if-match": "*"})
            assert restart.status_code == 422
            accepted = await http.patch(where, content=fragment, headers=trickle | {"if-match": answer.headers["etag"]})
            assert accepted.status_code == 204
            await until(lambda: hub.pushed)
            assert hub.pushed[0].rgb.shape == (64, 64, 3)

            out = where.replace("/whip/", "/whep/")
            name = f"/whep/{watch_name(where.rpartition('/')[2])}"
            assert answer.headers["link"] == f'<{name}>; rel="alternate"'
            first, one = await watching(http, name, BEARER)
            second, two = await watching(http, out, BEARER)
            assert one.headers["location"] != two.headers["location"]
            await until(lambda: len(first.video) > 3 and len(second.video) > 3 and first.audio)
            shown = first.video[-1].to_ndarray(format="rgb24").mean(axis=(0, 1))
            assert abs(shown - (255 - picture(size=(128, 96)).mean(axis=(0, 1)))).max() < 8
            assert "viewers 2.0" in server.metrics.text().decode()

            assert (await http.delete(one.headers["location"], headers=BEARER)).status_code == 200
            assert (await http.delete(one.headers["location"], headers=BEARER)).status_code == 404
            seen = len(second.video)
            await until(lambda: len(second.video) > seen + 3)
            assert (await http.delete(where, headers=BEARER)).status_code == 200
            assert hub.sessions == {}
            assert server.lives == {}
            assert "viewers 0.0" in server.metrics.text().decode()
            assert (await http.post(out, content="v=0", headers=BEARER | TYPE)).status_code == 404
            for client in (source, first, second):
                await client.close()

    asyncio.run(run())


def test_a_source_that_vanishes_leaves_its_session_for_a_while():
    async def run():
        hub = FakeHub()
        async with serving(hub) as (server, http):
            source = Client()
            source.pc.addTrack(Camera(lambda i: picture()))
            answer = await http.post("/whip", params={"prompt": "x"}, content=await source.offer(), headers=TYPE)
            await source.take(answer.text)
            await until(lambda: hub.pushed)
            await source.close()
            await until(lambda: hub.detached == ["session-0"])
            assert list(server.lives) == ["session-0"]

    asyncio.run(run())


def test_refusals():
    async def run():
        hub = FakeHub()
        async with serving(hub, trust=Trust("s3cret")) as (server, http):

            async def status(path="/whip", query="prompt=x", headers=BEARER | TYPE, content="v=0"):
                return (await http.post(f"{path}?{query}", headers=headers, content=content)).status_code

            unknown = await http.post("/whip?prompt=x", headers=TYPE, content="v=0")
            assert unknown.status_code == 401
            assert unknown.headers["www-authenticate"] == "Bearer"
            assert await status(headers=BEARER | {"content-type": "text/plain"}) == 415
            assert await status(content=b"\xff\xfe") == 400
            assert await status(content="x" * (LARGEST_MESSAGE + 1)) == 413
            for query in ("", "prompt=x&size=64", "prompt=x&seed=-1", "prompt=x&fps=nan", "prompt=x&steps=two"):
                assert await status(query=query) == 400
            assert await status(query="prompt=x&size=1x0") == 400
            assert await status(query="prompt=x&file=/etc/passwd") == 400
            assert await status(query="prompt=wrong") == 400
            assert hub.opened == []
            assert await status() == 400  # a description of nothing
            assert hub.sessions == {}  # and its session is gone
            assert await status("/whep/none", "") == 404
            assert (await http.patch("/whip/none", headers=BEARER, content="")).status_code == 415
            trickle = BEARER | {"content-type": FRAGMENT}
            assert (await http.patch("/whip/none", headers=trickle, content="")).status_code == 404
            assert (await http.delete("/whip/none", headers=BEARER)).status_code == 404
            assert (await http.delete("/whip/none")).status_code == 401
            hub.rooms = 0
            busy = await http.post("/whip?prompt=x", headers=BEARER | TYPE, content="v=0")
            assert busy.status_code == 503
            assert int(busy.headers["retry-after"]) > 0
            assert hub.sessions == {}
            assert server.lives == {}

    asyncio.run(run())


def test_servers_that_help_are_named():
    async def run():
        servers = [
            {"urls": "stun:stun.example:3478"},
            {"urls": "turn:turn.example:3478", "username": "u", "credential": "p"},
        ]
        async with serving(FakeHub()) as (server, http):
            offering = await http.options("/whip")
            assert offering.headers["accept-post"] == SDP
            source = Client()
            source.pc.addTrack(Camera(lambda i: picture()))
            offer = await source.offer()
            answer = await http.post("/whip", params={"prompt": "x"}, content=offer, headers=TYPE)
            assert "ice-server" not in answer.headers["link"]
            server.ice = servers[:1]
            viewer, told = await watching(http, answer.headers["location"].replace("whip", "whep"), {})
            assert told.headers["link"] == '<stun:stun.example:3478>; rel="ice-server"'
            await viewer.close()
            await source.close()

    asyncio.run(run())


def test_fragment():
    text = "a=ice-ufrag:x\nm=audio 9 X 0\na=mid:1\na=candidate:1 1 udp 1 127.0.0.1 5 typ host\na=end-of-candidates\n"
    assert candidates(text) == [("1 1 udp 1 127.0.0.1 5 typ host", "1"), (None, "1")]
    assert candidates("") == []


@pytest.mark.parametrize("codec", ["H264", "VP8"])
def test_codecs_of_programs(codec):
    async def run():
        hub = FakeHub()
        async with serving(hub) as (_, http):
            source = Client()
            source.pc.addTransceiver(Camera(lambda i: picture()), direction="sendonly")
            source.prefer(codec)
            answer = await http.post("/whip", params={"prompt": "x"}, content=await source.offer(), headers=TYPE)
            assert f"{codec}/90000" in answer.text
            assert "a=recvonly" in answer.text
            await source.take(answer.text)
            await until(lambda: hub.pushed)
            await source.close()

    asyncio.run(run())
