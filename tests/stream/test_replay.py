"""What was recorded is made again, bit for bit; another model is asked for the same."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch

from sana_streaming.diffusion.flow import sampling
from sana_streaming.server.recorder import Recorder
from sana_streaming.stream.log import describe, header_of, read_log
from sana_streaming.stream.replay import LOG, START, differences, pieces, replay

from .tiny import AverageCodec, tiny_editor

SIZE = (16, 24)


class Show:
    """A live stream as a server runs it, with a recorder that may listen."""

    def __init__(self, editor, seed=1):
        self.editor, self.seed, self.prompt, self.number = editor, seed, "a", 0
        self.session = editor.session("a", seed=seed)
        self.recorder = None
        self.edited = []
        self.random = np.random.default_rng(0)
        self.reseeded = False

    def record(self, folder, **options):
        self.edited = []
        self.recorder = Recorder(folder, header_of(self.editor), rate=Fraction(16), **options)

    def stop(self):
        result = self.recorder.close()
        assert result.trouble is None
        return result

    def restart(self, steps=None):
        self.session = self.editor.session(self.prompt, seed=self.seed, steps=steps)

    def set_prompt(self, prompt, policy):
        self.prompt = prompt
        self.session.set_prompt(prompt, policy)

    def set_seed(self, seed):
        self.seed, self.reseeded = seed, True
        self.session.generator = torch.Generator().manual_seed(seed)
        self.session.state = replace(self.session.state, noise=None)

    def step(self, count=1, size=SIZE):
        for _ in range(count):
            length = self.session.chunk_frames
            frames = torch.from_numpy(self.random.integers(0, 256, (length, *size, 3), dtype=np.uint8))
            numbers = tuple(range(self.number, self.number + 2 * length, 2))  # every other frame was dropped
            self.number += 2 * length
            record = describe(
                self.session,
                frames=numbers,
                pts=tuple(Fraction(100) + Fraction(n, 30) for n in numbers),
                size=size[::-1],
                prompt=self.prompt,
                seed=self.seed,
                reseeded=self.reseeded,
            )
            self.reseeded = False
            edited = self.session.step(frames)
            self.edited.extend(edited.numpy())
            if self.recorder is not None:
                self.recorder.chunk(record.number, frames, edited, record)


@pytest.fixture
def editor():
    return tiny_editor(first_chunk=3, chunk=2)


def eventful(show):
    """All that can decide a frame."""
    show.step(2)
    show.set_prompt("b", "keep")
    show.step(2)
    show.set_prompt("c", "recache")
    show.step(2)
    show.set_prompt("d", "reset")
    show.step(2)
    show.session.anchor()
    show.step(3)
    show.session.reset()
    show.step(2)
    show.set_seed(9)
    show.step(2)
    show.session.sampling = sampling(show.editor.config.sampler, 1)  # the machine is too slow
    show.step(2)
    show.restart(steps=1)  # and a smaller size
    show.step(1, size=(8, 12))
    show.restart()
    show.step(2)


def replayed(log, editor, **options):
    return [frame.rgb for frame in replay(log, editor, **options)]


def identical(a, b):
    return len(a) == len(b) and all(x.shape == y.shape and (x == y).all() for x, y in zip(a, b, strict=True))


@pytest.fixture(scope="module", params=[False, True], ids=["fresh noise", "repeated noise"])
def monday(request, tmp_path_factory):
    """An editor, a recording, its log and the edited frames."""
    editor = tiny_editor(first_chunk=3, chunk=2)
    editor.config = replace(editor.config, sampler=replace(editor.config.sampler, repeat_noise=request.param))
    show = Show(editor)
    folder = tmp_path_factory.mktemp("recordings") / "monday"
    show.record(folder)
    eventful(show)
    return editor, show.stop(), read_log(folder / LOG), show.edited


def test_a_replay_is_bit_identical(monday):
    editor, recording, log, edited = monday
    names = ["edited.mp4", "session.jsonl", "source-1.mkv", "source-2.mkv", "source.mkv"]
    assert [path.name for path in recording.files] == names
    assert log.complete
    assert [record.steps for record in log.chunks] == [2] * 15 + [1] * 3 + [2] * 2
    assert identical(replayed(log, editor), edited)
    assert all(piece.same for piece in pieces(log, editor))


PLAIN = {"prompt": "z", "seed": 3, "steps": 3, "policy": None, "reset": False, "anchor": False, "reseeded": False}


@pytest.mark.parametrize("what", PLAIN)
@pytest.mark.parametrize("monday", [False], indirect=True)
def test_everything_in_a_record_matters(monday, what):
    """Else the test above could not fail."""
    editor, _, log, edited = monday
    other = replace(log, chunks=tuple(replace(record, **{what: PLAIN[what]}) for record in log.chunks))
    if what in ("policy", "reset"):  # then the lengths of chunks do not fit
        with pytest.raises(ValueError, match="expected 4 RGB frames"):
            replayed(other, editor)
    else:
        assert not identical(replayed(other, editor), edited)


def test_a_recording_may_begin_in_the_middle(editor, tmp_path):
    show = Show(editor)
    show.step(3)
    show.session.anchor()
    show.step(1)
    show.record(tmp_path / "monday")
    show.set_prompt("b", "recache")
    show.step(4)
    show.stop()
    log = read_log(tmp_path / "monday" / LOG)
    assert identical(replayed(log, editor), show.edited)
    other = tiny_editor(first_chunk=3, chunk=2)
    next(other.dit.parameters()).add_(0.5)
    with pytest.warns(UserWarning, match="is of other weights or another precision; it begins anew"):
        assert len(replayed(log, other)) == 16
    (tmp_path / "monday" / START).unlink()
    with pytest.warns(UserWarning, match="is not there; it begins anew"):
        assert not identical(replayed(log, editor), show.edited)


def test_frames_keep_their_times(editor, tmp_path):
    show = Show(editor)
    show.record(tmp_path / "monday")
    show.step(3)
    show.stop()
    frames = list(replay(read_log(tmp_path / "monday" / LOG), editor))
    assert [frame.pts for frame in frames] == [Fraction(n, 15) for n in range(13)]


def test_more_steps(editor, tmp_path):
    show = Show(editor)
    show.record(tmp_path / "monday")
    show.step(3)
    show.stop()
    log = read_log(tmp_path / "monday" / LOG)
    twin = editor.session("a", seed=1, steps=5)
    expected = [
        rgb
        for piece in pieces(log, editor)
        for rgb in twin.step(torch.from_numpy(np.stack([frame.rgb for frame in piece.source]))).numpy()
    ]
    assert identical(replayed(log, editor, steps=5), expected)
    assert not identical(expected, show.edited)


def test_another_model_is_given_the_same_frames_and_requests(editor, tmp_path):
    """Chunks of 5 and 4 frames were recorded, this one takes 3 and 2: what held from frame 9 and 17 on now holds from
    the chunks that begin with 9 and 17; the last chunk is filled up."""
    show = Show(editor)
    show.record(tmp_path / "monday")
    show.step(2)
    show.set_prompt("b", "keep")
    show.step(2)
    show.session.anchor()
    show.step(1)
    show.stop()
    log = read_log(tmp_path / "monday" / LOG)
    source = torch.from_numpy(np.stack([frame.rgb for piece in pieces(log, editor) for frame in piece.source]))
    other = tiny_editor()
    other.config = replace(other.config, name="other")
    twin, expected = other.session("a", seed=1), []
    for begin, end in [(0, 3), *((n, n + 2) for n in range(3, 21, 2))]:
        if begin == 9:
            twin.set_prompt("b", "keep")
        if begin == 17:
            twin.anchor()
        expected.extend(twin.step(source[begin:end]).numpy())
    assert identical(replayed(log, other), expected)
    other.config = replace(other.config, sampler=replace(other.config.sampler, chunk=3))
    assert len(replayed(log, other)) == 21  # 3 + 3 * 6 frames
    assert {piece.same for piece in pieces(log, other)} == {None}


def test_a_codec_that_looks_ahead(tmp_path):
    """It gives a frame fewer at first, and the rest when the stream ends."""

    class Late(AverageCodec):
        def decode(self, latents, state):
            frames, after = super().decode(latents, state)
            return (frames[:, :, :-1] if state.last is None else frames), after

        def flush(self, state):
            return state.last.repeat_interleave(2, 3).repeat_interleave(2, 4)

    editor = tiny_editor(first_chunk=3, chunk=2)
    editor.codec = Late(editor.config.codec)
    show = Show(editor)
    show.record(tmp_path / "monday")
    show.step(3)
    expected = [*show.edited, *show.session.flush().numpy()]
    show.stop()
    log = read_log(tmp_path / "monday" / LOG)
    assert len(expected) == 13
    assert identical(replayed(log, editor), expected)
    assert [piece.same for piece in pieces(log, editor)] == [True, True, True, None]


def test_a_source_that_was_cut_off_is_replayed_up_to_there(editor, tmp_path):
    show = Show(editor)
    show.record(tmp_path / "monday")
    show.step(8)
    show.stop()
    log = read_log(tmp_path / "monday" / LOG)
    path = tmp_path / "monday" / "source.mkv"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(UserWarning, match=r"the source ends before chunk \d of the log; it ends there"):
        frames = replayed(log, editor)
    assert 8 < len(frames) < 25
    assert identical(frames, show.edited[: len(frames)])
    path.unlink()
    with pytest.raises(ValueError, match=r"cannot read source\.mkv"):
        replayed(log, editor)


def test_what_differs_is_told(editor):
    now = header_of(editor)
    assert differences(now, now) == []
    before = replace(now, weights="0", device="cuda GPU", threads=0)
    assert differences(before, now) == [
        f"weights {now.weights}, recorded with 0",
        f"device {now.device}, recorded with cuda GPU",
        f"threads {now.threads}, recorded with 0",
    ]
    before = replace(now, weights="0", model="other", dtype="bfloat16")
    assert differences(before, now) == [
        "model tiny, recorded with other",
        "dtype float32, recorded with bfloat16",
    ]
