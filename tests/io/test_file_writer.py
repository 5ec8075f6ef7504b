from fractions import Fraction

import av
import numpy as np
import pytest

from sana_streaming.io import Color, Frame, VideoError
from sana_streaming.io.file_reader import FileReader
from sana_streaming.io.file_writer import FileWriter, check_output
from sana_streaming.io.soundtrack import Soundtrack
from sana_streaming.io.writers import open_writer

from ..clips import gradient, sound_of, times_of, write_clip


def frames_at(times, height=48, width=64):
    return [Frame(gradient(height, width, i), Fraction(t)) for i, t in enumerate(times)]


def write(path, frames, **options):
    writer = FileWriter(path, **options)
    for frame in frames:
        writer.write(frame)
    writer.close()


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_times_survive_exactly(tmp_path, suffix):
    times = [Fraction(t, 12800) for t in (0, 512, 1000, 2100, 2612, 9000)]
    frames = frames_at(times)
    frames[-1] = Frame(frames[-1].rgb, times[-1], Fraction(777, 12800))
    write(tmp_path / f"a{suffix}", frames, time_base=Fraction(1, 12800))
    with FileReader(tmp_path / f"a{suffix}") as reader:
        assert reader.info.duration == Fraction(9777, 12800)
        again = list(reader.frames())
    assert [f.pts for f in again] == times
    assert again[-1].duration == Fraction(777, 12800)


def test_matroska_keeps_times_to_a_millisecond(tmp_path):
    times = [Fraction(t, 12800) for t in (0, 512, 1000, 2100)]
    write(tmp_path / "a.mkv", frames_at(times))
    assert [abs(a - b) <= Fraction(1, 1000) for a, b in zip(times_of(tmp_path / "a.mkv"), times, strict=True)] == [
        True
    ] * 4


def test_times_that_fall_together_are_parted(tmp_path):
    write(tmp_path / "a.mp4", frames_at([0, 0, Fraction(1, 25)]), time_base=Fraction(1, 1000))
    assert times_of(tmp_path / "a.mp4") == [0, Fraction(1, 1000), Fraction(1, 25)]


@pytest.mark.parametrize("color", [Color(1, 1, 1), Color(6, 6, 6), Color(6, 2, 2), Color(9, 9, 16)], ids=str)
@pytest.mark.parametrize("rgb", [(200, 60, 90), (10, 220, 30), (128, 128, 128), (0, 0, 255)], ids=str)
def test_a_flat_colour_survives(tmp_path, color, rgb):
    flat = np.full((48, 64, 3), rgb, np.uint8)
    write(tmp_path / "a.mp4", [Frame(flat, Fraction(0))], color=color)
    with FileReader(tmp_path / "a.mp4") as reader:
        assert reader.info.color == color
        assert np.abs(next(reader.frames()).rgb.astype(int) - flat).max() <= 3


def test_every_player_knows_the_encoding(tmp_path):
    write(tmp_path / "a.mp4", frames_at([0]))
    with av.open(str(tmp_path / "a.mp4")) as file:
        context = file.streams.video[0].codec_context
        assert (context.name, context.pix_fmt, context.color_range) == ("h264", "yuv420p", 1)
    whole = (tmp_path / "a.mp4").read_bytes()
    assert whole.index(b"moov") < whole.index(b"mdat")  # plays while it downloads


def test_odd_sides_grow_by_a_pixel_and_keep_the_picture(tmp_path):
    frame = Frame(gradient(47, 63), Fraction(0))
    write(tmp_path / "a.mp4", [frame])
    with FileReader(tmp_path / "a.mp4") as reader:
        rgb = next(reader.frames()).rgb
    assert rgb.shape == (48, 64, 3)
    assert np.abs(rgb[:47, :63].astype(int) - frame.rgb).mean() < 6


def test_pictures_are_scaled_to_the_size_asked_for(tmp_path):
    write(tmp_path / "a.mp4", frames_at([0, 1]), size=(128, 97))
    with FileReader(tmp_path / "a.mp4") as reader:
        assert (reader.info.width, reader.info.height) == (128, 98)


@pytest.mark.parametrize(
    ("source", "codec", "suffix", "expected"),
    [
        ("a.mp4", "aac", ".mp4", "aac"),
        ("a.ts", "aac", ".mp4", "aac"),
        ("a.mkv", "libopus", ".mp4", "opus"),
        ("a.mkv", "pcm_s16le", ".mp4", "aac"),
        ("a.mkv", "pcm_s16le", ".mkv", "pcm_s16le"),
        ("a.mkv", "flac", ".mov", "aac"),
        ("a.mkv", "libmp3lame", ".mp4", "mp3float"),
    ],
)
def test_sound_is_copied_or_encoded(tmp_path, source, codec, suffix, expected):
    path = write_clip(tmp_path / source, frames=25, tone=1.0, tone_codec=codec)
    with FileReader(path) as reader:
        write(tmp_path / f"out{suffix}", reader.frames(), sound=reader.soundtrack())
    name, length = sound_of(tmp_path / f"out{suffix}")
    assert name == expected
    assert abs(length - 1.0) < 0.06


