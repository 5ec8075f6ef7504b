"""A recording has the source's sound, in step with the edited picture; a replay keeps it."""

import asyncio
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from aiortc.mediastreams import MediaStreamError

from sana_streaming.commands import replay
from sana_streaming.io.frame import Frame
from sana_streaming.server import recordings
from sana_streaming.server.audio import HELD, RATE, RECENT, Sound
from sana_streaming.server.clocks import ServerClock
from sana_streaming.server.hub import LiveFrame
from sana_streaming.server.recorded_sound import LONGEST, RecordedSound
from sana_streaming.server.recorder import Recorder
from sana_streaming.stream.log import ChunkRecord, Header, read_log

from .fakes import Clock, picture
from .peers import Camera, Client, Tone, until
from .wire import Page, running

FPS = 25
SIZE = (48, 64)
BLOCK = 960  # samples: 20 ms
HEADER = Header("fake", "0", "float32", "cpu", "2", 1)
EVENT = 1.2  # seconds at which the lights go on, with a click


def frame(i, begin, jitter=0.0):
    """Taken, and here, i / FPS after `begin`."""
    rgb = np.full((*SIZE, 3), 20 if i / FPS < EVENT else 230, np.uint8)
    return LiveFrame(rgb, 7 + Fraction(i, FPS), begin + i / FPS + jitter, i)


def click(begin, end):
    """Samples from one number to another, int16 [N, 2]."""
    sound = np.zeros((end - begin, 2), np.int16)
    at = round(EVENT * RATE) - begin
    sound[max(0, at) : max(0, at + 48)] = 20_000
    return sound


class Receiver:
    """Sound as aiortc's receiver gives it: each 20 ms, some packets after its end. `each` is called before."""

    def __init__(self, clock, count, each):
        self.clock, self.begin, self.count, self.each, self.i = clock, clock.now, count, each, 0

    async def recv(self):
        if self.i == self.count:
            raise MediaStreamError
        self.clock.now = self.begin + 0.02 * (self.i + 1 + HELD)
        self.each()
        sound = click(BLOCK * self.i, BLOCK * (self.i + 1))
        part = av.AudioFrame.from_ndarray(sound.reshape(1, -1), format="s16", layout="stereo")
        part.sample_rate, part.time_base, part.pts = RATE, Fraction(1, RATE), BLOCK * self.i
        self.i += 1
        return part


