import argparse
import json
import subprocess
from dataclasses import replace
from fractions import Fraction
from itertools import islice

import numpy as np
import pytest
import torch

from sana_streaming.bench import command, machine, measure, watch
from sana_streaming.codec import build_codec
from sana_streaming.config import ModelConfig, from_dict, nano
from sana_streaming.io import Frame
from sana_streaming.io.readers import open_reader
from sana_streaming.io.writers import open_writer
from sana_streaming.model.dit import DiT
from sana_streaming.stream.editor import Editor


@pytest.fixture(scope="module")
def editor():
    config = nano()
    config = replace(
        config,
        dit=replace(config.dit, latent_channels=8, dim=32, depth=4, heads=2, text_dim=16, ffn_dim=48),
        codec=replace(config.codec, latent_channels=8, widths=(8, 8, 8)),
        sampler=replace(config.sampler, first_chunk=2, chunk=2),
    )
    torch.manual_seed(0)
    dit, codec = DiT(config.dit), build_codec(config.codec)
    return Editor(config, dit.eval(), codec.eval(), lambda prompt: torch.ones(3, 16))


@pytest.fixture
def clip(tmp_path):
    """7 frames of 96x64 at 10 a second, each of another grey."""
    path = tmp_path / "clip.mp4"
    writer = open_writer(path, rate=Fraction(10))
    for i in range(7):
        writer.write(Frame(np.full((64, 96, 3), 30 * i + 20, np.uint8), pts=Fraction(i, 10), duration=Fraction(1, 10)))
    writer.close()
    return path


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return parser


def test_bench_measures_every_stage(editor, clip):
    result = measure.bench(editor, clip, size=(48, 32), steps=2, seconds=2.0, repeats=2, chunks=2, seed=0)
    assert result["end_to_end_fps"] > 0
    assert len(result["end_to_end_fps_of_each_repeat"]) == 2
    assert list(result["milliseconds_per_frame"]) == ["read", "encode", "denoise", "decode", "other", "write"]
    assert all(value > 0 for value in result["milliseconds_per_frame"].values())
    assert result["frames"] == 20  # the clip of 7 was repeated; no frame was counted twice
    assert result["steps"] == 2
    assert result["chunk_frames"] == [8, 8]
    assert result["dtype"] == "float32"
    assert all(rate > 0 for rate in result["matrix_product_gflops"].values())
    assert result["peak_memory_mb"]["cpu"] > 50
    assert from_dict(ModelConfig, json.loads(json.dumps(result))["config"]) == editor.config
    assert next(iter(result)) == "end_to_end_fps"
    assert "frames/s" in command.table(result)


def test_stages_add_up_to_the_chunk(editor, clip, monkeypatch):
    """With a clock that goes one second per look, each span between two marks is one second."""
    ticks = iter(range(1000))
    monkeypatch.setattr(watch, "perf_counter", lambda: float(next(ticks)))
    calls = []
    stages = measure.stages(editor, clip, "x", steps=1, seed=0, chunks=3, warm_up=1, between=lambda: calls.append(1))
    assert (stages.encode, stages.denoise, stages.decode, stages.other) == (125.0, 125.0, 125.0, 250.0)  # 8 frames
    assert len(calls) == 3


def test_watched_codec_changes_nothing(editor, clip):
    frames = torch.randint(0, 256, (8, 32, 48, 3), dtype=torch.uint8)
    codec = watch.WatchedCodec(editor.codec, watch.Watch(editor.device))
    watched = Editor(editor.config, editor.dit, codec, editor.encode_text)
    assert torch.equal(watched.session("x", steps=1).step(frames), editor.session("x", steps=1).step(frames))


def test_clip_is_cut_to_size_and_repeated(clip, tmp_path):
    target = tmp_path / "cut.mp4"
    measure.cut_to_size(clip, target, (32, 48), seconds=1.5)
    reader = open_reader(target)
    frames = list(reader.frames())
    reader.close()
    assert len(frames) == 15
    assert frames[0].rgb.shape == (48, 32, 3)
    greys = [frame.rgb.mean() for frame in islice(frames, 8)]
    assert greys[:7] == sorted(greys[:7])
    assert abs(greys[7] - greys[0]) < 3


@pytest.mark.parametrize(("text", "size"), [("256x256", (256, 256)), ("1280x704", (1280, 704))])
def test_size_is_width_by_height(parser, text, size):
    assert parser.parse_args(["--size", text]).size == size


@pytest.mark.parametrize("text", ["256", "0x256", "256x", "axb", "256x256x3"])
def test_other_sizes_are_refused(parser, text, capsys):
    with pytest.raises(SystemExit):
        parser.parse_args(["--size", text])
    assert "expected WIDTHxHEIGHT" in capsys.readouterr().err


def test_missing_clip_is_named(parser, tmp_path):
    with pytest.raises(ValueError, match=r"absent.mp4.*pass --input"):
        command.run(parser.parse_args(["--input", str(tmp_path / "absent.mp4")]))


def test_run_writes_json_and_prints_a_table(editor, clip, parser, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Editor, "load", lambda model, device: editor)
    target = tmp_path / "new" / "bench.json"
    line = f"--input {clip} --size 32x32 --steps 1 --seconds 0.8 --repeats 1 --chunks 1 --json {target}"
    assert command.run(parser.parse_args(line.split())) == 0
    assert json.loads(target.read_text())["size"] == [32, 32]
    assert "end to end" in capsys.readouterr().out


def test_machine_is_described():
    facts = machine.describe(torch.device("cpu"))
    assert facts["cpu"]
    assert facts["gpu"] is None
    assert facts["threads"] == torch.get_num_threads()
    assert facts["torch"] == torch.__version__


def test_copy_inside_another_repository_has_no_commit(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "__init__.py").touch()
    monkeypatch.setattr(machine.sana_streaming, "__file__", str(tmp_path / "__init__.py"))
    assert machine.commit() is None
