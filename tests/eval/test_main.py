"""The command from end to end, with a model that does nothing on made-up material."""

import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from sana_streaming.data.bank import Bank
from sana_streaming.eval import __main__ as command
from sana_streaming.eval import evaluate
from sana_streaming.eval.features import Extractor, colours_and_edges

from .conftest import editor

TINY = ["--size", "48", "--frames", "8", "--rendered", "1", "--real", "1", "--scenes", "1", "--chunks", "8"]
TINY += ["--edits", "unchanged", "sepia", "snow", "remove", "add", "--out"]


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch, bank: Bank) -> None:
    monkeypatch.setattr(evaluate.Editor, "load", lambda *_: editor())
    monkeypatch.setattr(evaluate, "load_bank", lambda *_, **__: bank)
    monkeypatch.setattr(evaluate, "load_extractor", lambda _: Extractor("plain", colours_and_edges))


def test_numbers_tables_and_sheets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command.main(["pack", *TINY, str(tmp_path)])
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"numbers.json", "tables.md", "look_1.jpg", "weather_1.jpg", "object_1.jpg"}
    record = json.loads((tmp_path / "numbers.json").read_text())
    psnr = {(s["edit"], s["material"], s["video"]): s["mean"] for s in record["scores"] if s["metric"] == "psnr"}
    assert psnr["unchanged", "rendered", "2 steps"] > 60
    for name in ("sepia", "snow", "add"):
        assert psnr[name, "rendered", "4 steps"] == pytest.approx(psnr[name, "rendered", "unedited"], abs=0.05)
        assert psnr[name, "rendered", "codec"] > 60
    assert ("sepia", "clips", "2 steps") in psnr
    assert record["settings"]["size"] == 48
    assert len(record["long_streams"]) == 16
    text = (tmp_path / "tables.md").read_text()
    assert "| looks on rendered clips: mean | ≥ 28 dB |" in text
    shown = capsys.readouterr()
    assert text.startswith(shown.out.rstrip("\n"))
    assert "s left" in shown.err


class Workers:
    """Stands in for a pool of processes: what would travel between them does."""

    batches: ClassVar[list[int]] = []  # that each of them measured

    def __init__(self, count: int, context: BaseContext, initializer: Callable[[int], None], initargs: tuple[int]):
        assert initializer is evaluate.join
        assert initargs == (count,)
        assert context.get_start_method() == "spawn"
        self.count = count

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_: object) -> None: ...

    def map(self, work: Callable[[int], Any], numbers: range) -> Iterator[Any]:
        assert len(numbers) == self.count
        for number in numbers:
            found = pickle.loads(pickle.dumps(work))(number)
            self.batches.append(len(found.batches))
            yield pickle.loads(pickle.dumps(found))


@pytest.mark.parametrize("count", [2, 3])
def test_several_devices_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(evaluate, "ProcessPoolExecutor", Workers)
    monkeypatch.setattr(evaluate, "PIXELS_AT_ONCE", 2 * 48 * 48)
    monkeypatch.setattr(Workers, "batches", [])
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    command.main(["pack", *TINY, str(alone)])
    command.main(["pack", *TINY, str(shared), "--device", *["cpu"] * count])
    assert max(Workers.batches) - min(Workers.batches) <= 1 < min(Workers.batches)
    for name in ("tables.md", "look_1.jpg", "weather_1.jpg", "object_1.jpg"):
        assert (alone / name).read_bytes() == (shared / name).read_bytes()
    first, second = (json.loads((folder / "numbers.json").read_text()) for folder in (alone, shared))
    del first["settings"], second["settings"]
    assert first == second


def test_processes_end_with_the_one_that_started_them() -> None:
    started = """
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from time import sleep
from sana_streaming.eval.evaluate import follow_parent
pool = ProcessPoolExecutor(1, get_context("spawn"), initializer=follow_parent)
pool.submit(print, "ready", flush=True).result()
pool.submit(sleep, 300).result()
"""
    with subprocess.Popen([sys.executable, "-c", started], stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "ready\n"
        first.kill()
        first.communicate(timeout=60)  # both hold its other end: it closes when neither is left


def test_processes_share_the_threads_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    monkeypatch.setattr(evaluate, "follow_parent", lambda: None)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(torch, "set_num_threads", taken.append)
    for processes in (1, 3, 8, 20):
        evaluate.join(processes)
    assert taken == [8, 2, 1, 1]


def test_a_mistake_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="frames: expected whole chunks, 8 or 12, got 10"):
        command.main(["pack", *TINY, str(tmp_path), "--frames", "10"])


def test_a_device_that_is_not_there_is_told_before_any_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(evaluate, "ProcessPoolExecutor")
    with pytest.raises(SystemExit, match="device 'cuda:99' cannot be used here"):
        command.main(["pack", *TINY, str(tmp_path), "--device", "cpu", "cuda:99"])


def test_quick_is_less_and_a_number_given_wins() -> None:
    quick, full = (command.parse(["pack", "--out", "x", *more]) for more in (["--quick", "--chunks", "9"], []))
    assert (quick.scenes, quick.chunks) == (8, 9)
    assert (full.scenes, full.chunks) == (24, 240)