def record(folder, *, chunk=4, late=0.3, attached=0, seconds=2.4, heard=2.4, jitter=0.0):
    """A source with picture and sound, chunks that are edited `late` after their last frame came -> the recording.
    The recorder listens from frame `attached` on."""
    clock, random = Clock(1000.0), np.random.default_rng(0)
    recorder = Recorder(folder, HEADER, rate=Fraction(FPS))
    begin, sent, edited = clock.now, 0, 0
    frames = [frame(i, begin, jitter * random.uniform(0, 1)) for i in range(round(seconds * FPS))]
    sound = Sound(lambda: 0.0, clock)

    def pass_on():
        nonlocal sent, edited
        while sent < len(frames) and frames[sent].captured <= clock.now:
            if sent == attached:
                sound.listen(recorder.sound)
            if sent >= attached:
                recorder.source(frames[sent])
            sent += 1
        while (some := frames[edited : edited + chunk]) and some[-1].captured + late <= clock.now:
            if some[-1].number >= attached and len(some) == chunk:
                give(recorder, edited // chunk, some)
            edited += chunk

    asyncio.run(sound.take(Receiver(clock, round(heard / 0.02), pass_on)))
    clock.now += late + 1
    pass_on()
    return recorder.close()


def give(recorder, index, frames):
    seen = torch.from_numpy(np.stack([one.rgb for one in frames]))
    numbers, pts = tuple(one.number for one in frames), tuple(one.pts for one in frames)
    record = ChunkRecord(index, numbers, pts, SIZE[::-1], "a", 0, 2, begins=recorder._seen == 0)
    recorder.chunk(index, seen, seen, record)


def flash_and_click(path):
    """Seconds of both, in a file."""
    with av.open(str(path)) as file:
        flash = next(float(f.time) for f in file.decode(video=0) if f.to_ndarray(format="rgb24").mean() > 128)
    return flash, click_in(path)


def click_in(path):
    with av.open(str(path)) as file:
        parts = [(part.to_ndarray().astype(float), part.time) for part in file.decode(audio=0)]
    wave, time = max(parts, key=lambda part: np.abs(part[0]).max())
    wave = np.abs(wave.reshape(-1, 2)[:, 0] if len(wave) == 1 else wave[0])
    return time + int((wave > 0.5 * wave.max()).argmax()) / RATE


def length_of_sound(path):
    with av.open(str(path)) as file:
        return sum(part.samples for part in file.decode(audio=0)) / RATE


@pytest.mark.parametrize("jitter", [0.0, 0.008])
@pytest.mark.parametrize(("chunk", "late"), [(1, 0.0), (4, 0.3), (24, 1.5)])
def test_a_flash_stays_beside_its_click(tmp_path, chunk, late, jitter):
    """However long chunks are and however late they are edited."""
    done = record(tmp_path / "monday", chunk=chunk, late=late, jitter=jitter)
    assert [file.name for file in done.files] == ["edited.mp4", "session.jsonl", "sound.mka", "source.mkv"]
    flash, heard = flash_and_click(done.folder / "edited.mp4")
    assert flash == pytest.approx(EVENT, abs=1e-3)
    assert abs(heard - flash) < 1 / FPS / 2
    assert abs(click_in(done.folder / "sound.mka") - flash) < 1 / FPS / 2


@pytest.mark.parametrize("heard", [2.4, 1.6])
def test_sound_is_as_long_as_the_picture(tmp_path, heard):
    """Also where it ends before."""
    done = record(tmp_path / "monday", heard=heard)
    assert length_of_sound(done.folder / "sound.mka") == done.frames / FPS
    assert length_of_sound(done.folder / "edited.mp4") == pytest.approx(done.frames / FPS, abs=1024 / RATE)


def test_a_recording_that_begins_within_a_chunk_has_the_sound_of_its_first_frame(tmp_path):
    """Frames of the first chunk came before there was anybody to listen."""
    done = record(tmp_path / "monday", chunk=24, late=0.1, attached=40)  # frame 24 is the first; lights on at 30
    flash, heard = flash_and_click(done.folder / "edited.mp4")
    assert flash == pytest.approx(6 / FPS, abs=1e-3)
    assert abs(heard - flash) < 1 / FPS / 2


def test_a_replay_keeps_the_sound(tmp_path):
    done = record(tmp_path / "monday")
    log = read_log(done.folder / "session.jsonl")
    writer = replay.open_for(str(tmp_path / "out.mp4"), log, SIZE[::-1])
    for i in range(done.frames):
        writer.write(Frame(frame(i, 0.0).rgb, Fraction(i, FPS)))
    writer.close()
    flash, heard = flash_and_click(tmp_path / "out.mp4")
    assert flash == pytest.approx(EVENT, abs=1e-3)
    assert abs(heard - flash) < 1 / FPS / 2


def test_a_replay_begins_with_the_first_chunk(tmp_path):
    """The recording began earlier, with frames that passed by the model."""
    clock = Clock(50.0)
    recorder = Recorder(tmp_path / "monday", HEADER, rate=Fraction(FPS))
    recorder.event({"type": "state", "bypass": True, "panic": False})
    for i in range(60):
        if i == 20:
            recorder.event({"type": "state", "bypass": False, "panic": False})
        recorder.source(frame(i, clock.now))
        recorder.sound(click(i * 1920, (i + 1) * 1920), clock.now + (i + 1) / FPS)
        if i >= 20 and i % 4 == 3:
            give(recorder, i // 4, [frame(j, clock.now) for j in range(i - 3, i + 1)])
    folder = recorder.close().folder
    assert abs(np.subtract(*flash_and_click(folder / "edited.mp4"))) < 1 / FPS / 2
    sound = replay.sound_of(folder, Fraction(40, FPS))
    assert sound.origin == Fraction(20, FPS)
    sound.close()


def test_a_recording_without_sound_has_no_file_of_it(tmp_path):
    recorder = Recorder(tmp_path / "monday", HEADER, rate=Fraction(FPS))
    give(recorder, 0, [frame(i, 0.0) for i in range(4)])
    folder = recorder.close().folder
    assert not (folder / "sound.mka").exists()
    assert replay.sound_of(folder, Fraction(1)) is None


def test_sound_that_cannot_be_read_is_left_out_with_a_warning(tmp_path):
    done = record(tmp_path / "monday")
    (done.folder / "sound.mka").write_bytes(b"no sound")
    with pytest.warns(UserWarning, match=r"sound\.mka cannot be read"):
        assert replay.sound_of(done.folder, Fraction(1)) is None


def test_sound_that_a_page_sends_is_recorded(tmp_path, monkeypatch):
    """Over the network, from a microphone to the files; and the next recording has sound again."""
    monkeypatch.setattr(recordings, "header_of", lambda editor: HEADER)

    async def run(page):
        client = Client()
        client.pc.addTrack(Camera(lambda i: picture(), FPS))
        client.pc.addTrack(Tone())
        await asyncio.to_thread(page.tell, {"type": "offer", "sdp": await client.offer()})
        await client.take((await asyncio.to_thread(page.hear, "answer"))["sdp"])
        await until(lambda: client.video)
        for _ in range(2):
            page.tell({"type": "record", "on": True})
            await asyncio.to_thread(page.hear, "accepted")
            await asyncio.sleep(0.5)
            page.tell({"type": "record", "on": False})
            assert any(file.endswith("sound.mka") for file in (await asyncio.to_thread(page.hear, "recorded"))["files"])
        await client.close()

    with running(recordings=tmp_path) as here, Page(here, fps=FPS) as page:
        page.hear("opened")
        asyncio.run(run(page))
        (live,) = here.server.lives.values()
        assert live.sound._ears == []
    for folder in tmp_path.iterdir():
        for name in ("sound.mka", "edited.mp4"):
            with av.open(str(folder / name)) as file:
                assert max(np.abs(part.to_ndarray().astype(float)).max() for part in file.decode(audio=0)) > 0.1


# Where sound is written


class Kept:
    """A track that keeps what it is given."""

    def __init__(self):
        self.sound = np.empty((0, 2), np.int16)

    def write(self, samples, place):
        assert place == len(self.sound)
        self.sound = np.concatenate([self.sound, samples])


@pytest.fixture
def line(tmp_path):
    sound = RecordedSound(tmp_path / "sound.mka")
    sound.clocks.frame(Fraction(5), 105.0)
    sound.tracks.append(Kept())
    yield sound
    if sound._file is not None:
        sound._file.close()


def ones(seconds, value=1):
    return np.full((round(seconds * RATE), 2), value, np.int16)


def test_sound_waits_for_its_frames_and_where_there_is_none_there_is_silence(line):
    kept, begin = line.tracks[0], Fraction(5)
    line.take(ones(0.5), 106.0)  # from 0.5 to 1.0
    line.write(begin, Fraction(9, 10))
    assert len(kept.sound) == 0
    line.write(begin, Fraction(1))
    assert kept.sound.sum() == 2 * RATE // 2
    assert (kept.sound[: RATE // 2] == 0).all()
    line.write(begin, Fraction(5))
    assert len(kept.sound) == 4 * RATE  # the rest may still come
    line.take(ones(2.0, 3), 109.5)  # from 2.5 to 4.5: its beginning is too late
    line.write(begin, Fraction(5))
    assert len(kept.sound) == 4.5 * RATE
    assert (kept.sound[-RATE // 2 :] == 3).all()


def test_packets_that_come_late_make_even_sound_in_its_place(line):
    """The first one is the latest."""
    random, begin = np.random.default_rng(0), Fraction(5)
    late = [0.03, *random.uniform(0, 0.02, 99)]
    for i in range(100):
        samples = np.arange(BLOCK * i, BLOCK * (i + 1)) % 1000
        line.take(np.repeat(samples.astype(np.int16)[:, None], 2, axis=1), 105 + 0.02 * (i + 1) + late[i])
        line.write(begin, Fraction(i - 20, 50))
    line.write(begin, Fraction(2))
    sound = line.tracks[0].sound[: -10 * BLOCK, 0]  # of the last ones few wait, and tell less
    (begun,) = np.flatnonzero(sound)[:1] - 1
    assert begun < 0.004 * RATE
    assert (sound[begun:] == np.arange(len(sound) - begun) % 1000).all()


def test_what_waits_for_frames_that_do_not_come_is_bounded(line):
    kept, begin = line.tracks[0], Fraction(5)
    for second in range(100):
        line.take(ones(1.0), 106.0 + second)
        line.write(begin, Fraction(1))
    assert len(line._waiting) <= LONGEST + 1
    assert len(kept.sound) == (100 - LONGEST) * RATE
    unheard = RecordedSound(line._path)  # no frame ever
    for second in range(100):
        unheard.take(ones(1.0), 106.0 + second)
    assert len(unheard._waiting) <= 2 * LONGEST + 1


def test_the_clock_follows_the_fastest_frames():
    clocks = ServerClock()
    for i in range(200):
        clocks.frame(Fraction(i, FPS), 100 + i / FPS + (0.05 if i % 3 else 0.0))
    assert clocks.offset == pytest.approx(100, abs=1e-3)
    clocks.frame(Fraction(0), 200.0)  # another source
    assert clocks.offset == 200


def test_who_begins_to_listen_hears_what_came_lately():
    sound, heard = Sound(lambda: 0.0), []
    for i in range(1000):
        sound._came(ones(0.02, i), 0.02 * i)
    end = sound.listen(lambda samples, now: heard.append((int(samples[0, 0]), now)))
    assert heard[0][1] == pytest.approx(0.02 * 999 - RECENT, abs=0.03)
    sound._came(ones(0.02, 1000), 20.0)
    assert heard[-1] == (1000, 20.0)
    end()
    end()
    sound._came(ones(0.02, 1001), 20.02)
    assert heard[-1] == (1000, 20.0)
