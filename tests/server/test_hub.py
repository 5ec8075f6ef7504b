"""The road of a frame through the hub, and the thread that runs it."""

import threading
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from sana_streaming.server.hub import Hub, Limits, LiveFrame, Worker
from sana_streaming.server.protocol import (
    Close,
    Open,
)
from tests.server.conftest import SIDE, Client, FakeSession, play
from tests.server.fakes import nothing, red, work


def test_what_is_pushed_comes_back_edited_in_order_and_at_a_steady_rate(hub, clock):
    client, shown = Client(hub, clock), []
    assert [message.type for message in client.heard] == ["opened", "state"]
    assert client.heard[0].id == client.id
    play(hub, clock, [client], 10, lambda frame: shown.append((frame.number, red(frame)) if frame else None))
    edited = [pair for pair in shown if pair is not None]
    assert len(shown) - len(edited) <= 6  # nothing before the first chunk
    assert edited == [(number, number) for number in range(len(edited))]
    assert [message.state for message in client.of("state")] == ["idle", "warming", "running"]
    stats = client.of("stats")[-1]
    assert (stats.dropped, stats.repeated, stats.level) == (0, 0, 0)
    assert stats.fps_in == pytest.approx(16, abs=1)
    assert stats.fps_out == pytest.approx(16, abs=1)
    assert 190 < stats.latency_ms < 270  # three frames of filling, the model, and up to a tick of the output clock
    assert stats.real_time_factor == pytest.approx(25)
    assert hub.delay(client.id) == pytest.approx(3 / 16 + 0.01, abs=0.01)


def test_stamp_and_times_are_carried_through(hub, clock):
    client = Client(hub, clock)
    for number in range(4):
        client.number = number
        assert hub.push(client.id, replace(client.frame(), number=number + 50, stamp=number + 7))
    work(hub)
    frame = hub.pull(client.id, client.due(0))
    assert (frame.number, frame.stamp, frame.captured, frame.repeated) == (50, 7, client.begin, False)
    assert hub.pull(client.id, client.due(1)).number == 51


def test_the_last_frame_is_repeated_and_told_as_such(hub, clock):
    client = Client(hub, clock)
    client.push(4)
    work(hub)
    assert hub.pull(client.id, clock.now - 1) is None
    frames = [hub.pull(client.id, client.due(i)) for i in range(6)]
    assert [frame.repeated for frame in frames] == [False] * 4 + [True] * 2


def test_frames_of_another_size_are_refused_with_one_error(hub, clock):
    client = Client(hub, clock)
    wrong = replace(client.frame(), rgb=np.zeros((SIDE, SIDE + 16, 3), np.uint8))
    assert [hub.push(client.id, wrong) for _ in range(3)] == [False] * 3
    assert [told.message for told in client.of("error")] == ["expected frames of 64x64x3 uint8, got 64x80x3 uint8"]
    client.push(4)
    assert hub.work()


def test_frames_that_a_codec_holds_back_find_their_source(hub, clock, monkeypatch):
    held = []

    def step(self, frames):
        held.extend(255 - frames)
        self.chunks += 1
        out, held[:] = held[:-3], held[-3:]
        return torch.stack(out)

    monkeypatch.setattr(FakeSession, "step", step)
    monkeypatch.setattr(FakeSession, "flush", lambda self: torch.stack(held))
    client = Client(hub, clock)
    for _ in range(3):
        client.push(4)
        work(hub)
    hub.command(client.id, Close())
    work(hub)
    waiting = list(hub._lives[client.id].pacer.waiting)
    assert [(frame.number, red(frame)) for frame in waiting] == [(i, i) for i in range(12)]


@pytest.mark.parametrize(
    ("source", "edited"),
    [((640, 480), (336, 256)), ((480, 640), (256, 336)), ((64, 64), (64, 64)), ((1920, 480), (1024, 256))],
)
def test_size_of_the_edited_picture(hub, source, edited):
    heard = []
    session = hub.open(Open(prompt="x", width=source[0], height=source[1], fps=16), heard.append)
    assert hub.size(session) == edited == (heard[0].width, heard[0].height)


def test_a_picture_beyond_the_limit_is_made_smaller(editor, clock):
    hub = Hub(editor, Limits(side=200), clock)
    session = hub.open(Open(prompt="x", width=640, height=320, fps=16), nothing)
    width, height = hub.size(session)
    assert (width, height) == (192, 96)


def test_the_worker_edits_what_comes_and_stops_when_told(hub, clock):
    running = threading.Event()

    def notify(message):
        if message.type == "state" and message.state == "running":
            running.set()

    session = hub.open(Open(prompt="x", width=64, height=64, fps=16), notify)
    worker = Worker(hub)
    worker.start()
    for number in range(4):
        hub.push(session, LiveFrame(np.zeros((64, 64, 3), np.uint8), Fraction(number, 16), clock.now, number))
    assert running.wait(20)
    worker.stop()
    worker.join(20)
    assert not worker.is_alive()


def test_a_model_of_whole_clips_cannot_be_served_live(editor, clock):
    editor.config = replace(editor.config, sampler=replace(editor.config.sampler, clip=(1, 8)))
    with pytest.raises(ValueError, match="expected one that edits streams"):
        Hub(editor, Limits(), clock)
