"""What a measurement of `live.py` comes to: percentiles, parts of the latency, growth of memory, and the table."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from live_clients import Plan, Seen

PREFIX = "sana_streaming_"
PARTS = {
    "fill": "arrival -> chunk complete",
    "queue": "complete -> model begins",
    "edit": "in the model",
    "clock": "edited -> shown",
    "transport": "encoders, network, the receivers' buffers, both ways",
    "whole": "glass to glass",
}
STAGES = ("fill", "queue", "edit", "clock")  # the parts that the server tells
COLUMNS = (
    "client",
    "steps",
    "lowered",
    "frames/s out",
    "glass to glass p50 / p95 / p99",
    "dropped",
    "repeated",
    "unreadable",
    "real time",
    "chunk p95",
)
GOAL_FPS, GOAL_P95 = 16, 900.0  # frames/s in, of one client; milliseconds
GROWTH_SECONDS = 600.0  # less tells nothing of growth


@dataclass(frozen=True)
class Sample:
    """What /metrics said."""

    seconds: float  # since the measurement began
    values: Mapping[str, float]

    @property
    def memory_mb(self) -> float:
        return self.values.get("process_resident_memory_bytes", math.nan) / 2**20

    @property
    def heap_mb(self) -> float:
        return self.values.get(PREFIX + "heap_in_use_bytes", math.nan) / 2**20


@dataclass(frozen=True)
class Measured:
    clients: Sequence[Seen]
    samples: Sequence[Sample]  # the first as it began, the last as it ended

    def gained(self, name: str) -> float:
        """How much a counter of the server rose."""
        return self.samples[-1].values.get(name, 0.0) - self.samples[0].values.get(name, 0.0)

    def mean_ms(self, stage: str) -> float:
        label = f'{{stage="{stage}"}}'
        count = self.gained(f"{PREFIX}latency_seconds_count{label}")
        return 1000 * self.gained(f"{PREFIX}latency_seconds_sum{label}") / count if count else math.nan


def percentiles(values: Sequence[float], *percents: float) -> list[float]:
    return [float(np.percentile(values, percent)) if len(values) else math.nan for percent in percents]


def slope(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Of the straight line that fits best, and half the width of its 95 % interval, by Student's distribution. Readings
    that wander together count as fewer."""
    if len(x) < 5:
        return math.nan, math.nan
    a, b = np.asarray(x, float) - np.mean(x), np.asarray(y, float) - np.mean(y)
    rise = float(a @ b / (a @ a))
    rest = b - rise * a
    spread = float(rest @ rest)
    alike = max(0.0, float(rest[1:] @ rest[:-1]) / spread) if spread else 0.0  # from one to the next
    free = max(1.0, len(x) * (1 - alike) / (1 + alike) - 2)
    error = math.sqrt(spread / free / float(a @ a))
    z = NormalDist().inv_cdf(0.975)
    t = z + (z**3 + z) / (4 * free) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
    return rise, t * error


def summary(plan: Plan, measured: Measured) -> dict[str, Any]:
    """All that is told, for the table and for JSON. Times in milliseconds, memory in MB."""
    clients = []
    for seen in measured.clients:
        p50, p95, p99 = percentiles([1000 * delay for delay in seen.delays], 50, 95, 99)
        first, last = (seen.stats[0], seen.stats[-1]) if seen.stats else ({}, {})
        clients.append(
            {
                "waiting": seen.waiting,
                "size": seen.size,
                "steps": seen.steps,
                "fps_in": seen.sent / plan.seconds,
                "fps_out": len(seen.delays) / plan.seconds,
                "mean": float(np.mean(seen.delays)) * 1000 if seen.delays else math.nan,
                "p50": p50,
                "p95": p95,
                "p99": p99,
                "seen_again": seen.again,
                "unreadable": seen.unreadable,
                **{name: last.get(name, 0) - first.get(name, 0) for name in ("dropped", "repeated")},
                **{name: last.get(name) for name in ("real_time_factor", "chunk_p95_ms", "queue", "level")},
                "errors": seen.errors,
            }
        )
    shown = [1000 * delay for seen in measured.clients for delay in seen.delays]
    whole = float(np.mean(shown)) if shown else math.nan
    server = measured.mean_ms("total")
    times, memory = [s.seconds for s in measured.samples], [s.memory_mb for s in measured.samples]
    rise, margin = slope([seconds / 60 for seconds in times], memory)
    heap = [s.heap_mb for s in measured.samples]
    half = len(heap) // 2
    return {
        "plan": {name: value for name, value in asdict(plan).items() if name != "url"},
        "clients": clients,
        "parts": {**{stage: measured.mean_ms(stage) for stage in STAGES}, "transport": whole - server, "whole": whole},
        "deadline_misses": measured.gained(PREFIX + "deadline_misses_total"),
        "memory": {"seconds": times, "mb": memory, "mb_per_minute": rise, "margin": margin},
        "heap": {"mb": heap, "least_mb": [min(heap[:half], default=math.nan), min(heap[half:], default=math.nan)]},
    }


