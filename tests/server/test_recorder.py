"""A recording is whole, or ends in good order; the show does not notice."""

import itertools
import json
import shutil
import threading
from dataclasses import dataclass, replace
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch

from sana_streaming.io.lossless import LosslessWriter, read_lossless
from sana_streaming.server.hub import Hub, Limits, LiveFrame
from sana_streaming.server.protocol import Anchor, Open, Reset, SetPrompt, SetSeed, StateTold, Stats, Warn
from sana_streaming.server.recorder import Recorder
from sana_streaming.stream.log import ChunkRecord, Header, digest_of, header_of, read_log
from sana_streaming.stream.replay import replay
from sana_streaming.stream.snapshot import Snapshot

from ..stream.tiny import tiny_editor

HEADER = Header("fake", "0123", "float32", "cpu", "2.13", 1)
PLENTY = 2**40
SIZE = (16, 24)


@dataclass(frozen=True)
class FakeFrame:
    rgb: np.ndarray
    pts: Fraction
    number: int
    captured: float = 0.0


def chunk(index, size=SIZE, level=None):
    """Two frames, their negatives, and a record."""
    random = np.random.default_rng(index)
    pixels = random.integers(0, 256, (2, *size, 3)) if level is None else np.full((2, *size, 3), level)
    frames = torch.from_numpy(pixels.astype(np.uint8))
    numbers = (2 * index, 2 * index + 1)
    pts = tuple(5 + Fraction(n, 16) for n in numbers)
    return frames, 255 - frames, ChunkRecord(index, numbers, pts, size[::-1], "a", 0, 2, begins=index == 0)


def give(recorder, *indices, **options):
    for index in indices:
        frames, edited, record = chunk(index, **options)
        recorder.chunk(index, frames, edited, record)


def state(**changes):
    told = {"state": "running", "prompt": "a", "seed": 0, "chunk": 0, "steps": 2, "width": 24, "height": 16}
    return StateTold(**told | changes)


def shown(path):
    """Times and mean levels of what the viewer saw."""
    with av.open(str(path)) as file:
        return [(f.pts * f.time_base, round(f.to_ndarray(format="rgb24").mean())) for f in file.decode(video=0)]


@pytest.fixture
def warnings():
    return []


@pytest.fixture
def start(tmp_path, warnings):
    """Recorders, each closed at the end."""
    made = []

    def make(header=HEADER, **options):
        made.append(Recorder(tmp_path / "monday", header, rate=Fraction(16), warn=warnings.append, **options))
        return made[-1]

    yield make
    for recorder in made:
        recorder.close()


