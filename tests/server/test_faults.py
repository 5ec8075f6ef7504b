"""Whatever clients, cameras, the model and the disk do: one session ends at most, and the next one works."""

import asyncio
import errno
import socket
import threading

import aioice.ice
import httpx2
import numpy as np
import pytest
import torch

from sana_streaming.commands import serve
from sana_streaming.io.lossless import LosslessWriter, read_lossless
from sana_streaming.server import recordings, websocket
from sana_streaming.server.hub import Limits
from sana_streaming.server.sdp import SDP
from sana_streaming.stream.log import Header, read_log

from .fakes import picture
from .peers import Camera, Client, until
from .wire import SIDE, Page, next_session_works, running, wait

QUICK = Limits(grace_seconds=0.3)


def warnings_of(here):
    return [told["message"] for event, told in here.events if event == "warning"]


# Clients that vanish


def test_a_client_vanishes_in_the_middle_of_a_chunk():
    with running(QUICK) as here, Page(here) as other:
        other.hear("opened")
        page = Page(here)
        page.hear("opened")
        page.show(2)  # of four
        wait(lambda: len(here.hub.sessions) == 2)
        page.vanish()
        wait(lambda: len(here.hub.sessions) == 1)
        wait(lambda: len(here.server.lives) == 1)
        next_session_works(here)


def test_a_client_vanishes_while_its_chunk_is_edited():
    with running(QUICK) as here:
        begun, go = threading.Event(), threading.Event()
        page = Page(here)
        page.hear("opened")
        here.editor.seconds = lambda *_: 0.0 * (begun.set() or go.wait(10))
        page.show(4)
        assert begun.wait(5)
        page.vanish()
        wait(lambda: not here.hub.sessions)  # while the model is at it
        here.editor.seconds = lambda *_: 0.0
        go.set()
        next_session_works(here)
        assert here.server.ready


def test_a_peer_that_falls_silent(monkeypatch):
    """Its sockets are gone, and nothing said so. The session waits for it a while."""
    monkeypatch.setattr(aioice.ice, "CONSENT_INTERVAL", 0.1)
    monkeypatch.setattr(aioice.ice, "CONSENT_FAILURES", 2)

    async def run(here):
        async with httpx2.AsyncClient(base_url=here.url) as http:
            source = Client()
            source.pc.addTrack(Camera(lambda i: picture()))
            answer = await whip(http, source)
            assert answer.status_code == 201
            await until(lambda: here.editor.steps)
            await source.pc.getSenders()[0].transport.transport._connection.close()
            await until(lambda: not here.hub.sessions)
            await source.close()

    with running(QUICK) as here:
        asyncio.run(run(here))
        assert [event for event, _ in here.events if event in ("lost", "closed")] == ["lost", "closed", "closed"]
        wait(lambda: not here.server.lives)
        next_session_works(here)


async def whip(http, source, **query):
    query = {"prompt": "make it snow", "size": f"{SIDE}x{SIDE}", "fps": "30"} | query
    answer = await http.post("/whip", params=query, content=await source.offer(), headers={"content-type": SDP})
    if answer.status_code == 201:
        await source.take(answer.text)
    return answer


# Cameras that change their size


