import gc
import random
import threading
import weakref
from dataclasses import replace
from fractions import Fraction
from statistics import median

import numpy as np
import pytest
import torch

from sana_streaming.server.hub import Busy, Hub, Limits, LiveFrame, QueueFull, UnknownSession, Worker
from sana_streaming.server.protocol import (
    Anchor,
    Bypass,
    Close,
    Offer,
    Open,
    Panic,
    Pause,
    Record,
    Reset,
    Resume,
    SetPrompt,
    SetSeed,
    Start,
)
from sana_streaming.stream.governor import QUEUE_CHUNKS
from sana_streaming.stream.log import describe
from tests.server.conftest import SIDE, Client, FakeEditor, FakeSession, play
from tests.stream.tiny import tiny_editor

NOTHING = lambda frame: None  # noqa: E731


def work(hub):
    while hub.work():
        pass


def red(frame):
    """The number that a client drew, through the editor."""
    return 255 - int(frame.rgb[0, 0, 0])


# The road of a frame


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
    session = hub.open(Open(prompt="x", width=640, height=320, fps=16), NOTHING)
    width, height = hub.size(session)
    assert (width, height) == (192, 96)


# Commands and receipts


def test_a_prompt_is_accepted_at_once_and_applied_at_a_chunk(hub, clock, editor):
    client = Client(hub, clock)
    client.push(4)
    work(hub)
    client.push(3)
    hub.command(client.id, SetPrompt(prompt="make it rain", n=7))
    assert [(told.n, told.command) for told in client.of("accepted")] == [(7, "set_prompt")]
    assert client.of("applied") == []
    assert client.of("state")[-1].prompt == "make it rain"
    client.push(1)
    work(hub)
    applied = client.of("applied")[0]
    assert (applied.n, applied.command, applied.chunk, applied.frame) == (7, "set_prompt", 1, 4)
    assert editor.steps[-1][0].prompt == "make it rain"


def test_a_prompt_that_is_overtaken_is_never_applied(hub, clock):
    client = Client(hub, clock)
    hub.command(client.id, SetPrompt(prompt="a", n=1))
    hub.command(client.id, SetPrompt(prompt="b", n=2))
    client.push(4)
    work(hub)
    assert [told.n for told in client.of("accepted")] == [1, 2]
    assert [told.n for told in client.of("applied")] == [2]


@pytest.mark.parametrize("command", [Reset(n=1), Anchor(n=1), SetSeed(seed=5, n=1)], ids=lambda c: c.type)
def test_receipts_of_the_other_commands(hub, clock, command):
    client = Client(hub, clock)
    client.push(4)
    work(hub)
    hub.command(client.id, command)
    client.push(4)
    work(hub)
    assert [(told.command, told.chunk, told.frame) for told in client.of("applied")] == [(command.type, 1, 4)]


def test_a_reset_waits_for_a_chunk_of_a_first_ones_length(clock):
    editor = FakeEditor(clock, frames=(9, 4))
    hub = Hub(editor, Limits(), clock)
    client = Client(hub, clock)
    client.push(9)
    work(hub)
    client.push(4)
    hub.command(client.id, Reset())
    assert not hub.work()
    client.push(5)
    work(hub)
    assert [len(frames) for _, frames in editor.steps] == [9, 9]


def test_a_new_seed_begins_the_noise_anew_but_keeps_the_picture(clock):
    editor = tiny_editor(first_chunk=2, chunk=2)
    hub = Hub(editor, Limits(), clock)
    client = Client(hub, clock)
    live = hub._lives[client.id]
    client.push(3)
    work(hub)
    past = live.session.state
    hub.command(client.id, SetSeed(seed=5))
    fork = live.session.fork()
    fork.generator = torch.Generator().manual_seed(5)
    fork.state = replace(fork.state, noise=None)
    client.push(4)
    work(hub)
    again = fork.step(torch.stack([torch.full((SIDE, SIDE, 3), n, dtype=torch.uint8) for n in range(3, 7)]))
    assert [np.array_equal(f.rgb, e) for f, e in zip(list(live.pacer.waiting)[3:], again.numpy(), strict=True)] == [
        True
    ] * 4
    assert past is not live.session.state
    assert client.of("state")[-1].seed == 5


