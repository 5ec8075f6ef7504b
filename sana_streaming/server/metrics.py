"""What can be watched while it runs: numbers for Prometheus, and a line for each event."""

import json
import math
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from .heap import heap_in_use
from .protocol import Stats

PREFIX = "sana_streaming_"
SECONDS = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.5, 2.0, 5.0)


class Metrics:
    """Numbers of one server, in a registry of its own."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.sessions = self._gauge("sessions", "Sessions that are open.")
        self.viewers = self._gauge("viewers", "Connections that watch.")
        self.factor = self._gauge("real_time_factor", "Seconds of video edited per second of work, of the slowest.")
        self.queue = self._gauge("queue_frames", "Frames that wait to be edited.")
        self.memory = self._gauge("memory_bytes", "Memory in use, as sessions tell it.")
        heap = self._gauge(
            "heap_in_use_bytes", "Memory that malloc has given out; what it keeps for later is not in it."
        )
        heap.set_function(heap_in_use)
        self.level = self._gauge("quality_level", "How far quality is lowered, at most, to keep up; 0: not at all.")
        self.dropped = self._counter("dropped_frames", "Source frames that were not edited.")
        self.repeated = self._counter("repeated_frames", "Ticks of an output clock that showed the last frame again.")
        self.deadline_misses = self._counter("deadline_misses", "Those of them at which a frame was due, but late.")
        self.broken = self._counter("broken_frames", "Source frames that could not be decoded.")
        self.refused = self._counter("refused", "Requests that were refused.", ("reason",))
        self.latency = Histogram(
            PREFIX + "latency_seconds",
            "Of an edited frame: fill (arrival until its chunk is complete), queue (until the model begins), edit (its "
            "chunk in the model), clock (until it is shown), total (their sum). Of any: receive (arrival until it is "
            "scaled), encode (as JPEG).",
            ("stage",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self._latest: dict[str, Stats] = {}

    def observe(self, stage: str, seconds: float) -> None:
        """What a frame took. Any thread."""
        self.latency.labels(stage).observe(seconds)

    def stats(self, id: str, stats: Stats) -> None:  # noqa: A002
        """What a session tells of itself about once a second."""
        before = self._latest.get(id)
        self.dropped.inc(max(0, stats.dropped - (before.dropped if before else 0)))
        self.deadline_misses.inc(max(0, stats.repeated - (before.repeated if before else 0)))
        self._latest[id] = stats
        self._sum_up()

    def forget(self, id: str) -> None:  # noqa: A002
        self._latest.pop(id, None)
        self._sum_up()

    def text(self) -> bytes:
        return generate_latest(self.registry)

    def _sum_up(self) -> None:
        told = self._latest.values()
        self.queue.set(sum(stats.queue for stats in told))
        self.level.set(max((stats.level for stats in told), default=0))
        memory = [2**20 * stats.memory_mb for stats in told if stats.memory_mb is not None]
        self.memory.set(max(memory, default=math.nan))
        factors = [stats.real_time_factor for stats in told if stats.real_time_factor is not None]
        self.factor.set(min(factors, default=math.nan))  # not 0: nobody falls behind where nothing is edited

    def _gauge(self, name: str, about: str) -> Gauge:
        return Gauge(PREFIX + name, about, registry=self.registry)

    def _counter(self, name: str, about: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(PREFIX + name, about, labels, registry=self.registry)


class EventLog:
    """A line for each event on stderr: JSON for machines, or words for people. Prompts are told if asked for."""

    def __init__(
        self,
        style: str = "text",
        prompts: bool = False,
        stream: TextIO | None = None,
        now: Callable[[], float] = time.time,
    ):
        assert style in ("text", "json")
        self.style, self.prompts, self.stream, self.now = style, prompts, stream, now

    def __call__(self, event: str, **fields: Any) -> None:
        if not self.prompts:
            fields.pop("prompt", None)
        moment = time.gmtime(self.now())
        if self.style == "json":
            line = json.dumps({"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", moment), "event": event, **fields})
        else:
            told = " ".join(
                f"{key}={json.dumps(value) if ' ' in str(value) else value}" for key, value in fields.items()
            )
            line = f"{time.strftime('%H:%M:%S', moment)} {event} {told}".rstrip()
        print(line, file=self.stream or sys.stderr, flush=True)
