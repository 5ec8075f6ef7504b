"""A source that goes on by itself: bounded latency, times that rise, faults in one line. No device and no clock."""

import threading
from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest

from sana_streaming.io import VideoError
from sana_streaming.io.live import LiveReader, Timeline


def picture(level, pts):
    """A grey picture of 16x12 at a time in 1/100 s."""
    made = av.VideoFrame.from_ndarray(np.full((12, 16, 3), level, np.uint8), format="rgb24")
    made.pts, made.time_base = pts, Fraction(1, 100)
    return made


DAMAGED = object()


def damaged():
    raise av.error.InvalidDataError(1094995529, "Invalid data found when processing input")


class FakeContainer:
    """What is in `script` comes, one after the other: pictures, functions that are called, errors."""

    def __init__(self, *script, video=True):
        stream = SimpleNamespace(
            thread_type="AUTO", codec_context=SimpleNamespace(flags=0), average_rate=Fraction(10), guessed_rate=None
        )
        self.streams = SimpleNamespace(video=[stream] if video else [])
        self.script, self.open = iter(script), True

    def demux(self, stream):
        for item in self.script:
            if callable(item):
                item()
            elif isinstance(item, Exception):
                raise item
            else:
                yield SimpleNamespace(decode=damaged if item is DAMAGED else lambda item=item: [item])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.open = False


def reader(*containers, **options):
    coming = iter(containers)

    def connect():
        container = next(coming)
        if isinstance(container, Exception):
            raise container
        return container

    return LiveReader("camera 0", connect, **{"patience": 60, "clock": lambda: 0.0} | options)


class Gate:
    """Holds the source up until it is opened, at most a minute."""

    def __init__(self):
        self.event, self.reached = threading.Event(), threading.Event()

    def __call__(self):
        self.reached.set()
        self.event.wait(60)


def levels(frames):
    return [int(frame.rgb[0, 0, 0]) for frame in frames]


def test_what_is_known_of_it():
    gate = Gate()
    with reader(FakeContainer(picture(0, 700), gate), duration=1.5) as live:
        info = live.info
        gate.event.set()
    assert (info.width, info.height, info.rate, info.frames, info.has_audio) == (16, 12, 10, None, False)
    assert info.duration == Fraction(3, 2)
    assert live.soundtrack() is None


def test_the_newest_frames_stay_and_dropped_ones_are_counted():
    gates = [Gate(), Gate(), Gate()]
    first, burst = [picture(0, 0), picture(1, 10)], [picture(i, 10 * i) for i in range(2, 12)]
    container = FakeContainer(*first, gates[0], picture(99, 15), *burst, gates[1], picture(12, 120), gates[2])
    with reader(container, newest=3) as live:
        gates[0].reached.wait(60)
        frames = live.frames()
        assert levels([next(frames)]) == [1]  # what came before anybody read is old
        gates[0].event.set()
        gates[1].reached.wait(60)
        got = [next(frames) for _ in range(3)]
        assert levels(got) == [9, 10, 11]
        assert [frame.pts for frame in got] == [Fraction(i, 10) for i in (8, 9, 10)]
        assert live.dropped == 8
        gates[1].event.set()
        assert levels([next(frames)]) == [12]
        gates[2].event.set()


def test_pictures_are_scaled_as_they_are_read():
    gate = Gate()
    with reader(FakeContainer(picture(7, 0), gate)) as live:
        assert next(live.frames((32, 8))).rgb.shape == (8, 32, 3)
        gate.event.set()


def test_start_and_duration():
    pictures = [picture(i, 10 * i) for i in range(20)]
    gate = Gate()
    with reader(FakeContainer(picture(0, 0), gate, *pictures[1:]), start=0.4, duration=0.5, newest=99) as live:
        frames = live.frames()
        gate.event.set()
        got = list(frames)
    assert levels(got) == [4, 5, 6, 7, 8]
    assert [frame.pts for frame in got] == [Fraction(i, 10) for i in range(5)]


def test_the_end_is_a_warning_and_what_came_is_kept():
    told = "^camera 0: it ended; the result ends there$"
    with reader(FakeContainer(picture(5, 0))) as live, pytest.warns(UserWarning, match=told):
        assert levels(live.frames()) == [5]