@pytest.mark.parametrize(
    ("command", "code", "told"),
    [
        (SetPrompt(prompt="x" * 501, n=3), "invalid", "at most 500 characters, got 501"),
        (SetPrompt(prompt="  ", n=3), "invalid", "empty prompt"),
        (Resume(n=3), "state", "cannot resume a session that is idle"),
        (Record(on=True, n=3), "state", "'record' is not a command of a session"),
        (Offer(sdp="", n=3), "state", "'offer'"),
        (Open(prompt="x", width=64, height=64, fps=1, n=3), "state", "'open'"),
    ],
    ids=lambda value: getattr(value, "type", None),
)
def test_what_a_client_gets_wrong_is_one_error(hub, clock, command, code, told):
    client = Client(hub, clock)
    before = len(client.heard)
    hub.command(client.id, command)
    (error,) = client.heard[before:]
    assert (error.type, error.code, error.n) == ("error", code, 3)
    assert told in error.message
    client.push(4)
    assert hub.work()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"prompt": " "}, "empty prompt"),
        ({"prompt": "x" * 501}, "at most 500"),
        ({"fps": 100.0}, "at most 60 frames per second, got 100"),
        ({"width": 16}, "at least 32 pixels"),
        ({"width": 2000, "height": 100}, "at most 4 times"),
        ({"resume": "guessed"}, "no session of this id"),
    ],
)
def test_what_cannot_be_opened_is_refused_and_leaves_nothing(hub, change, told):
    message = {"prompt": "x", "width": 64, "height": 64, "fps": 16, **change}
    with pytest.raises(ValueError, match=told):
        hub.open(Open(**message), NOTHING)
    assert hub.sessions == ()
    assert hub.admission.load == 0


def test_unknown_sessions_do_nothing(hub, clock):
    assert not hub.push("x", LiveFrame(np.zeros((64, 64, 3), np.uint8), Fraction(0), 0.0, 0))
    assert hub.pull("x") is None
    assert hub.delay("x") == 0
    hub.command("x", Pause())
    hub.detach("x")
    hub.close("x")
    with pytest.raises(UnknownSession):
        hub.size("x")


def test_any_order_of_commands_is_answered_each_once(hub, clock):
    dice = random.Random(0)
    commands = [
        *(SetPrompt(prompt="a"), SetPrompt(prompt=""), SetPrompt(prompt="a", policy="reset"), SetSeed(seed=1)),
        *(Start(), Pause(), Resume(), Reset(), Anchor(), Bypass(on=True), Bypass(on=False)),
        *(Panic(on=True), Panic(on=False), Record(on=True), Close()),
    ]
    for _ in range(40):
        client = Client(hub, clock)
        for n in range(30):
            alive = client.id in hub.sessions
            hub.command(client.id, dice.choice(commands).model_copy(update={"n": n}))
            answers = [m for m in client.heard if m.type in ("accepted", "error") and m.n == n]
            assert len(answers) == alive
            if hub.push(client.id, client.frame()) if alive else False:
                client.number += 1
            hub.work()
            hub.pull(client.id)
            clock.now += 1 / 16
        hub.close(client.id)
    assert hub.sessions == ()


# Show control


