"""The benchmark of the released model, at a small size on the CPU: it runs whole, and finds what it looks for."""

import importlib.util
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from sana_streaming.stream.editor import Editor

CPU = torch.device("cpu")
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
GRID = (2, 3)


def load(name: str) -> ModuleType:
    """Scripts are in no package."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


measures: Any = load("released_measures")
released: Any = load("released")


def stream(chunks: int, **dit_changes: Any) -> list[Any]:
    config = measures.tiny()
    config = replace(config, dit=replace(config.dit, **dit_changes))
    with torch.inference_mode():
        return list(measures.endless(config, measures.random_editor(config, CPU).dit, GRID, chunks))


def test_all_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "results.json"
    options = ["--tiny", "--device", "cpu", "--steps", "3", "--chunks", "1", "--endless", "24", "--json", str(path)]
    assert released.main(options) == 0
    results = json.loads(path.read_text())
    assert list(results["steps"]) == ["3", "2"]
    for part in results["steps"].values():
        assert set(part["wall"]) == {"in", "encode", "noise", "transformer", "decode", "out", "pass"}
        assert all(milliseconds >= 0 for milliseconds in part["wall"].values())
    assert [reading["chunks"] for reading in results["endless"]] == [12, 20, 24]
    assert [reading["position"] for reading in results["endless"]] == [32, 32, 32]  # as far as positions go there
    assert results["memory"]["estimated"]["total"] > results["memory"]["estimated"]["state"] > 0
    assert "endless: 24 of 24 chunks, all finite, memory constant" in capsys.readouterr().out


@pytest.mark.gpu
def test_all_of_it_on_a_gpu(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    assert released.main(["--tiny", "--device", "cuda", "--chunks", "2", "--endless", "24", "--json", str(path)]) == 0
    results = json.loads(path.read_text())
    assert set(results["steps"]["4"]) == {"whole", "gpu", "wall"}
    assert results["memory"]["measured"]["total"] >= results["memory"]["measured"]["state"] > 0
    assert len({reading["requested"] for reading in results["endless"]}) == 1


def test_a_watched_stream_is_the_same_stream() -> None:
    config = measures.tiny()
    editor = measures.random_editor(config, CPU)
    watch = measures.Watch(CPU, "wall")
    watched = Editor(config, editor.dit, measures.WatchedCodec(editor.codec, watch), editor.encode_text)
    plain, noted = editor.session("edit", steps=2), watched.session("edit", steps=2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2):
        frames = torch.randint(0, 256, (plain.chunk_frames, 64, 96, 3), dtype=torch.uint8, generator=generator)
        with measures.noting(editor.dit, watch):
            watch.note()
            edited = noted.step(frames)
            watch.note()
        passes = 3
        assert len(watch.milliseconds()) == 5 + 2 * passes
        assert torch.equal(edited, plain.step(frames))
    assert watch.milliseconds() == []
    assert edited.float().std() > 10


def test_weights_are_of_the_types_that_a_checkpoint_is_loaded_in() -> None:
    editor = measures.random_editor(measures.tiny(), CPU)
    weights = editor.dit.state_dict() | editor.codec.state_dict()
    in_float32 = {name for name, w in weights.items() if w.dtype != torch.bfloat16}
    assert in_float32 == {
        *(f"blocks.{i}.attention.{name}" for i in range(3) for name in ("A_log", "dt_bias")),
        "latents_mean",
        "latents_std",
    }
    norm = weights["blocks.0.attention.q_norm.weight"].float()
    assert abs(norm.mean() - 1) < 0.05
    assert 0 < norm.std() < 0.1
    assert all(w.device == CPU and w.isfinite().all() and not w.requires_grad for w in weights.values())


def test_a_stream_in_bounded_memory_passes() -> None:
    readings = stream(24)
    assert measures.verdict(readings) is None
    assert readings[0].state_bytes > 0


def test_a_stream_that_grows_is_found() -> None:
    """Softmax blocks that keep every chunk."""
    assert "memory changed" in measures.verdict(stream(24, window=None))


@pytest.mark.parametrize("name", ["state_bytes", "requested"])
def test_bytes_of_the_state_and_bytes_outside_of_it_count(name: str) -> None:
    first, *rest, last = [replace(r, requested=1000) for r in stream(24)]
    assert measures.verdict([first, *rest, last]) is None
    leak = replace(last, **{name: getattr(last, name) + 1})
    assert f"after {last.chunks}" in measures.verdict([first, *rest, leak])


def test_a_stream_that_breaks_stops() -> None:
    config = measures.tiny()
    dit = measures.random_editor(config, CPU).dit
    dit.output.bias.fill_(float("nan"))
    with torch.inference_mode():
        readings = list(measures.endless(config, dit, GRID, 24))
    assert [reading.chunks for reading in readings] == [1]
    assert "not finite" in measures.verdict(readings)


def test_a_stream_stops_when_its_time_is_over() -> None:
    config = measures.tiny()
    with torch.inference_mode():
        readings = list(measures.endless(config, measures.random_editor(config, CPU).dit, GRID, 24, stop_at=0.0))
    assert [reading.chunks for reading in readings] == [1]


def test_out_of_memory_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def measure(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory, and a page of advice")

    monkeypatch.setattr(released, "measure", measure)
    assert released.main(["--tiny", "--device", "cpu"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "tiny at 96x64 in bfloat16 needs about 9 MB; try a smaller size" in error


@pytest.mark.parametrize("option", [["--size", "100x64"], ["--size", "64"], ["--chunks", "0"]], ids=str)
def test_what_cannot_be_is_refused(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        released.main(["--tiny", "--device", "cpu", *option])
    assert "expected" in capsys.readouterr().err


def test_no_video_library_is_needed() -> None:
    code = "import sys; sys.modules['av'] = None; import released"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=BENCHMARKS)
