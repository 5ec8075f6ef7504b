"""Who listens to a session hears all that decides it."""

from dataclasses import replace
from fractions import Fraction

import torch

from sana_streaming.server.hub import Hub, Limits
from sana_streaming.server.protocol import (
    Anchor,
    Close,
    Reset,
    SetPrompt,
    SetSeed,
)
from sana_streaming.stream.log import describe
from tests.server.conftest import Client
from tests.server.fakes import work
from tests.stream.tiny import tiny_editor


class Listener:
    def __init__(self):
        self.frames, self.chunks, self.told = [], [], []

    def source(self, frame):
        self.frames.append(frame.number)

    def chunk(self, number, frames, edited, record):
        self.chunks.append((number, frames, edited, record))

    def event(self, message):
        self.told.append(message.type)


def test_a_tap_hears_all_that_decides_a_stream(clock):
    """From what it hears, another session makes the same frames, bit for bit: there is one road."""
    editor = tiny_editor(first_chunk=2, chunk=2)
    hub = Hub(editor, Limits(), clock)
    client, tap = Client(hub, clock, seed=4, policy="every"), Listener()
    hub.taps(client.id, tap)
    assert client.of("state")[-1].recording
    script = {2: SetPrompt(prompt="b", policy="keep"), 3: Anchor(), 4: SetSeed(seed=8), 5: Reset(), 6: Close()}
    for number in range(7):
        if number in script:
            hub.command(client.id, script[number])
        if number < 6:
            client.push(4 if number == 5 else 3 if number == 0 else 4)
        work(hub)
    assert tap.frames == list(range(23))
    assert {"accepted", "applied", "set_prompt", "anchor", "close", "state"} <= set(tap.told)
    session = editor.session("make it snow", seed=4)
    for number, (told, frames, edited, record) in enumerate(tap.chunks):
        assert told == number
        if record.reseeded:
            session.generator = torch.Generator().manual_seed(record.seed)
            session.state = replace(session.state, noise=None)
        if record.policy is not None:
            session.set_prompt(record.prompt, record.policy)
        if record.reset:
            session.reset()
        if record.anchor:
            session.anchor()
        own = describe(
            session,
            frames=record.frames,
            pts=record.pts,
            size=record.size,
            prompt=record.prompt,
            seed=record.seed,
            reseeded=record.reseeded,
        )
        assert own == record
        assert torch.equal(session.step(frames), edited)
    assert len(tap.chunks) == 6
    assert [record.prompt for *_, record in tap.chunks] == ["make it snow"] * 2 + ["b"] * 4
    assert [record.seed for *_, record in tap.chunks] == [4] * 4 + [8] * 2


def test_a_chunk_that_was_filled_up_is_told_with_times_that_go_on(hub, clock):
    client, tap = Client(hub, clock, policy="every"), Listener()
    hub.taps(client.id, tap)
    client.push(5)
    hub.command(client.id, Close())
    work(hub)
    record = tap.chunks[1][3]
    assert record.frames == (4, 4, 4, 4)
    assert record.pts == tuple(Fraction(i, 16) for i in range(4, 8))


def test_who_listened_may_stop(hub, clock):
    client, tap = Client(hub, clock), Listener()
    hub.taps(client.id, tap)
    hub.untap(client.id, tap)
    assert not client.of("state")[-1].recording
    tap.told.clear()
    client.push(4)
    work(hub)
    assert not tap.chunks
    assert not tap.told
