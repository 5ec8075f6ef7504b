"""The log of a stream: what goes in comes out, and what is damaged is told in one line."""

import json
from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from sana_streaming.state import tensors
from sana_streaming.stream import snapshot
from sana_streaming.stream.log import (
    ChunkRecord,
    Header,
    LogError,
    chunk_line,
    describe,
    digest_of,
    end_line,
    event_line,
    fingerprint,
    header_line,
    header_of,
    read_log,
)

from .tiny import picture, tiny_editor

HEADER = Header("tiny", "0123", "float32", "cpu", "2.13", 1)
RECORD = ChunkRecord(
    number=4,
    frames=(7, 9),
    pts=(Fraction(1, 3), Fraction(2, 3)),
    size=(6, 4),
    prompt="mach es zu Ölfarbe\nbitte",
    seed=2**64 - 1,
    steps=3,
    guidance=1.5,
    negative_prompt="blurry",
    lengths=(2, 1),
    policy="reset",
    reseeded=True,
    reset=True,
    anchor=True,
)


def written(path, *lines):
    path.write_text("".join(lines), encoding="utf-8")
    return path


def described(session, **changes):
    asked = {"frames": (0, 1), "pts": (Fraction(0), Fraction(1)), "size": (6, 4), "prompt": "a", "seed": 5} | changes
    return describe(session, **asked)


def test_what_is_written_is_read(tmp_path):
    event = event_line(1, {"type": "warning", "message": "late"})
    lines = [header_line(HEADER), chunk_line(RECORD, "aa"), event, end_line(1, "stopped")]
    log = read_log(written(tmp_path / "session.jsonl", *lines))
    assert (log.header, log.chunks, log.digests, log.complete) == (HEADER, (RECORD,), ("aa",), True)
    assert [json.loads(line)["type"] for line in lines] == ["session", "chunk", "event", "end"]


@pytest.mark.parametrize("cut", [1, 40, -1], ids=["a letter", "half", "all but the end of the line"])
def test_a_log_that_was_cut_off_is_read_up_to_there(tmp_path, cut):
    half = chunk_line(replace(RECORD, number=5), "bb")[:cut]
    path = written(tmp_path / "session.jsonl", header_line(HEADER), chunk_line(RECORD, "aa"), half)
    with pytest.warns(UserWarning, match=r"^session\.jsonl was cut off after 1 chunks; it ends there$"):
        log = read_log(path)
    assert (log.chunks, log.complete) == ((RECORD,), False)


def test_a_letter_cut_in_half_is_no_trouble(tmp_path):
    path = written(tmp_path / "session.jsonl", header_line(HEADER), chunk_line(RECORD, "aa"))
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.index("Ö".encode()) + 1])
    with pytest.warns(UserWarning, match="after 0 chunks"):
        assert read_log(path).chunks == ()


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], "got an empty file"),
        (["hello\n"], "line 1 is not one"),
        (['{"type": "chunk"}\n'], "begins with a line of its session"),
        ([header_line(HEADER).replace('"version": 1', '"version": 2')], "expected a log of version 1, got 2"),
        ([header_line(HEADER).replace("model", "mode")], r"line 1 is not one of a session log \('model'\)"),
        ([header_line(HEADER), "half\n", chunk_line(RECORD, "aa")], "line 2 is not one"),
        ([header_line(HEADER), chunk_line(RECORD, "aa").replace("seed", "sead")], "line 2 is not one"),
        ([header_line(HEADER), chunk_line(RECORD, "aa").replace("1/3", "1/0")], "line 2 is not one"),
        ([header_line(HEADER), chunk_line(replace(RECORD, frames=(7,)), "aa")], "1 frames and 2 times"),
        ([header_line(HEADER), chunk_line(replace(RECORD, frames=(), pts=()), "aa")], "0 frames and 0 times"),
    ],
)
def test_what_is_no_log_is_told_in_one_line(tmp_path, lines, expected):
    with pytest.raises(LogError, match=expected) as error:
        read_log(written(tmp_path / "session.jsonl", *lines))
    assert "\n" not in str(error.value)
    with pytest.raises(LogError, match="No such file"):
        read_log(tmp_path / "none.jsonl")


def test_a_chunk_is_described_before_it_is_edited():
    session = tiny_editor().session("a", seed=5, steps=3)
    first = described(session, frames=(0, 1, 2), pts=(Fraction(0), Fraction(1), Fraction(2)))
    assert (first.number, first.begins, first.steps, first.lengths) == (0, True, 3, (2, 1))
    assert (first.policy, first.reset, first.anchor, first.before) == (None, False, False, None)
    session.step(picture(3))
    session.set_prompt("b", "keep")
    session.anchor()
    second = described(session, prompt="b")
    assert (second.number, second.begins, second.policy, second.anchor) == (1, False, "keep", True)
    session.step(picture(2))
    session.set_prompt("c", "reset")
    session.set_prompt("d", "keep")
    session.reset()
    third = described(session, prompt="d", reseeded=True)
    assert (third.policy, third.reset, third.anchor, third.reseeded) == ("reset", True, False, True)


def test_a_session_goes_on_from_a_snapshot_on_disk(tmp_path):
    editor = tiny_editor()
    session = editor.session("a", seed=5, cuts="anchor")
    for count in (3, 2, 2, 2):
        session.step(picture(count))
    session.anchor()
    session.step(picture(2))  # a fade is under way
    snapshot.save(snapshot.take(session), tmp_path / "start.pt")
    twin = editor.session("a", cuts="anchor")
    snapshot.put(twin, snapshot.load(tmp_path / "start.pt"))
    assert twin.watch.frames == 11
    for _ in range(3):
        frames = picture(2)
        assert torch.equal(session.step(frames), twin.step(frames))
    assert all(torch.equal(a, b) for a, b in zip(tensors(session.state), tensors(twin.state), strict=True))


def test_what_is_no_snapshot_is_refused(tmp_path):
    path = tmp_path / "start.pt"
    for content in (
        {"class": ["subprocess", "Popen"], "fields": {"args": "true"}},
        {"class": ["no_such_module", "A"], "fields": {}},
        {"class": ["sana_streaming.stream.scene_cuts", "Watch"], "fields": {}},
        [1, 2],
    ):
        torch.save(content, path)
        with pytest.raises(ValueError, match=r"^cannot read start\.pt"):
            snapshot.load(path)
    path.write_text("hello")
    with pytest.raises(ValueError, match=r"^cannot read start\.pt"):
        snapshot.load(path)


def test_a_fingerprint_knows_every_weight():
    editor = tiny_editor()
    before = header_of(editor)
    assert (before.model, before.dtype, before.threads) == ("tiny", "float32", torch.get_num_threads())
    assert fingerprint(tiny_editor().dit, editor.codec) == before.weights
    seen = {before.weights}
    for count, parameter in enumerate(editor.dit.parameters(), 2):
        parameter.mul_(1.01).add_(0.001)
        seen.add(fingerprint(editor.dit, editor.codec))
        assert len(seen) == count


def test_a_digest_knows_every_bit():
    frames = picture(3)
    other = frames.clone()
    other[2, 3, 5, 2] ^= 1
    assert digest_of(frames) == digest_of(frames.clone()) != digest_of(other)
