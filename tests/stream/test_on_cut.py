"""A session that watches its source for cuts does at them what a request would have done."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sana_streaming import cli
from sana_streaming.state import tensors
from sana_streaming.stream.editor import Editor
from sana_streaming.stream.scene_cuts import Cut
from sana_streaming.stream.session import REMEMBERED_CUTS, Session

from ..clips import write_clip
from .tiny import SIZE, tiny_editor


@pytest.fixture
def editor() -> Editor:
    """Chunks of 9, then 6 frames."""
    return tiny_editor(5, 3)


def scenes(*lengths: int) -> Tensor:
    """As many still pictures, one after the other, with a little noise."""
    pictures = torch.randint(0, 256, (len(lengths), *SIZE, 3)).repeat_interleave(torch.tensor(lengths), dim=0)
    return (pictures + torch.randint(-3, 4, (sum(lengths), *SIZE, 3))).clamp(0, 255).to(torch.uint8)


def run(session: Session, video: Tensor, before: dict[int, str] | None = None) -> list[Tensor]:
    """All whole chunks of a video. before: what is asked for ahead of a chunk."""
    edited, start = [], 0
    while True:
        if before and session.chunks in before:
            getattr(session, before[session.chunks])()
        end = start + session.chunk_frames
        if end > len(video):
            return edited
        edited.append(session.step(video[start:end]))
        start = end


def same(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    return len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("action", ["anchor", "reset"])
@pytest.mark.parametrize(
    ("frame", "chunk"),
    [
        (15, 2),  # with the chunk, and certain within it
        (16, 3),  # one frame later
        (17, 3),  # certain with the chunk's last frame
        (18, 3),  # certain in the next chunk only
        (20, 3),  # the chunk's last frame
        (21, 3),
    ],
)
def test_a_cut_acts_on_the_first_chunk_that_lies_behind_it(editor: Editor, action: str, frame: int, chunk: int) -> None:
    video = scenes(frame, 60)
    watching, asked, plain = (editor.session("a", cuts=c) for c in (action, "ignore", "ignore"))
    edited = run(watching, video)
    assert watching.cuts_found == (Cut(frame, chunk),)
    # A reset that was known in time asks for a chunk of a first one's length; else the usual one serves.
    late = action == "reset" and frame in (15, 18, 20, 21)
    expected = resetting_late(asked, video, chunk) if late else run(asked, video, {chunk: action})
    assert same(edited, expected)
    assert not same(edited, run(plain, video))
    assert asked.cuts_found == plain.cuts_found == ()


def resetting_late(session: Session, video: Tensor, chunk: int) -> list[Tensor]:
    """As `run`, but the chunk has been gathered when the reset is asked for."""
    edited, start = [], 0
    while (end := start + session.chunk_frames) <= len(video):
        if session.chunks == chunk:
            session.reset()
        edited.append(session.step(video[start:end]))
        start = end
    return edited


def test_a_reset_that_is_known_in_time_begins_with_a_first_chunk(editor: Editor) -> None:
    session = editor.session("a", cuts="reset")
    for piece in scenes(16, 60)[:21].split([9, 6, 6]):
        assert session.chunk_frames == len(piece)
        session.step(piece)
    assert session.chunk_frames == 10
    session.step(scenes(10))
    assert session.state.denoiser.position.tolist() == [5]
    assert session.chunk_frames == 6


@pytest.mark.parametrize("action", ["anchor", "reset"])
def test_short_chunks(action: str) -> None:
    """Of two frames: a cut is certain only in the chunk after the one that it begins, or in a later one."""
    for frame, chunk in ((13, 7), (14, 8)):
        session = tiny_editor(2, 1).session("a", cuts=action)
        edited = run(session, scenes(frame, 20))
        assert session.cuts_found == (Cut(frame, chunk),)
        assert len(edited) > chunk
        assert (session.state.denoiser.sink.item() == 0) == (action == "reset")


def test_an_anchor_at_a_cut_is_faded(editor: Editor) -> None:
    session, video = editor.session("a", cuts="anchor"), scenes(16, 60)
    run(session, video[:27])
    assert session.state.denoiser.sink.tolist() == [5 + 3 + 3]
    assert session.state.fade is not None
    run(session.fork(), video[27:33])
    session.step(video[27:33])
    assert session.state.fade is None


def test_several_cuts(editor: Editor) -> None:
    session = editor.session("a", cuts="anchor")
    run(session, scenes(16, 5, 9, 40))
    assert [cut.frame for cut in session.cuts_found] == [16, 21, 30]
    assert [cut.chunk for cut in session.cuts_found] == [3, 3, 5]
    assert session.state.denoiser.sink is not None


def test_only_the_latest_are_kept() -> None:
    session = tiny_editor(2, 1).session("a", steps=1, cuts="reset")
    run(session, scenes(*[5] * (REMEMBERED_CUTS + 10)))
    assert len(session.cuts_found) == REMEMBERED_CUTS
    assert session.cuts_found[-1].frame > 5 * REMEMBERED_CUTS


@pytest.mark.parametrize("action", ["ignore", "anchor", "reset"])
def test_without_cuts_nothing_changes(editor: Editor, action: str) -> None:
    video = scenes(60)
    session = editor.session("a", cuts=action)
    assert same(run(session, video), run(editor.session("a"), video))
    assert session.cuts_found == ()


def test_other_settings_are_refused(editor: Editor) -> None:
    with pytest.raises(ValueError, match="cuts: expected ignore, anchor, reset, got 'fade'"):
        editor.session("a", cuts="fade")


def test_a_chunk_that_fails_can_be_given_again(editor: Editor, monkeypatch: pytest.MonkeyPatch) -> None:
    video, session = scenes(15, 60), editor.session("a", cuts="anchor")
    run(session, video[:15])
    twin = session.fork()
    with monkeypatch.context() as patch:
        patch.setattr(editor.codec, "decode", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("out of memory")))
        with pytest.raises(MemoryError, match="out of memory: tiny at"):
            session.step(video[15:21])
    assert session.cuts_found == ()
    assert torch.equal(session.step(video[15:21]), twin.step(video[15:21]))
    assert session.cuts_found == twin.cuts_found == (Cut(15, 2),)


def test_a_fork_watches_on_its_own(editor: Editor) -> None:
    video, session = scenes(16, 60), editor.session("a", cuts="reset")
    run(session, video[:21])
    fork, receipt = session.fork(), session.resetting
    assert receipt is not None
    shown = fork.step(video[21:31])
    assert receipt.applied is None
    assert torch.equal(session.step(video[21:31]), shown)
    assert receipt.applied == 3
    assert fork.resetting is None
    assert fork.cuts_found == session.cuts_found == (Cut(16, 3),)


def test_a_reset_on_request_is_the_policy_of_that_name(editor: Editor) -> None:
    video = scenes(60)
    one, two = (editor.session("a") for _ in range(2))
    run(one, video[:27]), run(two, video[:27])
    receipt = one.reset()
    assert receipt.applied is None
    two.set_prompt("a", "reset")
    assert one.chunk_frames == 10
    assert torch.equal(one.step(video[27:37]), two.step(video[27:37]))
    assert receipt.applied == 4
    assert same(list(tensors(one.state)), list(tensors(two.state)))
    assert one.chunk_frames == 6


@pytest.mark.parametrize("action", [None, "ignore", "anchor", "reset"])
def test_the_command_line_asks_for_it(
    editor: Editor, action: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coarse = torch.randint(0, 256, (2, 3, 4, 3), dtype=torch.uint8)
    pictures = coarse.repeat_interleave(16, 1).repeat_interleave(16, 2).repeat_interleave(20, 0).numpy()
    source, made = write_clip(tmp_path / "in.mp4", list(pictures)), []
    session = editor.session
    monkeypatch.setattr(editor, "session", lambda *a, **k: made.append(session(*a, **k)) or made[-1])
    monkeypatch.setattr(Editor, "load", lambda *_, **__: editor)
    flag = [] if action is None else ["--on-cut", action]
    command = ["edit", str(source), str(tmp_path / "out.mp4"), "--prompt", "a", "--size", "48", *flag]
    assert cli.main(command) == 0
    acts = action not in (None, "ignore")
    assert [cut.frame for cut in made[0].cuts_found] == ([20] if acts else [])
    assert made[0].state.denoiser.position.tolist() == [4 * 3 if action == "reset" else 5 + 6 * 3]


def test_the_command_line_refuses_what_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["edit", "in.mp4", "out.mp4", "--prompt", "a", "--on-cut", "fade"]) == cli.BAD_INPUT
    assert "--on-cut" in capsys.readouterr().err
