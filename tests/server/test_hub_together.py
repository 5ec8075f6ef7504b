"""Sessions whose chunks are ready share a pass of the model, where that is less work."""

import numpy as np
import pytest
import torch

from sana_streaming.server.admission import TRIED
from sana_streaming.server.hub import Busy, Hub, Limits
from sana_streaming.server.protocol import Close, Reset, SetPrompt
from sana_streaming.stream import batch
from tests.server.conftest import Client, FakeEditor, play
from tests.server.fakes import nothing, red, work
from tests.stream.tiny import tiny_editor


class Batching(FakeEditor):
    """A pass takes as long as one chunk, and for each further one so much of that."""

    def __init__(self, clock, further=0.2):
        super().__init__(clock)
        self.further = further
        self.passes = []  # how many chunks went through each

    def step_together(self, sessions, frames):
        self.passes.append(len(sessions))
        seconds, begin = self.seconds, self.clock.now
        self.seconds = lambda session, chunk: 0.0
        edited = super().step_together(sessions, frames)
        self.seconds = seconds
        self.clock.now = begin + seconds(sessions[0], frames[0]) * (1 + self.further * (len(sessions) - 1))
        return edited


@pytest.fixture
def editor(clock):
    return Batching(clock)


@pytest.fixture
def hub(editor, clock):
    """It knows what passes cost."""
    hub = Hub(editor, Limits(), clock)
    hub.warm(64, 64)
    return hub


def begun(hub, editor, clock, count=3):
    """Sessions after their first chunk."""
    clients = [Client(hub, clock) for _ in range(count)]
    for client in clients:
        client.push(4)
    work(hub)
    editor.passes.clear()
    return clients


def test_chunks_that_are_ready_share_a_pass_and_each_gets_its_own(hub, editor, clock):
    clients = begun(hub, editor, clock)
    for number, client in enumerate(clients):
        client.number = 50 + 10 * number
        client.push(4)
    begin = clock.now
    assert hub.work()
    assert editor.passes == [3]
    assert clock.now - begin == pytest.approx(0.01 * 1.4)
    assert not hub.work()
    for number, client in enumerate(clients):
        waiting = list(hub._lives[client.id].pacer.waiting)[-4:]
        assert [(frame.number, red(frame)) for frame in waiting] == [(50 + 10 * number + i,) * 2 for i in range(4)]


def test_nobody_waits_for_company(hub, editor, clock):
    clients = begun(hub, editor, clock)
    clients[0].push(4)
    clients[1].push(3)
    assert hub.work()
    assert editor.passes == [1]
    clients[1].push(1)
    assert hub.work()
    assert editor.passes == [1, 1]


def test_a_session_is_told_of_the_whole_pass_but_is_reckoned_only_its_share(hub, editor, clock):
    editor.seconds = lambda session, frames: 0.1
    clients = begun(hub, editor, clock)
    for client in clients:
        hub._lives[client.id].work.clear()
    for client in clients:
        client.push(4)
    work(hub)
    hub.tick()
    stats = clients[0].of("stats")[-1]
    assert stats.chunk_p95_ms == pytest.approx(140)
    assert stats.real_time_factor == pytest.approx(0.25 / (0.14 / 3), abs=0.01)
    clients[0].push(4)
    work(hub)  # alone, but it need not be when there is more to do
    hub.tick()
    assert clients[0].of("stats")[-1].real_time_factor == pytest.approx(0.5 / (0.14 / 3 + 0.1), abs=0.01)
    assert sum(live.load(clock.now) for live in hub._lives.values()) == pytest.approx(0.14 / 0.25)