def table(told: Mapping[str, Any], where: Mapping[str, Any]) -> Iterator[str]:
    plan, clients, parts, memory = (told[name] for name in ("plan", "clients", "parts", "memory"))
    held = [client for client in clients if not client["waiting"]]
    width, height = held[0]["size"] if held else (0, 0)
    yield f"{where['cpu']}, {where['threads']} threads, torch {where['torch']}, commit {where['commit']}"
    yield (
        f"{plan['clients']} client(s) by {plan['transport']}, {plan['fps']:g} frames/s in, edited at {width}x{height}, "
        f"{plan['seconds']:g} s after {plan['warm_up']:g} s, seed {plan['seed']}"
    )
    yield f"sessions held: {len(held)} of {len(clients)}"
    yield ""
    rows = [COLUMNS, *(row(number, client) for number, client in enumerate(clients, 1) if not client["waiting"])]
    widths = [max(len(line[i]) for line in rows) for i in range(len(COLUMNS))]
    yield from ("  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True)) for line in rows)
    yield from (f"no room: position {client['waiting']} of the queue" for client in clients if client["waiting"])
    yield ""
    yield "parts of the mean, ms"
    yield from (f"  {name:10}{parts[name]:6.0f}   {about}" for name, about in PARTS.items())
    yield ""
    growth = f"{memory['mb_per_minute']:+.2f} ± {memory['margin']:.2f} MB a minute (95 %)"
    yield f"deadline misses {told['deadline_misses']:.0f}; memory of the server {memory['mb'][-1]:.0f} MB, {growth}"
    before, after = told["heap"]["least_mb"]
    if not math.isnan(after):
        yield f"of it in use: at least {before:.2f} MB at some time in the first half, {after:.2f} MB in the second"
    for client in clients:
        yield from (f"error: {error}" for error in client["errors"])
    yield ""
    if len(clients) == len(held) == 1 and plan["fps"] == GOAL_FPS:
        p95 = held[0]["p95"]
        yield f"goal p95 < {GOAL_P95:g} ms: {p95:.0f} ms, {'met' if p95 < GOAL_P95 else 'NOT met'}"
    if plan["seconds"] >= GROWTH_SECONDS:
        grows = not memory["mb_per_minute"] - memory["margin"] <= 0
        yield f"goal no growth in {GROWTH_SECONDS / 60:g} minutes or more: {'NOT met' if grows else 'met'}"


def row(number: int, client: Mapping[str, Any]) -> tuple[str, ...]:
    """As COLUMNS has it. Lowered: by how many levels of quality, at the end, for the model to keep up."""
    factor, chunk = client["real_time_factor"] or math.nan, client["chunk_p95_ms"] or math.nan
    return (
        str(number),
        str(client["steps"]),
        str(client["level"] or "no"),
        f"{client['fps_out']:.2f}",
        " / ".join(f"{client[name]:.0f}" for name in ("p50", "p95", "p99")) + " ms",
        *(str(client[name]) for name in ("dropped", "repeated", "unreadable")),
        f"{factor:.2f}x",
        f"{chunk:.0f} ms",
    )
