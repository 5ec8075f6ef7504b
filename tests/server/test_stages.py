"""How long the frames of a stream are on their way, stage by stage."""

import pytest

from sana_streaming.server.frame import STAGES, Passage
from sana_streaming.server.hub import Hub, Limits
from sana_streaming.server.protocol import Bypass, Close
from tests.server.conftest import Client, play


@pytest.fixture
def seen():
    return []


@pytest.fixture
def hub(editor, clock, seen):
    return Hub(editor, Limits(), clock, lambda stage, seconds: seen.append((stage, seconds)))


def shown(seen):
    """Frame by frame: seconds by stage."""
    assert len(seen) % 5 == 0
    return [dict(seen[i : i + 5]) for i in range(0, len(seen), 5)]


def test_the_stages_of_a_chunk(hub, clock, editor, seen):
    editor.seconds = lambda session, frames: 0.2
    client = Client(hub, clock)
    client.push(3)
    clock.now = client.begin + 3 / 16
    client.push()
    clock.now += 0.05
    hub.work()
    for number in range(4):
        hub.pull(client.id, client.due(number))
    hub.pull(client.id, client.due(9))  # again: not told
    frames = shown(seen)
    assert [frame["fill"] for frame in frames] == pytest.approx([3 / 16, 2 / 16, 1 / 16, 0])
    assert [frame["queue"] for frame in frames] == pytest.approx([0.05] * 4)
    assert [frame["edit"] for frame in frames] == pytest.approx([0.2] * 4)
    assert [frame["clock"] for frame in frames] == pytest.approx([i / 16 + 1e-3 for i in range(4)])
    assert [frame["total"] for frame in frames] == pytest.approx([3 / 16 + 0.25 + 1e-3] * 4)


@pytest.mark.parametrize("seconds", [0.05, 0.6], ids=["keeps up", "falls behind"])
def test_stages_add_up_and_none_is_negative(hub, clock, editor, seen, seconds):
    editor.seconds = lambda session, frames: seconds
    clients = [Client(hub, clock), Client(hub, clock)]
    fresh = []
    play(hub, clock, clients, 10, lambda frame: fresh.append(frame) if frame and not frame.repeated else None)
    frames = shown(seen)
    assert len(frames) == len(fresh) > 30
    for told in frames:
        assert list(told) == [*STAGES, "total"]
        assert sum(told[stage] for stage in STAGES) == pytest.approx(told["total"])
        assert min(told.values()) >= 0


def test_what_is_not_edited_has_no_stages(hub, clock, seen):
    client = Client(hub, clock)
    hub.command(client.id, Bypass(on=True))
    play(hub, clock, [client], 2, lambda frame: None)
    assert client.of("stats")[-1].fps_out > 0
    assert seen == []


def test_the_rest_of_a_stream_that_ends_is_complete_when_it_is_taken(hub, clock, seen):
    client = Client(hub, clock, policy="every")
    client.push(2)
    clock.now += 1
    hub.command(client.id, Close())
    hub.work()
    hub.pull(client.id, clock.now)
    assert shown(seen)[0]["fill"] == pytest.approx(1)
    assert shown(seen)[0]["queue"] == 0


def test_a_pull_for_a_moment_that_is_past_counts_until_the_frame_was_ready():
    stages = Passage(complete=2.0, begun=3.0, edited=5.0).stages(captured=1.0, shown=4.9)
    assert stages == {"fill": 1.0, "queue": 1.0, "edit": 2.0, "clock": 0.0, "total": 4.0}
