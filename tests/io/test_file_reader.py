import warnings
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest

from sana_streaming.io import VideoError
from sana_streaming.io.file_reader import FileReader
from sana_streaming.io.readers import open_reader

from ..clips import gradient, write_clip


def read(path, size=None, **options):
    with FileReader(path, **options) as reader:
        return reader.info, list(reader.frames(size))


def difference(a, b):
    """Mean absolute difference of two pictures."""
    return np.abs(a.astype(int) - b.astype(int)).mean()


def test_frames_come_with_their_times_and_pictures(tmp_path):
    info, frames = read(write_clip(tmp_path / "clip.mp4", frames=12, tone=0.5))
    assert (info.width, info.height, info.rate, info.frames, info.has_audio) == (64, 48, 25, 12, True)
    assert info.duration == Fraction(12, 25)
    assert [f.pts for f in frames] == [Fraction(i, 25) for i in range(12)]
    assert {f.duration for f in frames} == {Fraction(1, 25)}
    assert all(f.rgb.shape == (48, 64, 3) and f.rgb.dtype == np.uint8 for f in frames)
    assert difference(frames[3].rgb, gradient(48, 64, 3)) < 6


def test_a_varying_rate_is_kept(tmp_path):
    ticks = [0, 512, 1000, 2100, 2612]
    _, frames = read(write_clip(tmp_path / "clip.mp4", frames=5, ticks=ticks))
    assert [f.pts for f in frames] == [Fraction(t, 12800) for t in ticks]
    assert [f.duration * 12800 for f in frames] == [512, 488, 1100, 512, 512]