def test_source_edited_and_log_lie_in_a_folder_that_has_its_name_when_complete(start, tmp_path, warnings):
    recorder = start()
    give(recorder, 0, 1, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["monday.part"]
    done = recorder.close()
    assert (done.folder, done.chunks, done.frames, done.trouble) == (tmp_path / "monday", 3, 6, None)
    assert [path.name for path in done.files] == ["edited.mp4", "session.jsonl", "source.mkv"]
    assert [path.name for path in tmp_path.iterdir()] == ["monday"]
    source = np.stack(list(read_lossless(tmp_path / "monday" / "source.mkv")))
    assert (source == np.concatenate([chunk(i)[0] for i in range(3)])).all()
    times = [time for time, _ in shown(tmp_path / "monday" / "edited.mp4")]
    assert [round(float(time * 16), 3) for time in times] == list(range(6))
    log = read_log(tmp_path / "monday" / "session.jsonl")
    assert (log.header, log.chunks) == (HEADER, tuple(chunk(i)[2] for i in range(3)))
    assert log.digests == tuple(digest_of(chunk(i)[1]) for i in range(3))
    assert (log.complete, warnings) == (True, [])
    assert recorder.close() is done


def test_another_size_is_another_source_and_the_same_picture(start):
    recorder = start()
    give(recorder, 0)
    give(recorder, 1, size=(8, 12))
    give(recorder, 2)
    folder = recorder.close().folder
    assert [next(read_lossless(folder / f"source{n}.mkv")).shape[:2] for n in ("", "-1", "-2")] == [
        (16, 24),
        (8, 12),
        (16, 24),
    ]
    assert len(shown(folder / "edited.mp4")) == 6


def test_odd_sides(start):
    recorder = start()
    give(recorder, 0, 1, size=(15, 23))
    folder = recorder.close().folder
    assert (next(read_lossless(folder / "source.mkv")) == chunk(0, size=(15, 23))[0][0].numpy()).all()
    with av.open(str(folder / "edited.mp4")) as file:
        assert (file.streams.video[0].width, file.streams.video[0].height) == (24, 16)


def test_events_are_kept_but_no_secrets(start):
    recorder = start()
    give(recorder, 0)
    recorder.event(Warn(message="late"))
    recorder.event({"type": "open", "prompt": "a", "token": "hush", "resume": "hush", "n": 1})
    recorder.event(Stats(fps_in=1, fps_out=1, dropped=0, repeated=0, queue=0))
    give(recorder, 1)
    text = (recorder.close("the viewer left").folder / "session.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["type"] for line in lines] == ["session", "chunk", "event", "event", "chunk", "end"]
    assert lines[2] == {"type": "event", "chunk": 1, "message": {"type": "warning", "message": "late"}}
    assert lines[3]["message"] == {"type": "open", "prompt": "a", "n": 1}
    assert lines[-1]["reason"] == "the viewer left"
    assert "hush" not in text


def test_what_is_shown_without_the_model_is_recorded_too(start):
    recorder = start()
    give(recorder, 0, level=55)
    recorder.source(FakeFrame(np.full((*SIZE, 3), 90, np.uint8), 5 + Fraction(2, 16), 2))  # is edited with its chunk
    recorder.event(state(bypass=True))
    recorder.source(FakeFrame(np.full((*SIZE, 3), 120, np.uint8), 5 + Fraction(3, 16), 3))
    recorder.event(state(bypass=False))
    give(recorder, 2, level=55)
    recorder.event(state(panic=True))
    give(recorder, 3, level=55)
    folder = recorder.close().folder
    assert [level for _, level in shown(folder / "edited.mp4")] == pytest.approx([200, 200, 120, 200, 200, 0, 0], abs=3)
    assert len(list(read_lossless(folder / "source.mkv"))) == 6


def test_memory_of_the_first_chunk_only_is_kept(start):
    past = Snapshot(3, SIZE, None, torch.Generator().get_state(), None)
    recorder = start()
    for index in (3, 4):
        frames, edited, record = chunk(index)
        recorder.chunk(index, frames, edited, replace(record, before=past))
    assert (recorder.close().folder / "start.pt").exists()


def test_a_full_disk_ends_the_recording_and_nothing_else(start, warnings):
    room = iter([PLENTY, PLENTY, 2**20])
    recorder = start(free=lambda _: next(room))
    give(recorder, *range(8))
    done = recorder.close()
    assert (done.chunks, done.trouble) == (2, "the disk is full (1 MB free)")
    assert warnings == ["the recording ended: the disk is full (1 MB free); 4 frames are kept"]
    assert read_log(done.folder / "session.jsonl").complete
    assert len(list(read_lossless(done.folder / "source.mkv"))) == len(shown(done.folder / "edited.mp4")) == 4


@pytest.mark.parametrize("raised", [OSError(28, "No space left on device"), RuntimeError("a bug")])
def test_what_cannot_be_written_ends_the_recording_and_nothing_else(start, warnings, monkeypatch, raised):
    plain, count = LosslessWriter.write, iter(range(99))

    def write(*args):
        if next(count) == 5:
            raise raised
        plain(*args)

    monkeypatch.setattr(LosslessWriter, "write", write)
    recorder = start()
    give(recorder, *range(8))
    done = recorder.close()
    assert len(warnings) == 1
    assert str(raised.args[-1]) in warnings[0]
    assert done.chunks == len(read_log(done.folder / "session.jsonl").chunks) == 2
    assert recorder.trouble == done.trouble is not None


def test_a_disk_that_cannot_keep_up_is_not_waited_for(start, warnings):
    stuck, go = threading.Event(), threading.Event()

    def free(_):
        stuck.set()
        go.wait(60)
        return PLENTY

    size = 2 * chunk(0)[0].nbytes
    recorder = start(free=free, waiting=3 * size)
    give(recorder, 0)
    stuck.wait(60)
    give(recorder, *range(1, 9))  # returns although nothing is written
    assert recorder.trouble == "the disk or the encoder cannot keep up"
    assert warnings == []
    go.set()
    done = recorder.close()
    assert warnings == ["the recording ended: the disk or the encoder cannot keep up; 6 frames are kept"]
    assert [record.number for record in read_log(done.folder / "session.jsonl").chunks] == [0, 1, 2]


def test_without_power_all_chunks_but_the_last_are_there(start, tmp_path):
    seen = []

    def free(folder):
        seen.append(folder)
        if len(seen) == 5:
            shutil.copytree(folder, tmp_path / "dark")
        return PLENTY

    recorder = start(free=free)
    give(recorder, *range(8))
    recorder.close()
    with pytest.warns(UserWarning, match="cut off after 4 chunks"):
        log = read_log(tmp_path / "dark" / "session.jsonl")
    assert len(log.chunks) == 4
    assert len(list(read_lossless(tmp_path / "dark" / "source.mkv"))) == 7


def test_a_recording_of_nothing_leaves_nothing(start, tmp_path):
    recorder = start()
    recorder.event(Warn(message="late"))
    done = recorder.close()
    assert (done.files, done.chunks) == ((), 0)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told_in_one_line(tmp_path):
    (tmp_path / "monday").mkdir()
    with pytest.raises(ValueError, match=r"^cannot record to monday: it is there already$"):
        Recorder(tmp_path / "monday", HEADER)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"^cannot record to tuesday: Not a directory$"):
        Recorder(tmp_path / "file" / "tuesday", HEADER)


def test_frames_that_only_fill_up_a_chunk_are_not_shown(start):
    recorder = start()
    give(recorder, 0)
    frames, edited, record = chunk(1)
    recorder.chunk(1, frames, edited, replace(record, frames=(2, 2)))
    folder = recorder.close().folder
    assert len(shown(folder / "edited.mp4")) == 3
    assert len(list(read_lossless(folder / "source.mkv"))) == 4


def test_a_codec_that_looks_ahead_is_late_but_every_frame_keeps_its_time(start):
    recorder = start()
    frames, edited, record = chunk(0, level=55)
    recorder.chunk(0, frames, edited[:1], record)
    frames, edited, record = chunk(1, level=155)
    recorder.chunk(1, frames, torch.cat([chunk(0, level=55)[1][1:], edited[:1]]), record)
    times = shown(recorder.close().folder / "edited.mp4")
    assert [round(float(time) * 16) for time, _ in times] == [0, 1, 2]
    assert [level for _, level in times] == pytest.approx([200, 200, 100], abs=3)


def test_what_a_hub_showed_is_made_again(start, monkeypatch):
    """The whole road: a stream under load, which loses frames, steps and size, is recorded from its middle on."""
    time, busy, numbers = SimpleNamespace(now=0.0), 0.0, itertools.count()
    editor = tiny_editor(first_chunk=3, chunk=2)
    editor.config = replace(editor.config, sampler=replace(editor.config.sampler, schedules=((1.0,), (1.0, 0.75))))
    monkeypatch.setattr("sana_streaming.stream.governor.SMALLEST", 8)
    plain = editor.codec.encode

    def slow(*args):
        time.now += 0.6  # for a quarter of a second of video
        return plain(*args)

    editor.codec.encode = slow
    hub = Hub(editor, Limits(), clock=lambda: time.now)
    messages = []
    name = hub.open(Open(prompt="a", width=48, height=32, fps=16, steps=2), messages.append)
    random, seen = np.random.default_rng(0), []

    class Ear:
        source = event = staticmethod(lambda _: None)

        def chunk(self, number, frames, edited, record):
            seen.extend(edited.numpy())

    def play(seconds):
        nonlocal busy
        for _ in range(16 * seconds):
            number = next(numbers)
            time.now = number / 16
            rgb = random.integers(0, 256, (32, 48, 3), dtype=np.uint8)
            hub.push(name, LiveFrame(rgb, Fraction(number, 16), time.now, number))
            if time.now >= busy:
                hub.work()
                busy = time.now

    play(1)
    recorder = start(header_of(editor))
    hub.taps(name, recorder)
    hub.taps(name, Ear())
    for command in (SetPrompt(prompt="b", policy="recache"), SetSeed(seed=7), Anchor(), Reset()):
        hub.command(name, command)
        play(1)
    play(10)
    hub.untap(name, recorder)
    folder = recorder.close().folder
    hub.close(name)
    log = read_log(folder / "session.jsonl")
    assert not log.chunks[0].begins
    assert {record.policy for record in log.chunks} == {None, "recache"}
    assert all(any(getattr(record, what) for record in log.chunks) for what in ("reseeded", "anchor", "reset"))
    assert {record.steps for record in log.chunks} == {1, 2}  # it was too much
    assert len({record.size for record in log.chunks}) > 1
    again = [frame.rgb for frame in replay(log, editor)]
    assert len(again) == len(seen)
    assert all(a.shape == b.shape and (a == b).all() for a, b in zip(again, seen, strict=True))
