"""What can be watched."""

import io
import json

from sana_streaming.server.metrics import EventLog, Metrics

from .fakes import STATS


def values(metrics):
    lines = (line for line in metrics.text().decode().splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_stats_of_sessions_are_summed():
    metrics = Metrics()
    metrics.stats("a", STATS)
    metrics.stats("b", STATS.model_copy(update={"real_time_factor": 0.5, "queue": 1, "memory_mb": 50, "level": 0}))
    told = values(metrics)
    assert told["sana_streaming_queue_frames"] == 5
    assert told["sana_streaming_real_time_factor"] == 0.5
    assert told["sana_streaming_memory_bytes"] == 100 * 2**20
    assert told["sana_streaming_quality_level"] == 1
    metrics.forget("a")
    assert values(metrics)["sana_streaming_queue_frames"] == 1


def test_counts_are_of_all_sessions_and_never_fall():
    metrics = Metrics()
    metrics.stats("a", STATS)
    metrics.stats("a", STATS.model_copy(update={"dropped": 10}))
    metrics.stats("b", STATS)
    metrics.forget("a")
    told = values(metrics)
    assert told["sana_streaming_dropped_frames_total"] == 13
    assert told["sana_streaming_repeated_frames_total"] == 4


def test_each_server_has_numbers_of_its_own():
    first, second = Metrics(), Metrics()
    first.sessions.set(3)
    first.latency.labels("glass").observe(0.3)
    assert values(first)["sana_streaming_sessions"] == 3
    assert values(first)['sana_streaming_latency_seconds_bucket{le="0.3",stage="glass"}'] == 1
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
