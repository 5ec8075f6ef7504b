"""The benchmark of a live server: it runs whole, its numbers are right, and it ends whatever happens."""

import asyncio
import importlib.util
import json
import math
import socket
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import uvicorn

from sana_streaming.server import stamp
from sana_streaming.server.app import Server, create_app

from .fakes import STATS, FakeHub

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "live.py"


def load():
    spec = importlib.util.spec_from_file_location("live", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


live = load()
clients, report = sys.modules["live_clients"], sys.modules["live_report"]


def plan(url="http://127.0.0.1:9/", **changes):
    given = {"clients": 1, "transport": "websocket", "fps": 30.0, "size": (64, 64), "warm_up": 0.2, "seconds": 1.5}
    return clients.Plan(url=url, **{**given, "prompt": "make it snow", "steps": None, "seed": 0} | changes)


@contextmanager
def served(hub):
    """The address of a server of its own thread."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(create_app(Server(hub)), log_level="warning", ws="websockets-sansio")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            server.should_exit = True
            thread.join(10)


def test_all_of_it(tmp_path, capsys):
    path = tmp_path / "live.json"
    options = ["--seconds", "3", "--warm-up", "1", "--size", "128x128", "--fps", "8", "--json", str(path)]
    code = live.main(options)
    said = capsys.readouterr()
    assert code == 0, said
    told = json.loads(path.read_text())
    (client,) = told["clients"]
    assert client["errors"] == []
    assert 0 < client["p50"] <= client["p95"] <= client["p99"]
    assert 0 < client["fps_in"] <= 10
    parts = told["parts"]
    assert all(parts[stage] > 0 for stage in report.STAGES)
    assert sum(parts.values()) - parts["whole"] == pytest.approx(parts["whole"])
    assert told["memory"]["mb"][-1] > 100
    assert told["machine"]["torch"]
    assert "sessions held: 1 of 1" in said.out
    assert "s left; server" in said.err


@pytest.mark.parametrize("transport", clients.TRANSPORTS)
def test_clients_see_what_they_sent(transport):
    hub, began = FakeHub(size=(64, 64)), []
    with served(hub) as url:
        asked = plan(url, transport=transport, clients=2, fps=15.0)  # half of what is shown
        seen = asyncio.run(clients.watch(asked, lambda: began.append(len(hub.pushed))))
    assert began[0] > 0
    for one in seen:
        assert one.errors == []
        assert one.size == (64, 64)
        assert 0 < one.sent <= 29  # a busy machine sends fewer
        assert 0 < len(one.delays) <= one.sent + 3
        assert (one.again > 0) == (transport == "webrtc")  # the WebSocket sends no picture twice
        assert 0 < min(one.delays) <= max(one.delays)
        assert one.unreadable <= 2
        assert one.stats[0]["queue"] == STATS.queue
    assert hub.detached == []  # they said good-bye


def test_who_finds_no_room_waits_and_leaves():
    with served(FakeHub(rooms=1)) as url:
        first, second = asyncio.run(clients.watch(plan(url, clients=2), lambda: None))
    assert (first.waiting, second.waiting) == (0, 1)
    assert first.delays
    assert second.delays == second.errors == []


def test_who_is_refused_says_why():
    with served(FakeHub()) as url:
        (seen,) = asyncio.run(clients.watch(plan(url, prompt="wrong", seconds=0.1), lambda: None))
    assert "expected another prompt" in seen.errors[0]


def test_a_server_that_is_not_there_is_an_error_of_each_client():
    (seen,) = asyncio.run(clients.watch(plan(seconds=0.1), lambda: None))
    assert "OSError" in seen.errors[0] or "Connect" in seen.errors[0]


def test_a_server_that_never_answers_is_left(monkeypatch):
    monkeypatch.setattr(clients, "STEP_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        begin = time.monotonic()
        asked = plan(f"http://127.0.0.1:{deaf.getsockname()[1]}/", seconds=0.1)
        (seen,) = asyncio.run(clients.watch(asked, lambda: None))
    assert seen.errors == ["TimeoutError"]
    assert time.monotonic() - begin < 10


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import time; time.sleep(60)", "is not ready after 0.5 s: it says nothing"),
        ("import sys; sys.exit('no such model')", "did not start: no such model"),
    ],
)
def test_a_server_that_does_not_start_is_ended(code, said):
    with pytest.raises(ValueError, match=said), live.serving([sys.executable, "-c", code], 0.5):
        pass


def test_a_server_is_ended_when_it_is_no_longer_needed(monkeypatch):
    monkeypatch.setattr(live, "END_SECONDS", 0.3)
    stubborn = (
        "import signal, time; signal.signal(15, lambda *_: None); print('http://here/', flush=True); time.sleep(60)"
    )
    processes = []
    start = live.subprocess.Popen
    monkeypatch.setattr(live.subprocess, "Popen", lambda *a, **k: processes.append(start(*a, **k)) or processes[0])
    with pytest.raises(RuntimeError), live.serving([sys.executable, "-c", stubborn], 20) as url:
        assert url == "http://here/"
        raise RuntimeError
    assert processes[0].returncode == -9


def test_clients_that_fail_as_a_whole_are_one_line():
    with pytest.raises(ValueError, match="the clients failed: TypeError"):
        live.measure(plan(size=None))


# Numbers


def test_the_slope_and_its_interval():
    rng = np.random.default_rng(0)
    minutes = np.arange(60) / 6
    assert report.slope(minutes, 800 + 3 * minutes) == pytest.approx((3, 0), abs=1e-6)
    inside = 0
    for _ in range(400):
        rise, margin = report.slope(minutes, 800 + 3 * minutes + rng.normal(0, 1, 60))
        inside += abs(rise - 3) <= margin
    assert 0.92 < inside / 400 < 0.99
    assert all(math.isnan(value) for value in report.slope(minutes[:4], minutes[:4]))


def test_readings_that_wander_make_the_interval_wider():
    rng = np.random.default_rng(0)
    minutes, inside = np.arange(60) / 6, 0
    for _ in range(400):
        walk = np.zeros(60)
        for i in range(1, 60):
            walk[i] = 0.7 * walk[i - 1] + rng.normal()
        rise, margin = report.slope(minutes, walk)
        inside += abs(rise) <= margin
    assert inside / 400 > 0.8


def test_the_clip_is_seeded_and_its_stamp_is_read():
    first, again, other = (clients.synthetic((64, 48), seed) for seed in (0, 0, 1))
    assert len(first) == clients.LOOP
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert not (first[0] == other[0]).all()
    assert not (first[0] == first[1]).all()

    async def take(count):
        source = clients.Source(first, 200.0)
        return [(await source.next(), source.number) for _ in range(count)]

    for rgb, number in asyncio.run(take(5)):
        assert stamp.cut(rgb, 48)[1] == number + 1


def test_the_table():
    """Two clients, one of whom waits, and a server whose histogram and memory rose."""
    seen = report.Seen(size=(64, 64), steps=2, sent=30, delays=[0.4] * 20 + [0.8], again=1)
    told = {"dropped": 2, "repeated": 1, "real_time_factor": 1.5, "chunk_p95_ms": 120, "queue": 1, "level": 0}
    seen.stats = [told, {**told, "dropped": 5}]
    seen.errors = ["it broke"]
    asked = plan(clients=2, seconds=700.0)

    def sample(minutes, count, megabytes):
        values = {"process_resident_memory_bytes": megabytes * 2**20, "sana_streaming_deadline_misses_total": count}
        values["sana_streaming_heap_in_use_bytes"] = (400 + minutes % 3 + minutes // 6) * 2**20
        for stage in (*report.STAGES, "total"):
            values[f'sana_streaming_latency_seconds_count{{stage="{stage}"}}'] = 10 + count
            seconds = 1.0 + count * (0.4 if stage == "total" else 0.1)
            values[f'sana_streaming_latency_seconds_sum{{stage="{stage}"}}'] = seconds
        return report.Sample(60 * minutes, values)

    samples = [sample(i, 4 * i, 500 + 7 * i) for i in range(12)]
    numbers = report.summary(asked, report.Measured([seen, report.Seen(waiting=1)], samples))
    assert numbers["clients"][0]["p50"] == pytest.approx(400)
    assert numbers["clients"][0]["dropped"] == 3
    assert numbers["parts"]["edit"] == pytest.approx(100)
    assert numbers["parts"]["transport"] == pytest.approx(numbers["parts"]["whole"] - 400)
    lines = list(report.table(numbers, {"cpu": "one", "threads": 2, "torch": "2", "commit": None}))
    said = "\n".join(lines)
    assert "sessions held: 1 of 2" in said
    assert "400 / 400 / 720 ms" in said
    assert "no room: position 1" in said
    assert "deadline misses 44; memory of the server 577 MB, +7.00 ± 0.00 MB a minute" in said
    assert "at least 400.00 MB at some time in the first half, 401.00 MB in the second" in said
    assert "error: it broke" in said
    assert "goal no growth in 10 minutes or more: NOT met" in said


@pytest.mark.parametrize("given", [["--size", "256"], ["--clients", "0"], ["--fps", "-1"], ["--transport", "pigeon"]])
def test_what_is_wrong_is_told(given, capsys):
    with pytest.raises(SystemExit):
        live.main(given)
    assert given[0] in capsys.readouterr().err