@pytest.mark.parametrize(
    "change",
    [
        lambda hub, client: hub.command(client.id, Reset()),
        lambda hub, client: setattr(hub._lives[client.id].session, "guidance", 2.0),
        lambda hub, client: setattr(hub._lives[client.id].shedder, "index", 2),
        lambda hub, client: hub.taps(client.id, Tap()),
    ],
    ids=["asks for a reset", "other work", "other size", "recorded"],
)
def test_what_does_not_fit_goes_alone(editor, clock, change):
    hub = Hub(editor, Limits(), clock)
    hub.warm(256, 256)
    clients = [Client(hub, clock, width=256, height=256) for _ in range(3)]
    for client in clients:
        client.push(4)
    work(hub)
    editor.passes.clear()
    change(hub, clients[0])
    for client in clients:
        client.push(4)
    work(hub)
    assert sorted(editor.passes) == [1, 2]


class Tap:
    def source(self, frame): ...

    def chunk(self, number, frames, edited, record): ...

    def event(self, message): ...


def test_passes_that_are_not_worth_it_are_tried_and_then_no_more(clock):
    editor = Batching(clock, further=0.95)
    hub = Hub(editor, Limits(), clock)
    clients = [Client(hub, clock) for _ in range(4)]
    for _ in range(10):
        for client in clients:
            client.push(4)
        work(hub)
    assert editor.passes[:4] == [1] * 4  # first chunks do not count
    assert editor.passes.count(2) == TRIED
    assert set(editor.passes) == {1, 2}
    assert editor.passes[-4:] == [1] * 4