def test_pause_holds_the_last_frame_and_resume_begins_with_what_is_new(hub, clock, editor):
    client = Client(hub, clock)
    play(hub, clock, [client], 3, NOTHING)
    last = hub.pull(client.id)
    hub.command(client.id, Pause())
    steps, begin = len(editor.steps), client.number
    play(hub, clock, [client], 0.5, lambda frame: None)
    frame = client.frame()
    assert not hub.push(client.id, frame)
    clock.now += 20
    client.number = round((clock.now - client.begin) * 16)
    assert not hub.work()
    held = hub.pull(client.id)
    assert (held.number, held.repeated) == (last.number, True)
    assert len(editor.steps) == steps
    hub.command(client.id, Resume())
    shown = []
    play(hub, clock, [client], 2, lambda frame: shown.append(frame.number))
    fresh = [number for number in shown if number != last.number]
    assert fresh[0] >= begin + 20 * 16
    assert fresh == list(range(fresh[0], fresh[0] + len(fresh)))
    hub.tick()
    assert client.of("stats")[-1].repeated == 0  # it was meant to stay
    assert client.of("stats")[-1].latency_p95_ms < 400


def test_bypass_shows_the_source_as_late_as_usual_and_the_model_rests(hub, clock, editor):
    client, shown = Client(hub, clock), []
    play(hub, clock, [client], 3, NOTHING)
    delay, steps = hub.delay(client.id), len(editor.steps)
    hub.command(client.id, Bypass(on=True))
    play(hub, clock, [client], 20, shown.append)
    assert len(editor.steps) <= steps + 1
    assert hub.delay(client.id) == delay
    through = [frame for frame in shown if int(frame.rgb[0, 0, 0]) == frame.number % 256]
    assert len(through) > 20 * 16 - 12
    numbers = [frame.number for frame in shown]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))  # no gap where it goes over
    hub.command(client.id, Bypass(on=False))
    shown.clear()
    play(hub, clock, [client], 3, shown.append)
    assert (red(shown[-1]) - shown[-1].number) % 256 == 0
    assert sum(frame.repeated for frame in shown) <= 5


def test_panic_is_black_at_once_and_the_rest_goes_on(hub, clock):
    client = Client(hub, clock)
    hub.command(client.id, Panic(on=True))
    assert hub.pull(client.id).rgb.max() == 0  # also before anything was edited
    play(hub, clock, [client], 3, NOTHING)
    before = hub.pull(client.id)
    assert before.rgb.shape == (SIDE, SIDE, 3)
    assert before.rgb.max() == 0
    hub.command(client.id, Panic(on=False))
    after = hub.pull(client.id)
    assert after.rgb.max() > 0
    assert after.number > 30


def test_close_edits_what_was_taken_in_and_then_ends(hub, clock, editor):
    client = Client(hub, clock, policy="every")
    client.push(10)
    hub.command(client.id, Close())
    assert hub.state(client.id) == "draining"
    assert not hub.push(client.id, client.frame())
    work(hub)
    assert [len(frames) for _, frames in editor.steps] == [4, 4, 4]
    shown = [hub.pull(client.id, client.due(i)).number for i in range(12)]
    assert shown == [*range(10), 9, 9]
    hub.tick()
    assert client.heard[-1].type == "closed"
    assert hub.sessions == ()


# Keeping up


def slow(editor, seconds, side=SIDE):
    """Chunks take so long at the best level, and less at lower ones, as their work is less."""

    def cost(session, frames):
        _, height, width, _ = frames.shape
        return seconds * (len(session.sampling.levels) + 2) / 7 * height * width / side**2

    editor.seconds = cost


def test_ten_minutes_of_overload_show_flat_latency_and_bounded_queues(hub, clock, editor):
    slow(editor, 0.6)  # a chunk lasts 0.25 s
    client, latencies, queue, numbers = Client(hub, clock), [], [], []
    begin = clock.now

    def seen(frame):
        live = hub._lives[client.id]
        queue.append((len(live.governor.waiting), len(live.pacer.waiting), len(live.pending)))
        if frame is not None and not frame.repeated:
            numbers.append(frame.number)
            latencies.append(len(queue) / 16 + begin - frame.captured)

    play(hub, clock, [client], 600, seen)
    third = len(latencies) // 3
    first, last = latencies[third : 2 * third], latencies[2 * third :]
    assert median(last) == pytest.approx(median(first), abs=0.02)
    assert max(last) <= max(first) + 0.05
    assert max(latencies[100:]) < 1.6
    assert max(waits for waits, _, _ in queue) <= QUEUE_CHUNKS * 4
    assert max(waits for _, waits, _ in queue) <= 20
    assert max(waits for _, _, waits in queue) == 0
    gaps = np.diff(numbers[-200:])
    assert set(gaps) <= {1, 2, 3}  # evenly spaced: 0.43 s for four of seven frames
    stats = client.of("stats")[-1]
    assert stats.level == 1
    assert stats.dropped > 3000
    assert stats.repeated > 3000
    assert stats.real_time_factor == pytest.approx(0.25 / 0.43, abs=0.02)


