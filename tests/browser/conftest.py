"""A real browser with a synthetic camera, and a real server whose editor needs no model: it turns pictures into
negatives."""

import asyncio
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from torch import nn

from sana_streaming.config import TaughtEdit

from ..server.conftest import FakeClock, FakeEditor

SIDE = 256  # of edited frames: this measures the page, not the machine
EDITS = {
    "watercolor": TaughtEdit("look", "turn the video into a watercolor painting"),
    "negative": TaughtEdit("look", "invert the colors", strong=True),
    "night": TaughtEdit("look", "make it night", strong=True),
    "pencil": TaughtEdit("look", "turn the video into a pencil sketch", strong=True),
    "snow": TaughtEdit("weather", "make it snow"),
    "rain": TaughtEdit("weather", "make it rain"),
    "background": TaughtEdit("background", "put me on a beach"),
}
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream=device-count=2",
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 20.0  # seconds
RATE = 48_000  # samples a second


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--artefacts", type=Path, help="folder for screenshots (default: a temporary one)")


def until(true: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """What it gives once it is something. The pages of a test keep running meanwhile."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, f"still nothing after {seconds:g} s"
        time.sleep(0.05)
    return found


@dataclass
class Running:
    server: Any
    editor: FakeEditor
    url: str
    stop: Callable[[], None]
    loop: asyncio.AbstractEventLoop

    def run(self, work: Coroutine) -> Any:
        """On the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE)

    @property
    def prompts(self) -> list[str]:
        """In force in the sessions that are open."""
        return [session.prompt for session, _ in self.editor.steps[-1:]]


def run_server(recordings: Path, port: int = 0, token: str | None = None, **limits: Any) -> Running:
    import uvicorn

    from sana_streaming.server.app import Server, create_app
    from sana_streaming.server.hub import Hub, Limits
    from sana_streaming.server.trust import Trust

    editor = FakeEditor(FakeClock())
    editor.dit, editor.codec = nn.Linear(1, 1), nn.Linear(1, 1)  # type: ignore[attr-defined]  # for the log's header
    editor.config = replace(editor.config, edits=EDITS)
    server = Server(Hub(editor, Limits(side=SIDE, **limits)), Trust(token), recordings=recordings)  # type: ignore[arg-type]
    listening = socket.create_server(("127.0.0.1", port))
    running = uvicorn.Server(
        uvicorn.Config(create_app(server), log_level="error", ws="websockets-sansio", timeout_graceful_shutdown=1)
    )
    loop = asyncio.new_event_loop()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(running.serve([listening]))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    until(lambda: running.started)

    def stop() -> None:
        running.should_exit = True
        thread.join(PATIENCE)
        listening.close()
        assert not thread.is_alive()

    return Running(server, editor, f"http://127.0.0.1:{listening.getsockname()[1]}/", stop, loop)


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Running]:
    running = run_server(tmp_path / "recordings")
    yield running
    running.stop()


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.fail(f"none of {', '.join(BROWSERS)} is installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def new_page(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a page of a width and height; whatever goes wrong in its scripts fails the test."""
    contexts, wrong = [], []

    def new(width: int = 1280, height: int = 800, **options: Any) -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": height}, permissions=["camera", "microphone"], **options
        )
        contexts.append(context)
        context.set_default_timeout(1000 * PATIENCE)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda told: wrong.append(told.text) if "Content Security Policy" in told.text else None)
        return page

    yield new
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A second of one colour."""
    path = tmp_path / "clip.webm"
    with av.open(path, "w") as container:
        stream = container.add_stream("libvpx", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for _ in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), (200, 60, 30), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def loud_clip(tmp_path: Path) -> Path:
    """Two seconds of a tone."""
    path = tmp_path / "loud.webm"
    tone = (8000 * np.sin(2 * np.pi * 440 * np.arange(2 * RATE) / RATE)).astype(np.int16)
    with av.open(path, "w") as container:
        video, audio = container.add_stream("libvpx", rate=10), container.add_stream("libopus", rate=RATE)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        audio.layout = "mono"
        for i in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 10 * i, np.uint8), format="rgb24")
            container.mux(video.encode(frame))
        for i in range(0, len(tone), 960):
            block = av.AudioFrame.from_ndarray(tone[None, i : i + 960], format="s16", layout="mono")
            block.sample_rate, block.pts, block.time_base = RATE, i, Fraction(1, RATE)
            container.mux(audio.encode(block))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    return path


@pytest.fixture
def picture_of(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any, str], None]:
    """Saves what a page looks like."""
    folder = request.config.getoption("artefacts", None) or tmp_path_factory.mktemp("artefacts")
    os.makedirs(folder, exist_ok=True)

    def save(page: Any, name: str) -> None:
        page.screenshot(path=folder / f"{name}.png")

    return save
