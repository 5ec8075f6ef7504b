"""A whole server on a port of this machine, with an editor that makes negatives, and clients that can be cruel."""

import asyncio
import io
import json
import socket
import struct
import threading
import time
from contextlib import ExitStack, contextmanager
from unittest.mock import patch

import numpy as np
import uvicorn
from PIL import Image
from websockets.sync.client import connect

from sana_streaming.commands.serve import listen
from sana_streaming.server import app
from sana_streaming.server.app import Server, create_app
from sana_streaming.server.hub import Hub, Limits
from sana_streaming.server.websocket import HEADER

from .conftest import FakeEditor, RealClock

SIDE = 64
FPS = 50
OPEN = {"type": "open", "prompt": "make it snow", "width": SIDE, "height": SIDE, "fps": FPS}


class Running:
    """A server in a thread, and what can be looked at from outside."""

    def __init__(self, editor, server, port):
        self.editor, self.server, self.hub = editor, server, server.hub
        self.events = []
        self.url = f"http://127.0.0.1:{port}"
        self.loop = None
        self.connections = set()  # of TCP

    def tasks(self):
        """How many there are on the server's loop."""

        async def count():
            return len(asyncio.all_tasks()) - 1

        return asyncio.run_coroutine_threadsafe(count(), self.loop).result(5)


@contextmanager
def running(limits=Limits(), **options):  # noqa: B008  # frozen
    editor = FakeEditor(RealClock())
    editor.seconds = lambda session, frames: 0.0
    hub = Hub(editor, limits)
    with listen("127.0.0.1", 0) as listening, patch.object(app, "TICK", 0.05):
        events = []
        server = Server(hub, log=lambda event, **told: events.append((event, told)), **options)
        here = Running(editor, server, listening.getsockname()[1])
        here.events = events
        config = uvicorn.Config(create_app(server), log_level="critical", ws="websockets-sansio", access_log=False)
        serving = uvicorn.Server(config)
        here.connections = serving.server_state.connections

        async def run():
            here.loop = asyncio.get_running_loop()
            await serving.serve(sockets=[listening])

        thread = threading.Thread(target=asyncio.run, args=(run(),), name="server")
        thread.start()
        try:
            wait(lambda: serving.started)
            yield here
        finally:
            serving.should_exit = True
            thread.join(30)
            assert not thread.is_alive()


def wait(true, seconds=30.0):
    """Until it is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)


class Page:
    """A client over the WebSocket."""

    def __init__(self, here, max_queue=None, opening=None, **changes):
        address = here.url.replace("http", "ws") + "/api/session"
        self._open = ExitStack()
        self.socket = self._open.enter_context(
            connect(address, max_size=None, compression=None, max_queue=max_queue, close_timeout=1)
        )
        self.number = 0
        self.heard = []
        self.tell(OPEN | changes if opening is None else opening)

    def tell(self, message):
        self.socket.send(message if isinstance(message, (str, bytes)) else json.dumps(message))

    def hear(self, kind):
        """The next message of that type; pictures and other messages on the way are left out."""
        while True:
            data = self.socket.recv(timeout=30)
            if isinstance(data, str):
                self.heard.append(json.loads(data))
                if self.heard[-1]["type"] == kind:
                    return self.heard[-1]

    def see(self):
        """The next picture: number and RGB."""
        while isinstance(data := self.socket.recv(timeout=30), str):
            self.heard.append(json.loads(data))
        _, number, _ = HEADER.unpack_from(data)
        return number, np.asarray(Image.open(io.BytesIO(data[HEADER.size :])))

    def show(self, count=1, rgb=None):
        """Frames at a steady rate; the picture is told apart by its number."""
        for _ in range(count):
            picture = rgb if rgb is not None else np.full((SIDE, SIDE, 3), self.number % 200, np.uint8)
            self.tell(HEADER.pack(1, self.number, 1000 * self.number / FPS) + jpeg(picture))
            self.number += 1
            time.sleep(1 / FPS)

    def works(self):
        """Whether a picture comes back as its negative."""
        self.hear("opened")
        for _ in range(200):
            self.show(1, np.full((SIDE, SIDE, 3), 55, np.uint8))
            try:
                while isinstance(data := self.socket.recv(timeout=0), str):
                    self.heard.append(json.loads(data))
            except TimeoutError:
                continue
            return abs(np.asarray(Image.open(io.BytesIO(data[HEADER.size :]))).mean() - 200) < 4
        return False

    def vanish(self):
        """The connection is reset, with no word of it."""
        raw = self.socket.socket
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.shutdown(socket.SHUT_RD)
        raw.close()

    def close(self):
        self._open.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def next_session_works(here):
    with Page(here) as page:
        assert page.works()
        page.tell({"type": "close"})
        page.hear("closed")


def jpeg(rgb):
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
