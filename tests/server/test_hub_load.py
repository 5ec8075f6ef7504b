"""More than the model can do: what is dropped, what is lowered, and whose turn it is."""

from statistics import median

import numpy as np
import pytest

from sana_streaming.server.hub import Hub, Limits
from sana_streaming.server.protocol import (
    SetPrompt,
)
from sana_streaming.stream.governor import QUEUE_CHUNKS
from tests.server.conftest import SIDE, Client, play
from tests.server.fakes import nothing, work


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
    play(hub, clock, [client], 12, nothing)
    count = len(editor.steps)
    hub.command(client.id, SetPrompt(prompt="b"))
    play(hub, clock, [client], 1, nothing)
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


def test_sessions_take_turns_and_the_one_with_short_chunks_is_not_kept_waiting(clock, editor):
    hub = Hub(editor, Limits(together=1), clock)
    slow(editor, 0.2)
    clients = [Client(hub, clock) for _ in range(3)]
    play(hub, clock, clients, 20, nothing)
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