def test_steps_are_shed_then_size_and_both_come_back(hub, clock, editor):
    slow(editor, 1.0, side=256)
    client, sizes = Client(hub, clock, width=256, height=256, seed=3), set()
    hub.command(client.id, SetPrompt(prompt="make it rain"))
    play(hub, clock, [client], 16, lambda frame: frame and sizes.add(frame.rgb.shape))
    levels = [(told.steps, told.width, told.height) for told in client.of("state")]
    assert levels[-1] == (2, 128, 128)
    assert list(dict.fromkeys(levels)) == [(4, 256, 256), (2, 256, 256), (2, 192, 192), (2, 128, 128)]
    assert sizes == {(256, 256, 3)}  # viewers see one size
    sessions = list({id(session): session for session, _ in editor.steps}.values())
    assert [(s.prompt, s.seed) for s in sessions] == [("make it rain", 3)] * 3
    slow(editor, 0.05, side=256)
    play(hub, clock, [client], 40, lambda frame: frame and sizes.add(frame.rgb.shape))
    told = client.of("state")[-1]
    assert (told.steps, told.width) == (4, 256)
    assert client.of("stats")[-1].level == 0
    assert sizes == {(256, 256, 3)}


def test_chunk_numbers_go_on_over_a_change_of_size(hub, clock, editor):
    slow(editor, 1.0, side=256)
    client = Client(hub, clock, width=256, height=256)
    play(hub, clock, [client], 12, NOTHING)
    count = len(editor.steps)
    hub.command(client.id, SetPrompt(prompt="b"))
    play(hub, clock, [client], 1, NOTHING)
    applied = client.of("applied")[-1]
    assert applied.chunk >= count
    assert applied.frame > 12 * 16 - 20


def test_files_keep_their_quality_and_every_frame_and_are_told_to_wait(hub, clock, editor):
    slow(editor, 1.0)
    client, shown = Client(hub, clock, policy="every"), []
    play(hub, clock, [client], 40, lambda frame: frame and shown.append(frame.number))
    assert client.number < 40 * 16 / 3  # the source had to wait
    fresh = list(dict.fromkeys(shown))
    assert fresh == list(range(len(fresh)))
    stats = client.of("stats")[-1]
    assert (stats.dropped, stats.level) == (0, 0)


def test_a_new_prompt_flushes_the_backlog(hub, clock):
    client = Client(hub, clock)
    client.push(12)
    hub.command(client.id, SetPrompt(prompt="b"))
    work(hub)
    assert client.of("applied")[0].frame == 8
    hub.tick()
    assert client.of("stats")[-1].dropped == 8


def test_sessions_take_turns_and_the_one_with_short_chunks_is_not_kept_waiting(hub, clock, editor):
    slow(editor, 0.2)
    clients = [Client(hub, clock) for _ in range(3)]
    play(hub, clock, clients, 20, NOTHING)
    live = [hub._lives[client.id].session for client in clients]
    order = [live.index(session) for session, _ in editor.steps]
    counts = [order.count(i) for i in range(3)]
    assert max(counts) - min(counts) <= 3  # the first one begins before the others
    assert all(len(set(order[i : i + 3])) == 3 for i in range(6, len(order) - 3))


