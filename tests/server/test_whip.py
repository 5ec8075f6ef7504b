"""WHIP in and WHEP out, over HTTP, with clients of WebRTC in the same process."""

import asyncio
import re
from contextlib import asynccontextmanager

import httpx2
import pytest

from sana_streaming.server.app import Server, create_app
from sana_streaming.server.hub import Limits
from sana_streaming.server.protocol import Open
from sana_streaming.server.sdp import FRAGMENT, SDP, candidates, links
from sana_streaming.server.trust import LARGEST_MESSAGE, Trust
from sana_streaming.server.whip import Told, watch_name

from .fakes import FakeHub, picture
from .peers import Camera, Client, Tone, until, without_candidates
from .wire import Page, running

BEARER = {"authorization": "Bearer s3cret"}
TYPE = {"content-type": SDP}
NO_KEYS = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\n"


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


@pytest.mark.parametrize("trickle", ["tagged", "any"])
def test_in_by_whip_and_out_to_viewers_by_whep(trickle):
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

            ours = re.search(r"a=ice-ufrag:\S+", offer)[0]
            lines = [ours, "m=video 9 UDP/TLS/RTP/SAVPF 0", "a=mid:0", *found, "a=end-of-candidates", ""]
            fragment = "\r\n".join(lines)
            tag = answer.headers["etag"]

            async def patch(text, **condition):
                headers = BEARER | {"content-type": FRAGMENT} | condition
                return await http.patch(where, content=text, headers=headers)

            assert (await patch(fragment)).status_code == 428
            assert (await patch(fragment, **{"if-match": '"other"'})).status_code == 412
            restart = fragment.replace(ours, "a=ice-ufrag:another")
            for condition in ("*", tag):
                assert (await patch(restart, **{"if-match": condition})).status_code == 422
            useless = "a=mid:0\r\na=candidate:1 1 udp 1 nowhere.example 5 typ host"
            assert (await patch(useless, **{"if-match": tag})).status_code == 204
            assert (await patch("a=candidate:nonsense", **{"if-match": tag})).status_code == 400
            accepted = await patch(fragment, **{"if-match": "*" if trickle == "any" else tag})
            assert accepted.status_code == 204
            assert "etag" not in accepted.headers
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

            async def status(path="/whip", query="prompt=x", headers=BEARER | TYPE, content=NO_KEYS):
                return (await http.post(f"{path}?{query}", headers=headers, content=content)).status_code

            unknown = await http.post("/whip?prompt=x", headers=TYPE, content="v=0")
            assert unknown.status_code == 401
            assert unknown.headers["www-authenticate"] == "Bearer"
            assert await status(headers=BEARER | {"content-type": "text/plain"}) == 415
            assert await status(content=b"\xff\xfe") == 400
            assert await status(content="x" * (LARGEST_MESSAGE + 1)) == 413
            assert await status(content="v=0") == 400
            for media in (2 * NO_KEYS, "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n", NO_KEYS + 2 * "m=audio 9 X 111\r\n"):
                assert await status(content=media) == 406
            for query in ("", "prompt=x&size=64", "prompt=x&seed=-1", "prompt=x&fps=nan", "prompt=x&steps=two"):
                assert await status(query=query) == 400
            assert await status(query="prompt=x&size=1x0") == 400
            assert await status(query="prompt=x&file=/etc/passwd") == 400
            assert await status(query="prompt=wrong") == 400
            assert hub.opened == []
            assert await status() == 400  # a description without keys
            assert hub.sessions == {}  # and its session is gone
            assert await status("/whep/none", "") == 404
            assert (await http.patch("/whip/none", headers=BEARER, content="")).status_code == 415
            trickle = BEARER | {"content-type": FRAGMENT}
            assert (await http.patch("/whip/none", headers=trickle, content="")).status_code == 404
            assert (await http.delete("/whip/none", headers=BEARER)).status_code == 404
            assert (await http.delete("/whip/none")).status_code == 401
            hub.rooms = 0
            busy = await http.post("/whip?prompt=x", headers=BEARER | TYPE, content=NO_KEYS)
            assert busy.status_code == 503
            assert int(busy.headers["retry-after"]) > 0
            assert hub.sessions == {}
            assert server.lives == {}

    asyncio.run(run())


