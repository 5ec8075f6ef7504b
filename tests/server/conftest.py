"""A server without a model and without time: a clock that is moved, and an editor that makes negatives."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sana_streaming.config import ModelConfig, SamplerConfig, TaughtEdit, nano
from sana_streaming.diffusion.flow import sampling
from sana_streaming.server.hub import Hub, Limits, LiveFrame
from sana_streaming.server.protocol import Open, ServerMessage
from sana_streaming.stream.prompt_policy import Receipt
from sana_streaming.stream.scene_cuts import Watch

SIDE = 64


class FakeClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class RealClock:
    """The fake editor moves the clock; this one moves by itself."""

    @property
    def now(self):
        return time.monotonic()

    @now.setter
    def now(self, _):
        pass


@dataclass(eq=False)
class FakeSession:
    """What the hub and the log use of a `Session`. A step takes as long as the editor says."""

    editor: "FakeEditor"
    prompt: str
    seed: int = 0
    steps: int | None = None
    chunks: int = 0
    requests: dict[str, Receipt] = field(default_factory=dict)
    state: Any = None
    size: tuple[int, int] = (0, 0)
    guidance: float = 1.0
    negative: None = None
    on_cut: str = "ignore"
    change: Any = None
    watch: Watch = Watch()  # noqa: RUF009  # frozen

    def __post_init__(self) -> None:
        sampler = self.editor.config.sampler
        self.sampling = sampling(sampler, self.steps)
        self.lengths = (sampler.first_chunk, sampler.chunk)
        self.generator = torch.Generator().manual_seed(self.seed)

    @property
    def anchoring(self) -> Receipt | None:
        return self.requests.get("anchor")

    @property
    def resetting(self) -> Receipt | None:
        return self.requests.get("reset")

    @property
    def chunk_frames(self) -> int:
        opening = self.chunks == 0 or "reset" in self.requests
        return self.editor.frames[0] if opening else self.editor.frames[1]

    def set_prompt(self, prompt: str, policy: str | None = None) -> Receipt:
        self.editor.prompt(prompt)
        self.prompt = prompt
        self.requests["prompt"] = Receipt()
        if policy == "reset":
            self.requests["reset"] = Receipt()
        return self.requests["prompt"]

    def anchor(self) -> Receipt:
        return self.requests.setdefault("anchor", Receipt())

    def reset(self) -> Receipt:
        return self.requests.setdefault("reset", Receipt())

    def step(self, frames: Tensor) -> Tensor:
        assert len(frames) == self.chunk_frames
        self.editor.steps.append((self, frames))
        self.editor.clock.now += self.editor.seconds(self, frames)
        if self.editor.failure is not None:
            failure, self.editor.failure = self.editor.failure, None
            raise failure
        for receipt in self.requests.values():
            receipt.applied = self.chunks
        self.requests = {}
        self.chunks += 1
        return 255 - frames

    def flush(self) -> Tensor:
        return torch.empty(0, SIDE, SIDE, 3, dtype=torch.uint8)


class FakeEditor:
    stride = 16
    device = torch.device("cpu")

    def __init__(self, clock: FakeClock, frames: tuple[int, int] = (4, 4)):
        self.clock, self.frames = clock, frames
        sampler: SamplerConfig = replace(nano().sampler, steps=4)
        edits = {"snow": TaughtEdit("weather", "make it snow")}
        self.config: ModelConfig = replace(nano(), name="fake", sampler=sampler, edits=edits)
        self.seconds: Callable[[FakeSession, Tensor], float] = lambda session, frames: 0.01
        self.steps: list[tuple[FakeSession, Tensor]] = []
        self.failure: BaseException | None = None  # of the next step

    def prompt(self, text: str) -> str:
        if not text.strip():
            raise ValueError("expected an instruction, got an empty prompt")
        return text

    def session(self, prompt: str, *, seed: int = 0, steps: int | None = None) -> FakeSession:
        return FakeSession(self, self.prompt(prompt), seed, steps)

    def step_together(self, sessions: Sequence[FakeSession], frames: Sequence[Tensor]) -> list[Tensor | Exception]:
        """One after the other, as long as they take."""
        edited: list[Tensor | Exception] = []
        for session, chunk in zip(sessions, frames, strict=True):
            try:
                edited.append(session.step(chunk))
            except Exception as failure:
                edited.append(failure)
        return edited


class Client:
    """A camera and a viewer of one session: a picture at every moment of its own clock, whose red tells its number."""

    def __init__(self, hub: Hub, clock: FakeClock, **options: Any):
        self.hub, self.clock = hub, clock
        self.heard: list[ServerMessage] = []
        message = {"prompt": "make it snow", "width": SIDE, "height": SIDE, "fps": 16.0, **options}
        self.fps = message["fps"]
        self.begin = clock.now
        self.number = 0
        self.id = hub.open(Open(**message), self.heard.append)
        self.size = hub.size(self.id)

    def frame(self) -> LiveFrame:
        width, height = self.size
        rgb = np.full((height, width, 3), self.number % 256, np.uint8)
        pts = Fraction(self.number) / Fraction(self.fps)
        return LiveFrame(rgb, pts, self.begin + self.number / self.fps, self.number)

    def push(self, count: int = 1) -> None:
        for _ in range(count):
            assert self.hub.push(self.id, self.frame())
            self.number += 1

    def due(self, number: int) -> float:
        """When that frame is shown, or a moment later."""
        return self.begin + number / self.fps + self.hub.delay(self.id) + 1e-3

    def of(self, kind: str) -> list[Any]:
        return [message for message in self.heard if message.type == kind]


def play(hub: Hub, clock: FakeClock, clients: list[Client], seconds: float, seen: Callable[[LiveFrame | None], None]):
    """Cameras and one viewer of the first client in real time, and the model whenever it is free. The model is not
    interrupted, so that what arrives while it works is pushed when it is done, with its own time."""
    end, pulled, ticked = clock.now + seconds, clock.now, clock.now
    while clock.now < end:
        for client in clients:
            while client.begin + client.number / client.fps <= clock.now:
                if not hub.push(client.id, client.frame()):
                    break
                client.number += 1
        while pulled <= clock.now:
            seen(hub.pull(clients[0].id, pulled))
            pulled += 1 / clients[0].fps
        if clock.now - ticked >= 1:
            hub.tick()
            ticked = clock.now
        if not hub.work():
            clock.now += 0.005


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def editor(clock: FakeClock) -> FakeEditor:
    return FakeEditor(clock)


@pytest.fixture
def hub(editor: FakeEditor, clock: FakeClock) -> Hub:
    return Hub(editor, Limits(), clock)  # type: ignore[arg-type]
