"""What clients ask for: receipts, errors, and what becomes of the show."""

import random
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from sana_streaming.server.hub import Hub, Limits, LiveFrame, UnknownSession
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
from tests.server.conftest import SIDE, Client, FakeEditor, play
from tests.server.fakes import nothing, red, work
from tests.stream.tiny import tiny_editor


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
        hub.open(Open(**message), nothing)
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


def test_pause_holds_the_last_frame_and_resume_begins_with_what_is_new(hub, clock, editor):
    client = Client(hub, clock)
    play(hub, clock, [client], 3, nothing)
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
    play(hub, clock, [client], 3, nothing)
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
    play(hub, clock, [client], 3, nothing)
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