@pytest.mark.parametrize("codec", ["H264", "VP8"])
def test_a_camera_changes_its_size(codec):
    """The session keeps its own; the middle of the picture is shown, and who looks at the log is told once."""
    sizes = [(64, 64), (160, 96), (96, 160), (32, 32)]

    async def run(here):
        async with httpx2.AsyncClient(base_url=here.url) as http:
            source = Client()
            source.pc.addTrack(Camera(lambda i: picture(size=sizes[min(i // 12, 3)])))
            source.prefer(codec)
            await whip(http, source)
            await until(lambda: len(here.editor.steps) > 12)
            await source.close()

    with running() as here:
        asyncio.run(run(here))
        seen = {tuple(frames.shape[1:]) for _, frames in here.editor.steps}
        assert len(seen) == 1
        told = warnings_of(here)
        assert [line.partition(":")[0] for line in told] == ["the source is 160x96", "the source is 96x160"]
        assert "its middle, 60% of it, is edited" in told[0]
        next_session_works(here)


def test_pictures_of_the_websocket_change_their_size():
    with running() as here, Page(here) as page:
        page.hear("opened")
        for side in (SIDE, SIDE, 2 * SIDE):
            page.show(4, np.full((side, SIDE, 3), 55, np.uint8))
        page.show(4, np.full((SIDE, 2 * SIDE, 3), 55, np.uint8))
        while page.see()[0] < 12:
            pass
        told = [message["message"] for message in page.heard if message["type"] == "warning"]
        assert [line.partition(":")[0] for line in told] == ["the source is 64x128", "the source is 128x64"]
        assert len(here.hub.sessions) == 1
        next_session_works(here)


# A model that fails


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (RuntimeError("it broke\nin two lines"), "editor"),
        (MemoryError("out of memory"), "memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), None),
        (AssertionError(), "editor"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_editor_raises(failure, code):
    """One line and the end for the one whose chunk it was."""
    with running() as here, Page(here) as other:
        assert other.works()
        with Page(here) as page:
            page.hear("opened")
            here.editor.failure = failure
            page.show(4)
            told = page.hear("error")
            assert told["code"] == (code or told["code"])
            assert "\n" not in told["message"]
            assert "memory" in told["message"] or code == "editor"
            assert page.hear("closed")["reason"] == "the model failed"
        wait(lambda: len(here.hub.sessions) == 1)
        other.tell({"type": "pause", "n": 1})
        assert other.hear("accepted")["n"] == 1
        next_session_works(here)
        assert here.server.ready


@pytest.mark.parametrize("failure", [RuntimeError("it broke\nin two lines"), MemoryError("out of memory")])
def test_a_session_cannot_be_made(failure, monkeypatch):
    async def by_whip(here):
        async with httpx2.AsyncClient(base_url=here.url) as http:
            source = Client()
            source.pc.addTrack(Camera(lambda i: picture()))
            answer = await whip(http, source)
            await source.close()
            return answer

    def broken(*_, **__):
        raise failure

    with running() as here:
        with monkeypatch.context() as patch:
            patch.setattr(here.editor, "session", broken)
            with Page(here) as page:
                told = page.hear("error")
                assert told["code"] == ("memory" if isinstance(failure, MemoryError) else "internal")
            answer = asyncio.run(by_whip(here))
            assert answer.status_code == 503
            assert answer.text.count("\n") == 1
            assert here.hub.sessions == ()
            wait(lambda: not here.server.lives)
        next_session_works(here)


# Disks that are full


@pytest.fixture
def header(monkeypatch):
    monkeypatch.setattr(recordings, "header_of", lambda editor: Header("fake", "0", "float32", "cpu", "2", 1))


def test_the_disk_is_full_while_a_recording_runs(tmp_path, monkeypatch, header):
    """The show goes on; there is one warning, and what was recorded is whole."""
    plain, left = LosslessWriter.write, iter(range(10))

    def write(*args):
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        plain(*args)

    monkeypatch.setattr(LosslessWriter, "write", write)
    with running(recordings=tmp_path) as here, Page(here) as page:
        page.hear("opened")
        page.tell({"type": "record", "on": True, "n": 1})
        page.hear("accepted")
        page.show(24)
        files = page.hear("recorded")["files"]
        last = page.number
        page.show(12)
        while page.see()[0] <= last:
            pass  # the show goes on
        page.tell({"type": "record", "on": False})
        assert "no recording" in page.hear("error")["message"]
        told = [message["message"] for message in page.heard if message["type"] == "warning"]
        assert told == ["the recording ended: No space left on device; 8 frames are kept"]
        assert {file.rpartition("/")[2] for file in files} == {"edited.mp4", "session.jsonl", "source.mkv"}
        with httpx2.Client(base_url=here.url) as http:
            assert all(http.get(f"/{file}").status_code == 200 for file in files)
        next_session_works(here)
    (folder,) = tmp_path.iterdir()
    log = read_log(folder / "session.jsonl")
    assert (len(log.chunks), log.complete) == (2, True)
    assert len(list(read_lossless(folder / "source.mkv"))) >= 8


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), PermissionError(13, "denied")])
def test_a_recording_cannot_begin(tmp_path, monkeypatch, header, failure):
    """Whatever of it fails, the client is told in one line that names no path."""

    class Full:
        def __init__(self, folder, *_, **__):
            failure.filename = str(folder)
            raise failure

    monkeypatch.setattr(recordings, "Recorder", Full)
    with running(recordings=tmp_path) as here, Page(here) as page:
        page.hear("opened")
        page.tell({"type": "record", "on": True, "n": 5})
        told = page.hear("error")
        assert (told["code"], told["n"]) == ("internal", 5)
        assert told["message"] == f"cannot record: {failure.strerror}"
        page.tell({"type": "pause", "n": 6})
        assert page.hear("accepted")["n"] == 6
        next_session_works(here)


def test_a_session_that_ends_as_its_recording_begins(tmp_path, monkeypatch, header):
    def taps(session_id, tap):
        raise ValueError("there is no session of this id, or no longer")

    with running(recordings=tmp_path) as here, Page(here) as page:
        page.hear("opened")
        monkeypatch.setattr(here.hub, "taps", taps)
        page.tell({"type": "record", "on": True, "n": 5})
        assert "no longer" in page.hear("error")["message"]
        assert "recorder" not in [thread.name for thread in threading.enumerate()]
        assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path, header):
    (tmp_path / "file").write_text("")
    with running(recordings=tmp_path / "file") as here, Page(here) as page:
        page.hear("opened")
        page.tell({"type": "record", "on": True, "n": 5})
        assert "cannot record" in page.hear("error")["message"]


# Clients that do not read


def test_a_client_that_does_not_read(monkeypatch):
    """Of its pictures only the newest waits; the others see theirs; after a while it is let go."""
    monkeypatch.setattr(websocket, "PATIENCE", 0.5)
    monkeypatch.setattr(serve, "UNREAD", 1000)
    made, plain = [], websocket.to_jpeg

    def large(shown, stamped):
        if stamped:
            made.append(shown.frame.number)
        return plain(shown, stamped) + bytes(2**20 * stamped)

    monkeypatch.setattr(websocket, "to_jpeg", large)
    with running(QUICK) as here, Page(here) as other:
        slow = Page(here, stamped=True, max_queue=1)
        wait(lambda: len(here.server.lives) == 2)
        stamped = np.full((SIDE + 16, SIDE, 3), 55, np.uint8)
        slow.show(60, stamped)
        assert len(made) < 30  # what the system's own buffers take
        assert other.works()
        wait(lambda: len(here.hub.sessions) == 1)
        assert len(made) < 30
        wait(lambda: here.server.connections == 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            wait(lambda: len(here.connections) == 1)
        next_session_works(here)
        slow.vanish()
