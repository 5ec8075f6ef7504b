"""Of 200 sessions over the wire, which end in every way, nothing is left."""

import asyncio
import gc
import os
import random
import threading
import time
from collections import Counter

import httpx2
from aiortc import RTCPeerConnection

from sana_streaming.server import webrtc
from sana_streaming.server.hub import Limits
from sana_streaming.server.sdp import SDP
from sana_streaming.server.whip import watch_name

from .fakes import picture
from .peers import Camera, Client, until
from .wire import FPS, SIDE, Page, next_session_works, running, wait

SESSIONS = 200
PEERS, SOURCES = 12, 8  # of them by WebRTC, and by WHIP
POOLS = ("media_", "asyncio_", "AnyIO")  # bounded; they begin a thread whenever none of theirs is idle
PICTURE = picture(size=(SIDE, SIDE))


def descriptors():
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def alive():
    gc.collect()
    return sum(type(thing) is RTCPeerConnection for thing in gc.get_objects())


def by_websocket(here, rng):
    """Opens, shows a little or nothing, and ends in one of many ways."""
    end = rng.choice(["close", "leave", "vanish", "refused", "fails", "left in the middle of opening"])
    page = Page(here, prompt=" " if end == "refused" else "make it snow")
    if end == "refused":
        page.hear("error")
    elif end != "left in the middle of opening":
        page.hear("opened")
        if end == "fails":
            here.editor.failure = RuntimeError("it broke")
            page.show(4, PICTURE)
            page.hear("closed")
        else:
            page.show(rng.choice([0, 0, 1, 4]), PICTURE)
        if end == "close":
            page.tell({"type": "close"})
            page.hear("closed")
    if end in ("vanish", "left in the middle of opening"):
        page.vanish()
    page.close()
    return end


async def by_webrtc(here, rng):
    """The same page with its pictures by WebRTC; they end with the connection of control, which says nothing."""
    client = Client()
    client.pc.addTrack(Camera(lambda i: PICTURE, FPS))
    page = await asyncio.to_thread(Page, here)
    await asyncio.to_thread(page.hear, "opened")
    await asyncio.to_thread(page.tell, {"type": "offer", "sdp": await client.offer()})
    await client.take((await asyncio.to_thread(page.hear, "answer"))["sdp"])
    await until(lambda: client.video)
    if vanish := rng.random() < 0.5:
        page.vanish()
    page.close()
    await client.close()
    return f"webrtc {'vanish' if vanish else 'leave'}"


async def by_whip(here, rng):
    """A source, and half the time somebody who watches."""
    headers = {"content-type": SDP}
    async with httpx2.AsyncClient(base_url=here.url) as http:
        source, clients = Client(), []
        source.pc.addTrack(Camera(lambda i: PICTURE, FPS))
        query = {"prompt": "x", "size": f"{SIDE}x{SIDE}", "fps": str(FPS)}
        answer = await http.post("/whip", params=query, content=await source.offer(), headers=headers)
        place = answer.headers["location"]
        await source.take(answer.text)
        if watched := rng.random() < 0.5:
            clients.append(Client())
            clients[0].pc.addTransceiver("video", direction="recvonly")
            path = f"/whep/{watch_name(place.rpartition('/')[2])}"
            seen = await http.post(path, content=await clients[0].offer(), headers=headers)
            await clients[0].take(seen.text)
            await until(lambda: clients[0].video)
        if delete := rng.random() < 0.5:
            assert (await http.delete(place)).status_code == 200
        for client in (source, *clients):
            await client.close()
    return f"whip {'watched ' * watched}{'delete' if delete else 'leave'}"


def some(here, rng, count):
    """So many sessions, one after the other; how often each end was."""
    kinds = ["webrtc"] * (count * PEERS // SESSIONS) + ["whip"] * (count * SOURCES // SESSIONS)
    kinds += ["websocket"] * (count - len(kinds))
    rng.shuffle(kinds)
    ends = Counter()
    for kind in kinds:
        if kind == "websocket":
            ends[by_websocket(here, rng)] += 1
        else:
            ends[asyncio.run((by_webrtc if kind == "webrtc" else by_whip)(here, rng))] += 1
    wait(lambda: not here.hub.sessions and not here.server.connections and not here.connections)
    here.editor.steps.clear()
    return ends


def counted(here):
    """What could be left of a session."""
    return Counter(
        tasks=here.tasks(),
        threads=sum(not thread.name.startswith(POOLS) for thread in threading.enumerate()),
        descriptors=descriptors(),
        peers=alive(),
        lives=len(here.server.lives),
        waiting=len(here.hub.admission.queue),
    )


def test_nothing_is_left_of_200_sessions(monkeypatch):
    monkeypatch.setattr(webrtc, "PATIENCE", 1.0)
    rng = random.Random(0)
    with running(Limits(grace_seconds=0.1)) as here:
        some(here, rng, SESSIONS // 4)  # what is begun once is there
        before = counted(here)
        ends = some(here, rng, SESSIONS * 3 // 4)
        end = time.monotonic() + 5
        while (more := counted(here) - before) and time.monotonic() < end:
            time.sleep(0.05)
        assert not more
        assert sum(ends.values()) == SESSIONS * 3 // 4
        assert {"close", "leave", "vanish", "refused", "fails"} < set(ends)
        assert {end.split()[0] for end in ends} > {"webrtc", "whip"}
        next_session_works(here)
