"""Nothing is left of sessions that ended, whichever way they did."""

import gc
import threading
import weakref
from collections.abc import Sized
from itertools import cycle

import pytest

from sana_streaming.server.hub import Busy, Hub, Limits, QueueFull
from sana_streaming.server.protocol import Close, SetPrompt
from tests.server.conftest import Client
from tests.server.fakes import work


def closed(hub, clock, editor, client):
    hub.close(client.id, "gone")


def drained(hub, clock, editor, client):
    hub.command(client.id, Close())
    work(hub)
    assert hub.state(client.id) == "draining"
    clock.now += 5
    hub.pull(client.id)
    hub.tick()


def lost(hub, clock, editor, client):
    hub.detach(client.id)
    clock.now += 31
    hub.tick()


def forgotten(hub, clock, editor, client):
    clock.now += 61
    hub.tick()


def failed(hub, clock, editor, client):
    client.push(4)
    editor.failure = RuntimeError("a kernel failed")
    work(hub)


def without_memory(hub, clock, editor, client):
    client.push(4)
    editor.failure = MemoryError("chunk 1: out of memory")
    work(hub)


def out_of_range_twice(hub, clock, editor, client):
    for _ in range(2):
        client.push(4)
        editor.failure = FloatingPointError("expected finite latents")
        work(hub)


def vanished_meanwhile(hub, clock, editor, client):
    editor.seconds = lambda session, frames: hub.close(client.id, "gone") or 0.1
    client.push(4)
    work(hub)
    editor.seconds = lambda session, frames: 0.01


def not_even_begun(hub, clock, editor, client):
    other = Client(hub, clock)
    hub.command(other.id, Close())
    assert other.heard[-1].type == "closed"
    hub.close(client.id)


def gave_up_waiting(hub, clock, editor, client):
    others = [Client(hub, clock) for _ in range(2)]
    for _ in range(2):
        with pytest.raises(Busy) as busy:
            Client(hub, clock)
    with pytest.raises(QueueFull):
        Client(hub, clock)
    hub.close(busy.value.id)
    for other in (client, *others):
        hub.close(other.id)
    (promoted,) = hub.sessions  # who waited longer
    hub.detach(promoted)
    clock.now += 31
    hub.tick()


WAYS = (closed, drained, lost, forgotten, failed, without_memory, out_of_range_twice, vanished_meanwhile)


def sizes(hub):
    """Of all that a hub holds."""
    things = {"hub": hub, "registry": hub._registry, "editing": hub._editing, "admission": hub.admission}
    held = ((f"{name}.{key}", value) for name, thing in things.items() for key, value in vars(thing).items())
    return {name: len(value) for name, value in held if isinstance(value, Sized)}


def test_nothing_is_left_of_two_hundred_sessions(clock, editor):
    hub, threads = Hub(editor, Limits(sessions=3, waiting=2), clock), set(threading.enumerate())
    begin, refs = sizes(hub), []
    for number, way in zip(range(200), cycle((*WAYS, not_even_begun, gave_up_waiting)), strict=False):
        client = Client(hub, clock, policy="every" if number % 2 else "latest")
        live = hub._lives[client.id]
        refs += [weakref.ref(thing) for thing in (client, live, live.session, live.governor, live.pacer)]
        client.push(5)
        hub.command(client.id, SetPrompt(prompt="b"))
        work(hub)
        assert editor.steps
        del live
        way(hub, clock, editor, client)
        assert hub.sessions == (), way
        editor.steps.clear()
        assert editor.failure is None
    del client
    gc.collect()
    assert sizes(hub) == begin
    assert hub.admission.load == 0
    assert set(threading.enumerate()) <= threads  # of other tests' may end meanwhile
    assert [ref() for ref in refs if ref() is not None] == []
