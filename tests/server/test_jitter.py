"""When a picture of a peer is whole."""

import random

import pytest
from aiortc import RTCRtpReceiver
from aiortc.jitterbuffer import JitterBuffer
from aiortc.rtp import RtpPacket

from sana_streaming.server.jitter import CAPACITY, PLACE, PromptBuffer, hurry

FIRST = 65_530  # sequence numbers begin anew after 65,535


def packets(sizes, marked=True):
    """Of pictures of so many packets each, in order; each packet's data is its place in all of them."""
    made = []
    for picture, size in enumerate(sizes):
        for part in range(size):
            number = (FIRST + len(made)) % 65_536
            packet = RtpPacket(
                marker=int(marked and part == size - 1), sequence_number=number, timestamp=3000 * picture
            )
            packet._data = bytes([len(made)])
            made.append(packet)
    return made


def received(buffer, given):
    """(packets that had come, timestamp, data) of each picture as it was given."""
    pictures = []
    for count, packet in enumerate(given, 1):
        _, frame = buffer.add(packet)
        if frame is not None:
            pictures.append((count, frame.timestamp, frame.data))
    return pictures


@pytest.fixture
def buffer():
    return PromptBuffer(CAPACITY, is_video=True)


def test_a_picture_comes_with_its_last_packet(buffer):
    assert received(buffer, packets([3, 1, 2])) == [
        (3, 0, bytes([0, 1, 2])),
        (4, 3000, bytes([3])),
        (6, 6000, bytes([4, 5])),
    ]


def test_packets_that_come_in_another_order(buffer):
    a, b, c, d, e = packets([3, 2])
    assert received(buffer, [a, c, b, e, d]) == [(3, 0, bytes([0, 1, 2])), (5, 3000, bytes([3, 4]))]


def test_packets_that_come_twice(buffer):
    a, b, c = packets([2, 1])
    assert received(buffer, [a, a, b, b, a, c, c]) == [(3, 0, bytes([0, 1])), (6, 3000, bytes([2]))]


def test_who_marks_nothing_is_understood_by_the_next_picture(buffer):
    given = packets([2, 2, 1], marked=False)
    assert received(buffer, given) == received(JitterBuffer(CAPACITY, is_video=True), given)


def test_whatever_comes_pictures_are_those_of_the_other_buffer_only_sooner(buffer):
    given = packets([random.Random(0).randint(1, 6) for _ in range(40)])
    shuffled, rng = list(given), random.Random(1)
    for i in range(1, len(shuffled) - 1):  # the first packet says where the buffer begins
        j = min(len(shuffled) - 1, i + rng.randint(0, 3))
        shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
    other = received(JitterBuffer(CAPACITY, is_video=True), shuffled)
    mine = received(buffer, shuffled)
    assert [picture[1:] for picture in mine[: len(other)]] == [picture[1:] for picture in other]
    assert all(a[0] <= b[0] for a, b in zip(mine, other, strict=False))
    assert sum(a[0] for a in mine[: len(other)]) < sum(b[0] for b in other)


def test_a_receiver_takes_it():
    class Transport:
        state = "new"

    receiver = RTCRtpReceiver("video", Transport())
    hurry(receiver)
    assert isinstance(getattr(receiver, PLACE), PromptBuffer)
