"""A hub without a model: it inverts the picture at once."""

import threading
import time
from dataclasses import replace

import numpy as np

from sana_streaming.server.hub import Busy, Limits
from sana_streaming.server.protocol import Accepted, Closed, EditOffered, Opened, Stats, Warn

STATS = Stats(fps_in=16, fps_out=15, real_time_factor=1.5, dropped=3, repeated=2, queue=4, memory_mb=100, level=1)


class FakeHub:
    """Keeps one frame a session, and remembers what it was asked."""

    def __init__(self, size=(64, 64), rooms=100, fps=30.0):
        self.limits = Limits()
        self.size_of, self.rooms, self.fps = size, rooms, fps
        self.sessions = {}  # id -> what tells its client
        self.frames, self.shown = {}, {}
        self.commands, self.detached, self.pushed, self.opened = [], [], [], []
        self.lateness = 0.0
        self.takes = True
        self.ended = threading.Event()

    def open(self, message, notify):
        if message.prompt == "wrong":
            raise ValueError("expected another prompt")
        id = message.resume or f"session-{len(self.opened)}"  # noqa: A001
        self.opened.append(message)
        if len(self.sessions) >= self.rooms:
            self.sessions[id] = notify
            raise Busy(1, id)
        self.sessions[id] = notify
        self.tell_opened(id, resumed=message.resume is not None)
        return id

    def tell_opened(self, id, resumed=False):  # noqa: A002
        width, height = self.size_of
        edits = (EditOffered(name="watercolor", kind="look", example="make it a watercolor"),)
        self.sessions[id](
            Opened(
                id=id,
                model="fake",
                edits=edits,
                prompt_limit=500,
                width=width,
                height=height,
                chunk_frames=4,
                fps=self.fps,
                resumed=resumed,
            )
        )

    def command(self, id, message):  # noqa: A002
        self.commands.append((id, message))
        self.sessions[id](Accepted(n=message.n, command=message.type))
        if message.type == "close":
            self.close(id, "asked to")

    def push(self, id, frame):  # noqa: A002
        if not self.takes:
            return False
        self.pushed.append(frame)
        self.frames[id] = replace(frame, rgb=255 - frame.rgb)
        return True

    def pull(self, id, now=None):  # noqa: A002
        frame = self.frames.get(id)
        if frame is None:
            return None
        again = self.shown.get(id) is frame
        self.shown[id] = frame
        return replace(frame, repeated=again)

    def due(self, id):  # noqa: A002
        return None

    def delay(self, id):  # noqa: A002
        return self.lateness

    def size(self, id):  # noqa: A002
        return self.size_of

    def detach(self, id):  # noqa: A002
        self.detached.append(id)

    def close(self, id, reason=""):  # noqa: A002
        notify = self.sessions.pop(id, None)
        if notify is not None:
            notify(Closed(reason=reason))

    def warn(self, id, text):  # noqa: A002
        self.sessions[id](Warn(message=text))

    def work(self):
        return False

    def wait(self, seconds):
        time.sleep(0.005)

    def tick(self):
        for notify in tuple(self.sessions.values()):
            notify(STATS)


class Clock:
    """Time that passes when told to."""

    def __init__(self, now=100.0):
        self.now = now

    def __call__(self):
        return self.now


def picture(seed=0, size=(64, 64)):
    """Smooth, so that lossy codecs keep it: RGB uint8 [H, W, 3]."""
    width, height = size
    rng = np.random.default_rng(seed)
    a, b, c = rng.uniform(40, 200, 3)
    y, x = np.mgrid[:height, :width]
    return np.stack([a + 40 * x / width, b + 40 * y / height, np.full(x.shape, c)], axis=-1).astype(np.uint8)


def work(hub):
    """All that there is to do."""
    while hub.work():
        pass


def red(frame):
    """The number that a client drew, through an editor that makes negatives."""
    return 255 - int(frame.rgb[0, 0, 0])


def nothing(frame):
    """To be told of a frame, or of a message."""
