"""What can be watched."""

import asyncio
import io
import json
import math
import platform
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import pytest

from sana_streaming.server import heap
from sana_streaming.server.app import Server
from sana_streaming.server.feed import Live
from sana_streaming.server.frame import STAGES
from sana_streaming.server.hub import LiveFrame
from sana_streaming.server.metrics import SECONDS, EventLog, Metrics
from sana_streaming.server.protocol import Open

from .conftest import Client
from .fakes import STATS, FakeHub, picture

LIBC = (platform.libc_ver()[0], *(int(part) for part in platform.libc_ver()[1].split(".") if part.isdigit()))


def values(metrics):
    lines = (line for line in metrics.text().decode().splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


@pytest.fixture
def metrics():
    return Metrics()


def test_stats_of_sessions_are_summed_or_the_worst_is_told(metrics):
    metrics.stats("a", STATS)
    metrics.stats("b", STATS.model_copy(update={"real_time_factor": 0.5, "queue": 1, "memory_mb": 50, "level": 0}))
    told = values(metrics)
    assert told["sana_streaming_queue_frames"] == 5
    assert told["sana_streaming_real_time_factor"] == 0.5
    assert told["sana_streaming_memory_bytes"] == 100 * 2**20
    assert told["sana_streaming_quality_level"] == 1
    metrics.forget("b")
    told = values(metrics)
    assert told["sana_streaming_queue_frames"] == 4
    assert told["sana_streaming_real_time_factor"] == 1.5


def test_what_nobody_tells_is_unknown(metrics):
    metrics.stats("a", STATS)
    metrics.stats("a", STATS.model_copy(update={"real_time_factor": None, "memory_mb": None}))
    told = values(metrics)
    assert math.isnan(told["sana_streaming_real_time_factor"])
    assert math.isnan(told["sana_streaming_memory_bytes"])
    metrics.forget("a")
    assert values(metrics)["sana_streaming_queue_frames"] == 0


def test_counts_are_of_all_sessions_and_never_fall(metrics):
    metrics.stats("a", STATS)
    metrics.stats("a", STATS.model_copy(update={"dropped": 10, "repeated": 1}))
    metrics.stats("b", STATS)
    metrics.forget("a")
    told = values(metrics)
    assert told["sana_streaming_dropped_frames_total"] == 13
    assert told["sana_streaming_deadline_misses_total"] == 4


def test_the_process_tells_its_memory(metrics):
    assert values(metrics)["process_resident_memory_bytes"] > 2**20


@pytest.mark.skipif(LIBC[0] != "glibc" or LIBC[1:] < (2, 33), reason="mallinfo2 is glibc's, since 2.33")
def test_memory_in_use_is_what_is_given_out_and_not_what_is_kept(metrics):
    def in_use():
        return values(metrics)["sana_streaming_heap_in_use_bytes"] / 2**20

    before = in_use()
    taken = [bytearray(2**16) for _ in range(1600)]
    assert in_use() - before == pytest.approx(100, abs=5)
    del taken
    assert in_use() - before == pytest.approx(0, abs=5)


def test_a_library_that_does_not_tell(monkeypatch):
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda _: object())
    assert math.isnan(heap.heap_in_use())


@pytest.mark.parametrize(("seconds", "at_most"), [(0.004, "0.01"), (0.09, "0.1"), (0.89, "0.9"), (5.0, "5.0")])
def test_a_latency_falls_into_its_bucket(metrics, seconds, at_most):
    metrics.observe("edit", seconds)
    told = values(metrics)
    bucket = 'sana_streaming_latency_seconds_bucket{{le="{}",stage="edit"}}'
    edges = [*(str(edge) for edge in SECONDS), "+Inf"]
    place = edges.index(at_most)
    assert [told[bucket.format(edge)] for edge in edges] == [0] * place + [1] * (len(edges) - place)
    assert told['sana_streaming_latency_seconds_sum{stage="edit"}'] == seconds


def test_the_hub_of_a_server_tells_the_stages_of_its_frames(hub, clock, editor):
    editor.seconds = lambda session, frames: 0.2
    server = Server(hub)
    client = Client(hub, clock)
    client.push(4)  # all at once, as late as the last of them
    clock.now = client.begin + 3 / 16 + 0.25
    hub.work()
    for number in range(4):
        hub.pull(client.id, client.due(number))
    told = values(server.metrics)
    sums = {stage: told[f'sana_streaming_latency_seconds_sum{{stage="{stage}"}}'] for stage in (*STAGES, "total")}
    assert sums["edit"] == pytest.approx(4 * 0.2)
    assert sum(sums[stage] for stage in STAGES) == pytest.approx(sums["total"])
    assert told['sana_streaming_latency_seconds_count{stage="total"}'] == 4


def test_sessions_are_counted_while_they_are_open():
    async def run():
        server = Server(FakeHub())
        counts = []
        lives = []
        for _ in range(2):
            lives.append(await server.open(Open(prompt="x", width=64, height=64, fps=30), None))
            counts.append(values(server.metrics)["sana_streaming_sessions"])
        for live in lives:
            await server.close(live, "")
            counts.append(values(server.metrics)["sana_streaming_sessions"])
        server.pool.shutdown()
        return counts

    assert asyncio.run(run()) == [1, 2, 1, 0]


def test_a_tick_without_a_new_frame_shows_the_last_one_again():
    async def run(metrics):
        with ThreadPoolExecutor(1) as pool:
            live = Live(FakeHub(), pool, metrics)
            live._seen(LiveFrame(picture(), Fraction(0), 0.0, 1, repeated=True), 1.0)

    metrics = Metrics()
    asyncio.run(run(metrics))
    assert values(metrics)["sana_streaming_repeated_frames_total"] == 1
    assert values(metrics)["sana_streaming_deadline_misses_total"] == 0  # that is the output clock's to say


def test_each_server_has_numbers_of_its_own():
    first, second = Metrics(), Metrics()
    first.sessions.set(3)
    assert values(first)["sana_streaming_sessions"] == 3
    assert values(second)["sana_streaming_sessions"] == 0


def test_json_lines():
    stream = io.StringIO()
    EventLog("json", stream=stream, now=lambda: 0)("opened", session="ab", prompt="make it snow", fps=16)
    assert json.loads(stream.getvalue()) == {
        "time": "1970-01-01T00:00:00Z",
        "event": "opened",
        "session": "ab",
        "fps": 16,
    }


def test_lines_for_people_and_prompts_if_asked_for():
    stream = io.StringIO()
    EventLog("text", prompts=True, stream=stream, now=lambda: 0)("opened", session="ab", prompt="make it\nsnow")
    assert stream.getvalue() == '00:00:00 opened session=ab prompt="make it\\nsnow"\n'
