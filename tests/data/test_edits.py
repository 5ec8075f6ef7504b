from collections import Counter

import pytest
import torch
from torch import Generator, Tensor

from sana_streaming.data import scenes, whole
from sana_streaming.data.bank import Bank
from sana_streaming.data.edits import EDITS
from sana_streaming.data.whole import DEGREES, WHOLE
from sana_streaming.data.wordings import WORDINGS

WEATHER = [name for name, edit in WHOLE.items() if edit.kind == "weather"]
LOOKS = [name for name, edit in WHOLE.items() if edit.kind == "look"]
IN_DEGREES = [name for name, edit in WHOLE.items() if edit.choices]


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def apply(name: str, video: Tensor, *degree: str) -> Tensor:
    edit = WHOLE[name].apply
    assert edit is not None
    return edit(video, seeded(), *degree)


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """-> [N], of clips [N, F, 3, H, W]"""
    return -10 * torch.log10((a - b).square().mean(dim=(1, 2, 3, 4)) + 1e-12)


@pytest.fixture(scope="module")
def clips(bank: Bank) -> Tensor:
    return scenes.photo_clips(bank, 4, 96, 160, torch.zeros(6, dtype=torch.bool), seeded(3))


def test_looks_come_over_large_foregrounds_to_train_on_and_never_to_judge(bank: Bank, monkeypatch: pytest.MonkeyPatch):
    def white(bank: Bank, clips: int, frames: int, height: int, width: int, *_: Generator, vary: bool):
        return torch.ones(clips, frames, 3, height, width), None

    monkeypatch.setattr(whole, "foreground_scenes", white)
    monkeypatch.setattr(whole, "FOREGROUND", 0.5)
    training, judging = (
        WHOLE["night"].render(bank, 24, 2, 64, 96, seeded(), held_out).source for held_out in (False, True)
    )
    are_white = (training == 1).all(dim=(1, 2, 3, 4))
    assert 4 < are_white.sum() < 20
    assert not (judging == 1).all(dim=(1, 2, 3, 4)).any()


def test_every_edit_is_registered_under_its_name():
    assert all(name == edit.name for name, edit in EDITS.items())
    assert {edit.kind for edit in EDITS.values()} == {"look", "weather", "object", "background", "both"}
    assert all(edit.share > 0 for edit in EDITS.values())
    assert all((edit.apply is not None) == (name in WHOLE) for name, edit in EDITS.items())


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("held_out", [False, True])
def test_pairs_have_one_form(name: str, held_out: bool, bank: Bank):
    pairs = EDITS[name].render(bank, 2, 3, 64, 96, seeded(), held_out)
    assert pairs.source.shape == pairs.target.shape == (2, 3, 3, 64, 96)
    assert pairs.region.shape == (2, 3, 1, 64, 96)
    assert len(pairs.phrases) == len(pairs.reverses) == len(pairs.subjects) == 2
    for picture in (pairs.source, pairs.target, pairs.region):
        assert picture.dtype == torch.float32
        assert picture.min() >= -1e-5
        assert picture.max() <= 1 + 1e-5
    assert all(phrase == phrase.strip() and "{" not in phrase for phrase in (*pairs.phrases, *pairs.reverses))
    again = EDITS[name].render(bank, 2, 3, 64, 96, seeded(), held_out)
    assert torch.equal(again.target, pairs.target)
    assert again.phrases == pairs.phrases


@pytest.mark.parametrize("name", WHOLE)
def test_pairs_of_the_whole_frame_are_the_edits_of_their_sources(name: str, bank: Bank):
    for seed in range(6):
        pairs = WHOLE[name].render(bank, 2, 2, 64, 64, seeded(seed), False)
        assert set(pairs.subjects) <= {"", *WHOLE[name].choices}
        torch.testing.assert_close(pairs.target, apply(name, pairs.source, pairs.subjects[0]), atol=1e-5, rtol=0)
        assert pairs.region.unique().tolist() == [float(name != "unchanged")]


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize(("height", "width"), [(96, 160), (176, 64)], ids=str)
def test_edits_keep_shape_and_range(name: str, height: int, width: int):
    video = torch.rand(2, 3, 3, height, width, generator=seeded())
    video[0, 0], video[0, 1] = 0, 1  # black and white frames divide by zero if anything does
    for degree in ("", *WHOLE[name].choices):
        edited = apply(name, video, degree)
        assert edited.shape == video.shape
        assert edited.dtype == torch.float32
        assert edited.min() >= 0
        assert edited.max() <= 1


@pytest.mark.parametrize("name", WHOLE)
def test_the_future_never_changes_the_past(name: str, clips: Tensor):
    torch.testing.assert_close(apply(name, clips[:, :2]), apply(name, clips)[:, :2], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", LOOKS)
def test_a_still_stays_still(name: str, clips: Tensor):
    edited = apply(name, clips[:, :1].expand(-1, 5, -1, -1, -1))
    torch.testing.assert_close(edited, edited[:, :1].expand_as(edited), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", LOOKS)
def test_small_changes_of_the_source_stay_small(name: str, clips: Tensor):
    """A camera's noise must not make a look boil."""
    noisy = clips + 0.002 * torch.randn(clips.shape, generator=seeded())
    change = apply(name, noisy.clamp(0, 1)) - apply(name, clips)
    assert change.abs().mean() < 0.02


@pytest.mark.parametrize("name", LOOKS)
def test_a_look_agrees_across_sizes(name: str, bank: Bank):
    still = torch.ones(2, dtype=torch.bool)
    large = scenes.photo_clips(bank, 1, 256, 256, still, seeded(5))
    small = torch.nn.functional.avg_pool2d(large[:, 0], 2)[:, None]
    edited = torch.nn.functional.avg_pool2d(apply(name, large)[:, 0], 2)[:, None]
    assert psnr(edited, apply(name, small)).mean() > 20


def test_unchanged_is_the_source(clips: Tensor):
    assert torch.equal(apply("unchanged", clips), clips)


def test_strong_edits_are_far_from_their_source(clips: Tensor):
    strong = [name for name, edit in WHOLE.items() if edit.strong]
    assert len(strong) >= 16
    for name in strong:
        assert psnr(apply(name, clips), clips).median() < 16, name


def test_edits_differ_from_each_other(clips: Tensor):
    edited = {name: apply(name, clips) for name in WHOLE}
    for name, other in ((a, b) for a in edited for b in edited if a < b):
        assert psnr(edited[name], edited[other]).mean() < 28, (name, other)


def test_many_edits_come_in_degrees():
    assert len(IN_DEGREES) >= 15
    assert all(WHOLE[name].choices == DEGREES for name in IN_DEGREES)
    assert all(WORDINGS[name].adjectives and WORDINGS[name].nouns for name in IN_DEGREES)
    with pytest.raises(ValueError, match="degree of negative: expected none"):
        apply("negative", torch.zeros(1, 1, 3, 32, 32), "heavily")


@pytest.mark.parametrize("name", IN_DEGREES)
def test_degrees_are_in_order(name: str, clips: Tensor):
    slightly, plain, heavily = (
        (apply(name, clips, degree) - clips).square().mean() for degree in ("slightly", "", "heavily")
    )
    assert 0 < slightly < 0.9 * plain
    assert plain < 0.97 * heavily


def test_degrees_are_drawn_less_often_than_the_plain_form(bank: Bank):
    rng = seeded()
    drawn = Counter(WHOLE["sepia"].render(bank, 1, 1, 16, 16, rng, False).subjects[0] for _ in range(200))
    assert 120 < drawn[""] < 160
    assert min(drawn[degree] for degree in DEGREES) > 15