@pytest.mark.parametrize("mirror", [False, True], ids=["plain", "mirrored"])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_pictures_are_turned_as_the_file_says(tmp_path, rotation, mirror):
    info, frames = read(write_clip(tmp_path / "clip.mp4", frames=1, rotation=rotation, mirror=mirror))
    shown = np.rot90(gradient(48, 64), rotation // 90)
    shown = shown[:, ::-1] if mirror else shown
    assert (info.height, info.width) == shown.shape[:2]
    assert frames[0].rgb.shape == shown.shape
    assert difference(frames[0].rgb, shown) < 6


def test_a_turned_picture_can_be_scaled(tmp_path):
    _, frames = read(write_clip(tmp_path / "clip.mp4", frames=1, rotation=90), size=(24, 32))
    assert frames[0].rgb.shape == (32, 24, 3)
    assert difference(frames[0].rgb, np.rot90(gradient(24, 32))) < 8


@pytest.mark.parametrize(
    ("size", "codec", "pixels"),
    [
        ((64, 48), "libx264", "yuv420p10le"),
        ((64, 48), "prores_ks", "yuv422p10le"),
        ((65, 49), "ffv1", "yuv420p"),
        ((49, 65), "libx264", "yuv444p"),
        ((64, 48), "ffv1", "bgr0"),
    ],
    ids=str,
)
def test_pixel_formats_and_odd_sizes(tmp_path, size, codec, pixels):
    _, frames = read(write_clip(tmp_path / "clip.mkv", size=size, codec=codec, pixels=pixels, frames=3))
    assert frames[0].rgb.shape == (size[1], size[0], 3)
    assert difference(frames[0].rgb, gradient(size[1], size[0])) < 6


def test_pixels_are_shown_square(tmp_path):
    info, frames = read(write_clip(tmp_path / "clip.mp4", frames=1, sample_aspect=Fraction(4, 3)))
    assert (info.width, info.height) == (85, 48)
    assert frames[0].rgb.shape == (48, 85, 3)


@pytest.mark.parametrize("matrix", [1, 2, 6, 9], ids=["bt709", "untagged", "bt601", "bt2020"])
def test_colours_follow_the_tag(tmp_path, matrix):
    flat = np.full((48, 64, 3), (200, 60, 90), np.uint8)
    info, frames = read(write_clip(tmp_path / "clip.mp4", [flat], matrix=matrix))
    assert np.abs(frames[0].rgb.astype(int) - flat).max() <= 3
    assert info.color.matrix == (6 if matrix == 2 else matrix)


def test_scaling_down_does_not_alias(tmp_path):
    stripes = np.zeros((64, 256, 3), np.uint8)
    stripes[:, ::2] = 255
    _, frames = read(write_clip(tmp_path / "clip.mp4", [stripes], pixels="yuv444p"), size=(60, 16))
    inner = frames[0].rgb[:, 3:-3].astype(int)
    assert inner.max() - inner.min() < 24
    assert abs(inner.mean() - 127) < 8


def test_start_and_duration(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", frames=60, options={"g": "10", "bf": "2"})
    info, frames = read(path, start=0.71, duration=0.5)
    assert (info.frames, info.duration) == (12, Fraction(1, 2))
    assert [f.pts for f in frames] == [Fraction(i, 25) for i in range(13)]  # 0.72 s to 1.20 s
    assert difference(frames[0].rgb, gradient(48, 64, 18)) < 6
    assert frames[-1].duration == Fraction(1, 100)


def test_one_frame(tmp_path):
    info, frames = read(write_clip(tmp_path / "clip.mp4", frames=1))
    assert len(frames) == 1
    assert (info.frames, frames[0].pts, frames[0].duration) == (1, 0, Fraction(1, 25))


def test_times_that_do_not_begin_at_zero(tmp_path):
    _, frames = read(write_clip(tmp_path / "clip.ts", frames=4, tone=0.2))
    assert frames[0].pts < Fraction(1, 10)
    assert [b.pts - a.pts for a, b in pairwise(frames)] == [Fraction(1, 25)] * 3


@pytest.mark.parametrize("name", ["clip.mkv", "clip.mp4"])
def test_a_truncated_file_is_read_as_far_as_it_goes(tmp_path, name):
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(50)]
    path = write_clip(tmp_path / name, noise, mux_options={"movflags": "+faststart"} if name.endswith("mp4") else None)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.warns(UserWarning, match=name) as seen:
        _, frames = read(path)
    assert 15 < len(frames) < 35
    assert len(seen) == 1


def test_a_part_of_a_truncated_file_that_is_there_is_read_in_silence(tmp_path):
    path = write_clip(tmp_path / "clip.mkv", frames=50)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(read(path, duration=0.4)[1]) == 10


def test_what_is_no_video_is_refused_in_one_line(tmp_path):
    (tmp_path / "text.mp4").write_text("This is no video.\n" * 100)
    (tmp_path / "text.txt").write_text("This is no video.\n" * 100)
    (tmp_path / "empty.mp4").write_bytes(b"")
    with av.open(str(tmp_path / "sound.mp4"), "w") as output:
        stream = output.add_stream("aac", rate=48000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), format="s16", layout="mono")
        sound.sample_rate = 48000
        for packet in [*stream.encode(sound), *stream.encode(None)]:
            output.mux(packet)
    for name, expected in [
        ("missing.mp4", "no such file"),
        (".", "got a folder"),
        ("text.mp4", "no known format"),
        ("text.txt", "expected a video file"),
        ("empty.mp4", "no known format"),
        ("sound.mp4", "got one with audio only"),
    ]:
        with pytest.raises(VideoError, match=expected) as error:
            FileReader(tmp_path / name)
        assert "\n" not in str(error.value)


def test_a_file_without_frames_is_refused(tmp_path):
    whole = write_clip(tmp_path / "whole.mp4", frames=5, mux_options={"movflags": "+faststart"}).read_bytes()
    (tmp_path / "none.mp4").write_bytes(whole[: whole.index(b"mdat") + 4])
    with pytest.raises(VideoError, match="at least one frame"):
        FileReader(tmp_path / "none.mp4")


def test_a_start_behind_the_end_is_refused(tmp_path):
    with pytest.raises(VideoError, match=r"before its end, 0\.20 s"):
        FileReader(write_clip(tmp_path / "clip.mp4", frames=5), start=3)


def test_readers_are_chosen_by_scheme(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", frames=1)
    open_reader(f"file://{path}").close()
    with pytest.raises(VideoError, match="got 'carrier-pigeon'"):
        open_reader("carrier-pigeon://coop")