def test_the_chunk_that_is_due_first_is_edited_first(hub, clock, editor):
    calm, hasty = Client(hub, clock, fps=4.0), Client(hub, clock, fps=32.0)
    calm.push(4)
    hasty.push(4)
    hub.work()
    assert editor.steps[0][0] is hub._lives[hasty.id].session


# Who may come, and who is gone


def test_admission_by_measured_cost_with_a_queue(hub, clock, editor):
    editor.seconds = lambda session, frames: 0.1  # two fifths of the time
    clients = [Client(hub, clock)]
    play(hub, clock, clients, 2, NOTHING)
    clients.append(Client(hub, clock))
    heard = []
    with pytest.raises(Busy) as busy:
        hub.open(Open(prompt="x", width=64, height=64, fps=16), heard.append)
    with pytest.raises(Busy) as second:
        hub.open(Open(prompt="x", width=64, height=64, fps=16), heard.append)
    assert (busy.value.position, second.value.position) == (1, 2)
    waits = second.value.id
    assert not hub.push(waits, clients[0].frame())
    hub.command(waits, Pause())
    assert heard[-1].type == "error"
    heard.clear()
    hub.close(busy.value.id)
    assert [(told.type, getattr(told, "position", None)) for told in heard] == [
        ("state", None),
        ("closed", None),
        ("queued", 1),
    ]
    heard.clear()
    hub.close(clients[0].id)
    assert [told.type for told in heard] == ["opened", "state"]
    assert heard[0].id == waits
    assert hub.push(waits, clients[1].frame())


def test_a_full_queue_refuses_in_one_line(editor, clock):
    hub = Hub(editor, Limits(sessions=1, waiting=0), clock)
    Client(hub, clock)
    with pytest.raises(QueueFull, match="1 sessions run and 0 wait"):
        Client(hub, clock)
    assert len(hub.sessions) == 1


def test_warming_measures_what_a_chunk_costs(hub, clock, editor):
    editor.seconds = lambda session, frames: 0.2
    hub.warm(64, 64)
    assert hub.sessions == ()
    Client(hub, clock)
    with pytest.raises(Busy):
        Client(hub, clock)


def test_who_waits_in_the_queue_is_not_idle(editor, clock):
    hub = Hub(editor, Limits(sessions=1, idle_seconds=10), clock)
    first = Client(hub, clock)
    with pytest.raises(Busy) as busy:
        Client(hub, clock)
    for _ in range(30):
        clock.now += 1
        first.number += 1
        hub.push(first.id, first.frame())
        hub.tick()
    assert hub.sessions == (first.id, busy.value.id)
    clock.now += 11
    hub.tick()
    assert hub.sessions == (busy.value.id,)
    assert first.heard[-1].reason == "idle for 10 s"


def test_a_lost_connection_finds_its_session_again(hub, clock, editor):
    client = Client(hub, clock, seed=9)
    hub.command(client.id, SetPrompt(prompt="make it rain"))
    play(hub, clock, [client], 2, NOTHING)
    session = hub._lives[client.id].session
    hub.detach(client.id)
    clock.now += 29
    hub.tick()
    heard = []
    again = hub.open(Open(prompt="other", width=64, height=64, fps=16, resume=client.id), heard.append)
    assert again == client.id
    assert (heard[0].type, heard[0].resumed) == ("opened", True)
    assert (heard[1].prompt, heard[1].seed) == ("make it rain", 9)
    assert hub._lives[client.id].session is session
    told = len(client.heard)
    clock.now += 29
    client.begin, client.number = clock.now, 0  # its source begins anew
    shown = []
    play(hub, clock, [client], 3, shown.append)
    assert len(client.heard) == told  # only the new connection is told
    assert shown[-1].number > 30
    assert not shown[-1].repeated
    assert hub.delay(client.id) < 0.4


def test_a_connection_that_stays_away_ends_the_session(hub, clock):
    client = Client(hub, clock)
    hub.detach(client.id)
    clock.now += 30
    hub.tick()
    assert client.heard[-1].reason == "no connection for 30 s"
    with pytest.raises(UnknownSession):
        hub.open(Open(prompt="x", width=64, height=64, fps=16, resume=client.id), NOTHING)