def test_a_source_that_stalls_is_the_end_too():
    gate = Gate()
    with reader(FakeContainer(picture(5, 0), gate), patience=0.01) as live:
        with pytest.warns(UserWarning, match=r"^camera 0: it gave no picture for 0\.01 s; the result ends there$"):
            assert levels(live.frames()) == [5]
        gate.event.set()


def test_a_damaged_part_is_left_out():
    gate = Gate()
    container = FakeContainer(picture(1, 0), gate, DAMAGED, picture(2, 10))
    with reader(container) as live:
        frames = live.frames()
        gate.event.set()
        assert levels([next(frames), next(frames)]) == [1, 2]


def test_a_device_that_has_no_picture_yet_is_asked_again(monkeypatch):
    monkeypatch.setattr("sana_streaming.io.live.POLL", 0)
    gate, later = Gate(), av.error.BlockingIOError(11, "Resource temporarily unavailable")
    with reader(FakeContainer(later, picture(1, 0), gate, later, later, picture(2, 10))) as live:
        frames = live.frames()
        gate.event.set()
        assert levels([next(frames), next(frames)]) == [1, 2]
        assert live.reconnects == 0


def test_what_breaks_off_is_opened_again_and_time_goes_on():
    now = iter([0.0, 0.1, 2.1, 2.2, 2.3])
    gate = Gate()
    broken = FakeContainer(
        picture(1, 500), gate, picture(2, 510), av.error.ConnectionResetError(104, "Connection reset")
    )
    anew = FakeContainer(picture(3, 0), picture(4, 10))
    refused = [av.error.ConnectionRefusedError(111, "Connection refused")] * 3
    script = (broken, refused[0], anew, *refused[1:])
    with reader(*script, again=(0, 0), newest=9, clock=lambda: next(now)) as live:
        frames = live.frames()
        gate.event.set()
        with pytest.warns(UserWarning, match=r"^camera 0: connection refused; the result ends there$"):
            got = list(frames)
    assert levels(got) == [1, 2, 3, 4]
    assert [frame.pts for frame in got] == [Fraction(i, 10) for i in (0, 1, 21, 22)]
    assert live.reconnects == 4  # the first failed, the second went on, and at the end two were refused
    assert not broken.open
    assert not anew.open


@pytest.mark.parametrize(
    ("container", "expected"),
    [
        (av.error.FileNotFoundError(2, "No such file or directory"), "no such file or directory"),
        (av.error.ExitError(1414092869, "Immediate exit requested"), "it did not answer in time"),
        (FakeContainer(), "it ended"),
        (FakeContainer(video=False), "expected pictures, got none"),
        (FakeContainer(av.error.OSError(5, "Input/output error")), "input/output error"),
    ],
)
def test_what_cannot_be_opened_is_told_in_one_line(container, expected):
    """At the beginning nothing is tried again: the address may be wrong."""
    with pytest.raises(VideoError, match=f"^cannot read camera 0: {expected}$"):
        reader(container, again=(60,))


def test_a_device_that_is_stuck_holds_nobody_up():
    gate = Gate()
    with pytest.raises(VideoError, match=r"^cannot read camera 0: no picture came in 0\.01 s$"):
        reader(FakeContainer(gate, picture(1, 0)), patience=0.01)
    gate.event.set()


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ((5, 6, 7), (0, 1, 2)),
        ((5, 6, 6, 5, 7), (0, 1, None, None, 2)),  # late, or twice
        ((5, 6, 100, 101), (0, 1, 3, 4)),  # it set its clock: this machine's counts, 2 s a frame
        ((500, 501, 3, 4), (0, 1, 3, 4)),  # it began anew
        ((None, None, None), (0, 2, 4)),
        ((5, None, 6), (0, 2, 4)),
    ],
)
def test_times_rise(raw, expected):
    timeline = Timeline(Fraction(10))
    raw = [None if r is None else Fraction(r) for r in raw]
    assert tuple(timeline.place(r, 2.0 * i) for i, r in enumerate(raw)) == expected


def test_times_rise_even_if_no_time_passes():
    timeline = Timeline(Fraction(10))
    assert [timeline.place(None, 3.0) for _ in range(3)] == [0, Fraction(1, 10), Fraction(2, 10)]
