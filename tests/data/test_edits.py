from collections import Counter

import pytest
import torch
from torch import Generator, Tensor

from sana_streaming.data import scenes
from sana_streaming.data.bank import Bank
from sana_streaming.data.edits import EDITS
from sana_streaming.data.phrasings import plain
from sana_streaming.data.wordings import WORDINGS

PARTICLES = [name for name, edit in EDITS.items() if edit.particles]
FRAMEWISE = [name for name, edit in EDITS.items() if not edit.particles]


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """-> [N], of clips [N, F, 3, H, W]"""
    return -10 * torch.log10((a - b).square().mean(dim=(1, 2, 3, 4)) + 1e-12)


@pytest.fixture(scope="module")
def clips(bank: Bank) -> Tensor:
    return scenes.photo_clips(bank, 4, 96, 160, torch.zeros(6, dtype=torch.bool), seeded(3))


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize(("height", "width"), [(96, 160), (176, 64)], ids=str)
def test_edits_keep_shape_and_range(name: str, height: int, width: int):
    video = torch.rand(2, 3, 3, height, width, generator=seeded())
    video[0, 0], video[0, 1] = 0, 1  # black and white frames divide by zero if anything does
    edited = EDITS[name].apply(video, seeded())
    assert edited.shape == video.shape
    assert edited.dtype == torch.float32
    assert edited.min() >= 0
    assert edited.max() <= 1


@pytest.mark.parametrize("name", EDITS)
def test_the_future_never_changes_the_past(name: str, clips: Tensor):
    whole = EDITS[name].apply(clips, seeded())
    torch.testing.assert_close(EDITS[name].apply(clips[:, :2], seeded()), whole[:, :2], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", FRAMEWISE)
def test_a_still_stays_still(name: str, clips: Tensor):
    still = clips[:, :1].expand(-1, 5, -1, -1, -1)
    edited = EDITS[name].apply(still, seeded())
    torch.testing.assert_close(edited, edited[:, :1].expand_as(edited), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", FRAMEWISE)
def test_small_changes_of_the_source_stay_small(name: str, clips: Tensor):
    """A camera's noise must not make a look boil."""
    noisy = clips + 0.002 * torch.randn(clips.shape, generator=seeded())
    change = EDITS[name].apply(noisy.clamp(0, 1), seeded()) - EDITS[name].apply(clips, seeded())
    assert change.abs().mean() < 0.02


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_follows_its_seed(name: str, clips: Tensor):
    assert torch.equal(EDITS[name].apply(clips, seeded(1)), EDITS[name].apply(clips, seeded(1)))
    assert (
        torch.equal(EDITS[name].apply(clips, seeded(1)), EDITS[name].apply(clips, seeded(2))) != EDITS[name].particles
    )


@pytest.mark.parametrize("name", FRAMEWISE)
def test_a_look_agrees_across_sizes(name: str, bank: Bank):
    still = torch.ones(2, dtype=torch.bool)
    large = scenes.photo_clips(bank, 1, 256, 256, still, seeded(5))
    small = torch.nn.functional.avg_pool2d(large[:, 0], 2)[:, None]
    edited = torch.nn.functional.avg_pool2d(EDITS[name].apply(large, seeded())[:, 0], 2)[:, None]
    assert psnr(edited, EDITS[name].apply(small, seeded())).mean() > 20


def test_unchanged_is_the_source(clips: Tensor):
    assert torch.equal(EDITS["unchanged"].apply(clips, seeded()), clips)


def test_strong_edits_are_far_from_their_source(clips: Tensor):
    strong = [name for name, edit in EDITS.items() if edit.strong]
    assert len(strong) >= 14
    for name in strong:
        assert psnr(EDITS[name].apply(clips, seeded()), clips).median() < 16, name


def test_edits_differ_from_each_other(clips: Tensor):
    edited = {name: edit.apply(clips, seeded()) for name, edit in EDITS.items()}
    for name, other in ((a, b) for a in edited for b in edited if a < b):
        assert psnr(edited[name], edited[other]).mean() < 28, (name, other)


@pytest.mark.parametrize("name", PARTICLES)
def test_particles_fall(name: str):
    """From one frame to the next the picture matches itself best when it is moved down."""
    grey = torch.full((4, 6, 3, 128, 128), 0.3)
    edited = EDITS[name].apply(grey, seeded())[:, :, 0, 16:-16]
    before, after = edited[:, :-1], edited[:, 1:]
    mismatch = {step: (after.roll(-step, 2) - before)[:, :, 12:-12].square().mean().item() for step in range(-10, 11)}
    assert min(mismatch, key=lambda step: mismatch[step]) > 0
    assert mismatch[1] < mismatch[-1]


@pytest.mark.parametrize("name", PARTICLES)
def test_the_scene_stays_visible_behind_particles(name: str, clips: Tensor):
    edited = EDITS[name].apply(clips, seeded())
    both = torch.stack([clips.mean(2).flatten(), edited.mean(2).flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.75


def test_every_edit_has_words_and_every_word_an_edit():
    assert EDITS.keys() == WORDINGS.keys()
    assert all(name == edit.name for name, edit in EDITS.items())


@pytest.mark.parametrize("name", EDITS)
def test_phrasings_are_many_and_begin_with_the_example(name: str):
    edit = EDITS[name]
    assert 30 <= len(edit.phrasings) <= 50
    assert len(edit.held_out) >= 4
    assert edit.phrasings[0] == WORDINGS[name].example
    assert all(phrase == phrase.strip() and "{" not in phrase for phrase in (*edit.phrasings, *edit.held_out))


def test_no_phrase_occurs_twice_in_any_edit_or_split():
    count = Counter(plain(phrase) for edit in EDITS.values() for phrase in (*edit.phrasings, *edit.held_out))
    assert [phrase for phrase, times in count.items() if times > 1] == []


def test_phrasings_vary_in_form():
    phrases = [phrase for edit in EDITS.values() for phrase in edit.phrasings]
    assert 0.1 < sum(phrase[0].isupper() for phrase in phrases) / len(phrases) < 0.6
    assert 0.1 < sum(phrase[-1] in ".!?" for phrase in phrases) / len(phrases) < 0.6
    text = " ".join(phrases)
    assert all(word in text for word in ("color", "colour", "gray", "grey", "the scene", "the video", "the footage"))