@pytest.mark.parametrize(
    ("failure", "code"),
    [(RuntimeError("a kernel\nfailed"), "editor"), (MemoryError("chunk 1: out of memory"), "memory")],
    ids=["raises", "memory"],
)
def test_a_model_that_fails_ends_that_session_and_no_other(hub, clock, editor, failure, code):
    clients = [Client(hub, clock), Client(hub, clock)]
    play(hub, clock, clients, 2, NOTHING)
    editor.failure = failure
    play(hub, clock, clients, 3, NOTHING)
    ended = next(client for client in clients if client.of("closed"))
    (other,) = (client for client in clients if client is not ended)
    assert [told.code for told in ended.of("error")] == [code]
    assert "\n" not in ended.of("error")[0].message
    assert ended.heard[-1].type == "closed"
    assert not other.of("error")
    assert hub.sessions == (other.id,)
    play(hub, clock, [other], 3, NOTHING)
    assert other.of("stats")[-1].fps_out > 10
    Client(hub, clock)  # there is room for a new one


def test_a_stream_whose_numbers_go_out_of_range_begins_anew_and_the_show_goes_on(hub, clock, editor):
    client = Client(hub, clock, seed=5)
    play(hub, clock, [client], 2, NOTHING)
    before = hub._lives[client.id].session
    hub.command(client.id, SetPrompt(prompt="make it rain"))
    editor.failure = FloatingPointError("chunk 8: expected finite latents")
    play(hub, clock, [client], 3, NOTHING)
    after = hub._lives[client.id].session
    assert after is not before
    assert (after.prompt, after.seed) == ("make it rain", 5)
    assert [told.message for told in client.of("warning")] == [
        "the stream begins anew: chunk 8: expected finite latents"
    ]
    assert len(client.of("applied")) == 1
    assert not client.of("error")
    stats = client.of("stats")[-1]
    assert stats.dropped == 4
    assert stats.fps_out > 10
    after.chunks = 0
    editor.failure = FloatingPointError("chunk 0: expected finite latents")
    play(hub, clock, [client], 1, NOTHING)
    assert [told.code for told in client.of("error")] == ["editor"]
    assert hub.sessions == ()


def test_a_session_that_is_closed_while_its_chunk_is_edited_just_ends(hub, clock, editor):
    client = Client(hub, clock)

    def vanish(session, frames):
        hub.close(client.id, "gone")
        return 0.1

    editor.seconds = vanish
    client.push(4)
    assert hub.work()
    assert not hub.work()
    assert client.heard[-1].type == "closed"
    assert not client.of("error")


def test_a_client_that_cannot_be_told_is_no_trouble(hub, clock, editor):
    def deaf(message):
        raise RuntimeError("the loop is closed")

    session = hub.open(Open(prompt="x", width=64, height=64, fps=16), deaf)
    client = Client(hub, clock)
    hub.tick()
    client.push(4)
    assert hub.work()
    hub.close(session)
    assert client.of("stats")


def test_nothing_is_left_of_two_hundred_sessions(hub, clock, editor):
    seen = []
    for number in range(200):
        client = Client(hub, clock)
        client.push(5)
        hub.command(client.id, SetPrompt(prompt="b"))
        hub.work()
        seen.append(weakref.ref(hub._lives[client.id]))
        ends = (lambda c: hub.close(c.id), lambda c: hub.command(c.id, Close()), lambda c: hub.detach(c.id))
        ends[number % 3](client)
        if number % 7 == 0:
            editor.failure = RuntimeError("x")
        work(hub)
        clock.now += 40
        hub.tick()
        editor.steps.clear()
        editor.failure = None
    del client
    gc.collect()
    assert hub.sessions == ()
    assert hub.admission.load == 0
    assert sum(ref() is not None for ref in seen) == 0


# Listening


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


# The thread


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