@pytest.mark.parametrize(
    ("path", "methods"),
    [("/whip", "OPTIONS, POST"), ("/whep/x", "OPTIONS, POST")]
    + [(path, "OPTIONS, PATCH, DELETE") for path in ("/whip/x", "/whep/x/y")],
)
def test_methods(path, methods):
    async def run():
        async with serving(FakeHub()) as (_, http):
            told = await http.options(path)
            assert (told.status_code, told.headers["allow"]) == (200, methods)
            assert told.headers.get("accept-post") == (SDP if "POST" in methods else None)
            for method in {"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE"} - set(methods.split(", ")):
                answer = await http.request(method, path)
                assert (answer.status_code, answer.headers["allow"]) == (405, methods)

    asyncio.run(run())


def test_pages_of_origins_that_are_admitted_can_read_the_answers():
    async def run():
        show = {"origin": "https://show.example"}
        async with serving(FakeHub(), trust=Trust("s3cret", ("https://show.example",))) as (_, http):
            asks = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
            preflight = await http.options("/whep/x", headers=show | asks)
            assert preflight.status_code == 200
            assert "POST" in preflight.headers["access-control-allow-methods"]
            assert {"Authorization", "Content-Type", "If-Match"} <= set(
                preflight.headers["access-control-allow-headers"].split(", ")
            )
            for answer in (preflight, await http.post("/whep/x", headers=show | BEARER | TYPE, content=NO_KEYS)):
                assert answer.headers["access-control-allow-origin"] == "https://show.example"
                assert "Location" in answer.headers["access-control-expose-headers"]
                assert answer.headers["vary"] == "Origin"
            assert "access-control-allow-origin" not in (await http.get("/health", headers=show)).headers
            other = await http.options("/whep/x", headers=asks | {"origin": "https://evil.example"})
            assert other.status_code == 403
            assert "access-control-allow-origin" not in other.headers

    asyncio.run(run())


def test_a_session_that_waits_is_no_session_to_watch_yet():
    async def run():
        hub = FakeHub()
        hub.rooms = 0
        async with serving(hub) as (server, http):
            message = Open(prompt="x", width=64, height=64, fps=30.0)
            live = await server.open(message, Told(server))
            answer = await http.post(f"/whep/{live.id}", headers=TYPE, content=NO_KEYS)
            assert answer.status_code == 409
            assert int(answer.headers["retry-after"]) > 0

    asyncio.run(run())


def test_servers_that_help_are_named():
    async def run():
        servers = [
            {"urls": "stun:stun.example:3478"},
            {"urls": "turn:turn.example:3478", "username": "u", "credential": 'p"\\'},
        ]
        assert links(servers)[1].endswith(r'username="u"; credential="p\"\\"; credential-type="password"')
        async with serving(FakeHub()) as (server, http):
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


def test_a_source_is_commanded_and_goes_on_when_who_did_it_leaves():
    async def run(here):
        async with httpx2.AsyncClient(base_url=here.url) as http:
            source = Client()
            source.pc.addTrack(Camera(lambda i: picture()))
            answer = await http.post("/whip?prompt=x&size=64x64", content=await source.offer(), headers=TYPE)
            await source.take(answer.text)
            await until(lambda: here.editor.steps)
            page = await asyncio.to_thread(Page, here, resume=answer.headers["location"].rpartition("/")[2])
            page.tell({"type": "set_prompt", "prompt": "make it snow", "n": 1})
            assert (await asyncio.to_thread(page.hear, "applied"))["n"] == 1
            page.vanish()
            await until(lambda: here.server.connections == 0)
            await asyncio.sleep(0.5)
            assert here.hub.state(*here.hub.sessions) == "running"
            await source.close()
            await until(lambda: here.hub.sessions == ())

    with running(Limits(grace_seconds=0.2)) as here:
        asyncio.run(run(here))