def test_sound_is_trimmed_with_the_pictures(tmp_path):
    path = write_clip(tmp_path / "a.mp4", frames=100, tone=4.0)
    with FileReader(path, start=1.0, duration=1.5) as reader:
        write(tmp_path / "b.mp4", reader.frames(), sound=reader.soundtrack())
    assert abs(sound_of(tmp_path / "b.mp4")[1] - 1.5) < 0.05
    assert times_of(tmp_path / "b.mp4")[-1] == Fraction(37, 25)


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"], ids=["copied", "encoded"])
def test_sound_stays_beside_its_picture(tmp_path, codec):
    """A click at 1.2 s of the source is at 0.72 s when the first 0.48 s are left out."""
    path = write_clip(tmp_path / "a.mkv", frames=50, tone=2.0, tone_codec=codec, click=1.2)
    with FileReader(path, start=0.48) as reader:
        write(tmp_path / "b.mp4", reader.frames(), sound=reader.soundtrack())
    with av.open(str(tmp_path / "b.mp4")) as file:
        loudest = max(
            (float(np.abs(part.to_ndarray()[0].astype(float)).max()), part.pts * part.time_base, part)
            for part in file.decode(audio=0)
        )
    offset = np.abs(loudest[2].to_ndarray()[0].astype(float)).argmax() / 48000
    assert abs(float(loudest[1]) + offset - 0.72) < 0.002


@pytest.mark.parametrize("codec", ["aac", "ac3", "libopus", "libmp3lame"])
def test_what_mp4_hides_before_the_beginning_moves_nothing_in_matroska(tmp_path, codec):
    path = write_clip(tmp_path / "a.mp4", frames=25, tone=1.0, tone_codec=codec)
    with FileReader(path) as reader:
        write(tmp_path / "b.mkv", reader.frames(), sound=reader.soundtrack())
    assert times_of(tmp_path / "b.mkv")[0] == 0
    assert abs(sound_of(tmp_path / "b.mkv")[1] - 1.0) < 0.03


def test_sides_that_the_encoding_cannot_have_are_refused_at_once(tmp_path):
    with pytest.raises(VideoError, match="at most 16384 pixels, got 16386x32"):
        FileWriter(tmp_path / "a.mp4", size=(16386, 32))
    assert list(tmp_path.iterdir()) == []


def test_sound_that_nobody_knows_is_left_out(tmp_path):
    path = write_clip(tmp_path / "a.mkv", frames=5, tone=0.2, tone_codec="libopus")
    path.write_bytes(path.read_bytes().replace(b"A_OPUS", b"A_ZZZZ"))
    with FileReader(path) as reader:
        with pytest.warns(UserWarning, match=r"^a\.mkv: its sound has an unknown encoding and is left out$"):
            sound = reader.soundtrack()
        write(tmp_path / "b.mp4", reader.frames(), sound=sound)
        assert not reader.info.has_audio
    assert sound_of(tmp_path / "b.mp4") is None


@pytest.mark.parametrize(("keep_tail", "length"), [(True, 2.0), (False, 0.4)], ids=["kept", "cut"])
def test_sound_after_the_last_picture(tmp_path, keep_tail, length):
    path = write_clip(tmp_path / "a.mp4", frames=50, tone=2.0)
    writer = FileWriter(tmp_path / "b.mp4", sound=Soundtrack(path, Fraction(0)))
    for frame in frames_at([Fraction(i, 25) for i in range(10)]):
        writer.write(frame)
    writer.close(keep_tail)
    assert abs(sound_of(tmp_path / "b.mp4")[1] - length) < 0.06


def test_the_name_appears_with_the_whole_file_only(tmp_path):
    writer = FileWriter(tmp_path / "a.mp4")
    writer.write(frames_at([0])[0])
    assert [p.name[0] for p in tmp_path.iterdir()] == ["."]
    writer.close()
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_abort_leaves_nothing_and_spares_what_was_there(tmp_path):
    (tmp_path / "a.mp4").write_text("older")
    for count in (0, 1, 60):
        writer = FileWriter(tmp_path / "a.mp4")
        for frame in frames_at([Fraction(i, 25) for i in range(count)]):
            writer.write(frame)
        writer.abort()
        assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_text() == "older"


def test_a_file_without_frames_is_not_written(tmp_path):
    writer = FileWriter(tmp_path / "a.mp4")
    with pytest.raises(VideoError, match="at least one frame"):
        writer.close()
    writer.abort()
    assert list(tmp_path.iterdir()) == []


def test_bad_outputs_are_refused_in_one_line(tmp_path):
    source = write_clip(tmp_path / "a.mp4", frames=1)
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "twin.mp4").symlink_to(source)
    for name, expected in [
        ("b.gif", r"ends in one of \.mp4"),
        ("folder.mp4", "got a folder"),
        (".", "got a folder"),
        ("b" * 300 + ".mp4", "File name too long"),
        ("none/b.mp4", "there is no folder"),
        ("a.mp4", "it is the video that is read"),
        ("twin.mp4", "it is the video that is read"),
    ]:
        with pytest.raises(VideoError, match=expected) as error:
            check_output(tmp_path / name, source)
        assert "\n" not in str(error.value)
    with pytest.raises(VideoError, match="a folder to write in"):
        FileWriter("/proc/a.mp4")
    with pytest.raises(VideoError, match="got 'carrier-pigeon'"):
        open_writer("carrier-pigeon://coop")
