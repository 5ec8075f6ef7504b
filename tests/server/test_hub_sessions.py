"""Who may come, who is gone, and what fails."""

import pytest

from sana_streaming.server.hub import Busy, Hub, Limits, QueueFull, UnknownSession
from sana_streaming.server.protocol import Close, Open, Pause, SetPrompt
from tests.server.conftest import Client, play
from tests.server.fakes import nothing


def test_admission_by_measured_cost_with_a_queue(hub, clock, editor):
    editor.seconds = lambda session, frames: 0.1  # two fifths of the time
    clients = [Client(hub, clock)]
    play(hub, clock, clients, 2, nothing)
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


def test_who_waits_may_give_up(editor, clock):
    hub, heard = Hub(editor, Limits(sessions=1), clock), []
    Client(hub, clock)
    with pytest.raises(Busy) as busy:
        hub.open(Open(prompt="x", width=64, height=64, fps=16), heard.append)
    hub.command(busy.value.id, Close())
    assert heard[-1].type == "closed"
    assert busy.value.id not in hub.sessions
    assert not hub.admission.queue


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
    play(hub, clock, [client], 2, nothing)
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
        hub.open(Open(prompt="x", width=64, height=64, fps=16, resume=client.id), nothing)


@pytest.mark.parametrize(
    ("failure", "code"),
    [(RuntimeError("a kernel\nfailed"), "editor"), (MemoryError("chunk 1: out of memory"), "memory")],
    ids=["raises", "memory"],
)
def test_a_model_that_fails_ends_that_session_and_no_other(hub, clock, editor, failure, code):
    clients = [Client(hub, clock), Client(hub, clock)]
    play(hub, clock, clients, 2, nothing)
    editor.failure = failure
    play(hub, clock, clients, 3, nothing)
    ended = next(client for client in clients if client.of("closed"))
    (other,) = (client for client in clients if client is not ended)
    assert [told.code for told in ended.of("error")] == [code]
    assert "\n" not in ended.of("error")[0].message
    assert ended.heard[-1].type == "closed"
    assert not other.of("error")
    assert hub.sessions == (other.id,)
    play(hub, clock, [other], 3, nothing)
    assert other.of("stats")[-1].fps_out > 10
    Client(hub, clock)  # there is room for a new one


def test_a_stream_whose_numbers_go_out_of_range_begins_anew_and_the_show_goes_on(hub, clock, editor):
    client = Client(hub, clock, seed=5)
    play(hub, clock, [client], 2, nothing)
    before = hub._lives[client.id].session
    hub.command(client.id, SetPrompt(prompt="make it rain"))
    editor.failure = FloatingPointError("chunk 8: expected finite latents")
    play(hub, clock, [client], 3, nothing)
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
    play(hub, clock, [client], 1, nothing)
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