def test_warming_tries_more_streams_at_once_while_that_is_worth_it_and_time_is_left(clock):
    def passes(seconds, further):
        editor = Batching(clock, further)
        editor.seconds = lambda session, frames: seconds
        Hub(editor, Limits(together=4), clock).warm(64, 64, chunks=4)
        return editor.passes

    assert passes(seconds=0.01, further=0.2) == [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4
    assert passes(seconds=0.01, further=0.9) == [1] * 4 + [2] * 4
    assert passes(seconds=0.3, further=0.2) == [1] * 4 + [2] * 4
    assert passes(seconds=3.0, further=0.2) == [1] * 4


def test_as_many_as_the_limit_and_one_more_at_a_time(clock):
    editor = Batching(clock)
    hub = Hub(editor, Limits(together=3), clock)
    clients = [Client(hub, clock) for _ in range(4)]
    for _ in range(8):
        for client in clients:
            client.push(4)
        work(hub)
    assert max(editor.passes) == 3
    assert editor.passes.index(3) > [i for i, count in enumerate(editor.passes) if count == 2][TRIED - 1]
    assert editor.passes[-2:] == [3, 1]


def test_more_sessions_have_room_where_they_share_passes(clock):
    def held(further):
        editor = Batching(clock, further)
        editor.seconds = lambda session, frames: 0.1
        hub = Hub(editor, Limits(), clock)
        hub.warm(64, 64)
        clients = []
        for _ in range(8):
            try:
                clients.append(Client(hub, clock))
            except Busy as busy:
                hub.close(busy.id)
            play(hub, clock, clients, 12, nothing)
        assert {client.of("stats")[-1].level for client in clients} == {0}
        assert clients[0].of("stats")[-1].latency_p95_ms < 600
        return len(clients)

    assert held(further=1.0) == 2
    assert held(further=0.5) == 3
    assert held(further=0.2) == 6


@pytest.mark.parametrize("failure", [RuntimeError("a kernel failed"), MemoryError("chunk 3: out of memory")])
def test_one_that_fails_in_company_ends_alone(hub, editor, clock, failure):
    clients = begun(hub, editor, clock)
    for client in clients:
        client.push(4)
    editor.failure = failure
    work(hub)
    assert editor.passes == [3]
    ended = [client for client in clients if client.of("closed")]
    assert len(ended) == 1
    assert ended[0].of("error")[0].code in ("editor", "memory")
    others = [client for client in clients if client not in ended]
    assert hub.sessions == tuple(client.id for client in others)
    for client in others:
        assert len(hub._lives[client.id].pacer.waiting) >= 4
        assert not client.of("error")


def test_one_whose_numbers_go_out_of_range_in_company_begins_anew(hub, editor, clock):
    clients = begun(hub, editor, clock)
    for client in clients:
        client.push(4)
    editor.failure = FloatingPointError("expected finite latents")
    work(hub)
    assert [len(client.of("warning")) for client in clients].count(1) == 1
    assert len(hub.sessions) == 3
    for client in clients:
        client.push(4)
    work(hub)
    assert not any(client.of("error") for client in clients)


def test_one_that_vanishes_in_company_just_ends(hub, editor, clock):
    clients = begun(hub, editor, clock)
    for client in clients:
        client.push(4)
    editor.seconds = lambda session, frames: hub.close(clients[1].id, "gone") or 0.01
    work(hub)
    assert editor.passes == [3]
    assert hub.sessions == (clients[0].id, clients[2].id)
    assert not any(client.of("error") for client in clients)


def test_the_rest_of_a_stream_that_ends_shares_a_pass(hub, editor, clock):
    clients = begun(hub, editor, clock)
    clients[0].push(2)
    hub.command(clients[0].id, Close())
    clients[1].push(4)
    work(hub)
    assert editor.passes == [2]
    shown = [frame.number % 4 for frame in list(hub._lives[clients[0].id].pacer.waiting)[-2:]]
    assert shown == [0, 1]


def test_a_stream_that_only_ends_is_no_company(hub, editor, clock):
    clients = begun(hub, editor, clock)
    for client in clients[:2]:
        hub.command(client.id, Close())
    clock.now += 1
    clients[2].push(4)
    work(hub)
    assert editor.passes == [1]
    clock.now += 20
    hub.tick()
    assert [bool(client.of("closed")) for client in clients] == [True, True, False]
    assert [frame.number for frame in hub._lives[clients[2].id].pacer.waiting][-4:] == [4, 5, 6, 7]


def edited_by_hub(monkeypatch, clock, fail):
    """Frames that three clients with other prompts and seeds get of a real model, and how many shared each pass."""
    editor, passes = tiny_editor(first_chunk=1, chunk=1), []
    hub = Hub(editor, Limits(), clock)
    through = batch.edit_chunk

    def counted(*args):
        passes.append(len(args[2]))
        if fail:
            raise torch.OutOfMemoryError("no room for all at once")
        return through(*args)

    monkeypatch.setattr(batch, "edit_chunk", counted)
    clients = [Client(hub, clock, prompt="ab" * (i + 1), seed=i, policy="every") for i in range(3)]
    for number in range(12):
        for i, client in enumerate(clients):
            if number >= 2 * i:  # they begin one after the other
                client.push(1 if client.number == 0 else 2)
            if (number, i) == (8, 1):
                hub.command(client.id, SetPrompt(prompt="b", policy="reset"))
        hub.work()
        work(hub)
    assert not any(client.of("error") for client in clients)
    frames = [np.stack([frame.rgb for frame in hub._lives[client.id].pacer.waiting]) for client in clients]
    return editor, frames, passes


@pytest.mark.parametrize("fail", [False, True], ids=["", "too little memory for all"])
def test_real_sessions_in_company_are_what_they_are_alone(monkeypatch, clock, fail):
    editor, frames, passes = edited_by_hub(monkeypatch, clock, fail)
    assert {2, 3} & set(passes)
    for i, shown in enumerate(frames):
        session, alone = editor.session("ab" * (i + 1), seed=i), []
        for number in range(12 - 2 * i):
            if (number + 2 * i, i) == (8, 1):
                session.set_prompt("b", "reset")
            first = sum(map(len, alone))
            count = session.chunk_frames
            alone.append(session.step(torch.stack([torch.full((64, 64, 3), first + j).byte() for j in range(count)])))
        expected = torch.cat(alone).numpy()
        assert shown.shape == expected.shape
        assert np.abs(shown.astype(int) - expected).max() <= 1
