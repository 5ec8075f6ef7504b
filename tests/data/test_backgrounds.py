import dataclasses

import pytest
import torch
from torch import Generator

from sana_streaming.data import backgrounds, disguise, foregrounds, photographed
from sana_streaming.data.backgrounds import AMBIGUOUS, BACKGROUNDS, blurred_behind, covering
from sana_streaming.data.bank import Bank
from sana_streaming.data.pairs import Pairs
from sana_streaming.data.vocabulary import DRAWN, PLACES
from sana_streaming.data.whole import WHOLE

N, F, H, W = 12, 3, 64, 96


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def render(bank: Bank, name: str, seed: int = 0, held_out: bool = False) -> Pairs:
    return BACKGROUNDS[name].render(bank, N, F, H, W, seeded(seed), held_out)


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_the_foreground_stays(bank: Bank, name: str):
    pairs = render(bank, name)
    assert pairs.source.shape == pairs.target.shape == (N, F, 3, H, W)
    assert pairs.region.shape == (N, F, 1, H, W)
    for picture in (pairs.source, pairs.target, pairs.region):
        assert picture.min() >= 0
        assert picture.max() <= 1
    change = (pairs.target - pairs.source).abs().amax(2, keepdim=True)
    assert change[pairs.region == 0].max() < 1e-5
    covered = (pairs.region < 0.5).float().flatten(1).mean(1)
    assert covered.min() > 0.02
    assert covered.max() < 0.95


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_a_seed_says_all(bank: Bank, name: str):
    first, second = render(bank, name, 3), render(bank, name, 3)
    assert torch.equal(first.target, second.target)
    assert first.phrases == second.phrases


@pytest.mark.parametrize("name", BACKGROUNDS)
def test_phrasings_for_judging_are_others(name: str):
    edit = BACKGROUNDS[name]
    assert len(edit.phrasings) >= 8
    assert len(edit.held_out) >= 3
    assert set(edit.phrasings).isdisjoint(edit.held_out)


def test_a_place_is_always_the_same_picture(bank: Bank):
    pairs = render(bank, "background", 2)
    behind = pairs.region[:, :, 0] > 0.999
    pictures = covering(bank.place_pictures.float() / 255, H, W)
    for target, seen, name in zip(pairs.target, behind, pairs.subjects, strict=True):
        expected = pictures[bank.places.index(name)].expand(F, 3, H, W)
        assert (target - expected).abs().amax(1)[seen].max() < 2e-3


def test_every_place_has_a_picture():
    assert all(place.photo or name in DRAWN for name, place in PLACES.items())
    for draw in DRAWN.values():
        picture = draw(40, 60)
        assert picture.shape == (40, 60, 3)
        assert (picture == draw(40, 60)).all()


@pytest.mark.parametrize("kind", sorted(foregrounds.FOREGROUNDS.keys() - {"own", "acts"}))
def test_every_kind_of_cut_out_rises_from_the_lower_edge(bank: Bank, kind: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(foregrounds, "FOREGROUNDS", {name: float(name == kind) for name in foregrounds.FOREGROUNDS})
    figures = dataclasses.replace(bank, sprite_categories=("people",) * len(bank.sprites))
    _, stamp = foregrounds.foreground_scenes(figures, 4, F, H, W, seeded(1), False)
    assert stamp[:, :, 3, -1].amax(-1).min() > 0.5


def test_what_is_filmed_stays_before_what_was_behind_it(bank: Bank, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(foregrounds, "FOREGROUNDS", {name: float(name == "acts") for name in foregrounds.FOREGROUNDS})
    (act,) = bank.acts
    monkeypatch.setattr(foregrounds, "grade", lambda clips, rng: None)
    frames = len(act.frames) + 6  # longer than it is: it goes back and forth
    source, stamp = foregrounds.foreground_scenes(bank, 3, frames, H, W, seeded(3), False)
    alpha = stamp[:, :, 3:]
    assert alpha.flatten(1).amax(1).min() > 0.9
    assert (source[:, 1:] - source[:, :-1]).abs().mean() > 1e-3  # it moves
    torch.testing.assert_close(stamp[:, :, :3], source * alpha, atol=2e-2, rtol=0)


def test_the_subject_of_a_photograph_stays_where_it_was_taken(bank: Bank, monkeypatch: pytest.MonkeyPatch):
    """It is a red disc in the photograph of the heron: all that is red is in front, and nothing else."""
    middles = [bank.photos[i, :, 50, 70].int() for i in bank.masked_photos]
    heron = max(range(len(middles)), key=lambda k: int(middles[k][0] - middles[k][1]))
    bank = dataclasses.replace(
        bank, masked_photos=bank.masked_photos[heron : heron + 1], photo_masks=bank.photo_masks[heron : heron + 1]
    )
    monkeypatch.setattr(foregrounds, "FOREGROUNDS", {name: float(name == "own") for name in foregrounds.FOREGROUNDS})
    monkeypatch.setattr(photographed, "grade", lambda clips, rng: None)
    source, stamp = foregrounds.foreground_scenes(bank, 6, F, H, W, seeded(1), False)
    red = source[:, :, 0] - source[:, :, 1]
    alpha = stamp[:, :, 3]
    assert alpha.flatten(1).amax(1).min() > 0.9
    assert red[alpha > 0.9].min() > 0.3
    assert red[alpha < 0.02].max() < 0.4
    torch.testing.assert_close(stamp[:, :, :3], source * alpha[:, :, None])


def test_nobody_is_behind(bank: Bank):
    """What a background is made of is no subject of a photograph, no talk and no film."""
    assert len(bank.empty.photos) == len(bank.bare_photos) == len(bank.photos) - 2  # no rhinoceros, no heron
    assert not set(bank.bare_photos) & set(bank.masked_photos)
    assert len(bank.empty.clips) == len(bank.clips) - 2
    assert bank.empty.film == ()
    with_subjects_alone = dataclasses.replace(bank, bare_photos=())
    assert len(with_subjects_alone.empty.photos) == len(bank.photos)


def test_some_that_stand_before_a_scene_in_training_end_in_sight(bank: Bank, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        foregrounds, "FOREGROUNDS", {name: float(name == "sprites") for name in foregrounds.FOREGROUNDS}
    )
    monkeypatch.setattr(foregrounds, "COMPANY", 0.0)
    _, stamp = foregrounds.foreground_scenes(bank, 40, F, H, W, seeded(1), True)
    ends_below = stamp[:, :, 3, -1].amax(dim=(1, 2)) > 0.5
    assert 0.5 < ends_below.float().mean() < 0.95


def test_company_stands_behind_what_was_there(bank: Bank, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(disguise, "LIKENED", 0.0)

    def scenes(company: float) -> torch.Tensor:
        monkeypatch.setattr(foregrounds, "COMPANY", company)
        return foregrounds.foreground_scenes(bank, 4, F, H, W, seeded(1), True)[1]

    alone, together = scenes(1e-9), scenes(1.0)
    solid = (alone[:, :, 3:] > 0.99).expand_as(alone)
    torch.testing.assert_close(together[solid], alone[solid], rtol=0, atol=0.02)
    assert (together[:, :, 3] > alone[:, :, 3] + 0.5).any()
    assert together[:, :, 3].max() <= 1.001


def test_what_is_in_front_lends_no_colour_to_the_blur():
    clips = torch.full((1, 2, 3, 64, 64), 0.25)
    alpha = torch.zeros(1, 2, 1, 64, 64)
    alpha[..., 20:, 20:44] = 1
    clips = torch.where(alpha > 0, torch.ones(()), clips)
    outside = blurred_behind(clips, alpha)[(alpha == 0).expand_as(clips)]
    assert (outside - 0.25).abs().max() < 1e-3


def test_a_bank_without_foregrounds_is_refused(bank: Bank):
    empty = dataclasses.replace(
        bank,
        sprites=bank.sprites[:0],
        sprite_names=(),
        sprite_categories=(),
        people=bank.people[:0],
        talks=(),
        acts=(),
        masked_photos=(),
    )
    with pytest.raises(ValueError, match="expected people or sprites"):
        BACKGROUNDS["background"].render(empty, 2, F, H, W, seeded(0), False)


def test_a_place_may_be_asked_for_by_its_name_alone_to_train_on(bank: Bank, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(backgrounds, "BY_NAME", 1.0)
    pairs = render(bank, "background")
    for phrase, place in zip(pairs.phrases, pairs.subjects, strict=True):
        assert (phrase == place) == (place not in AMBIGUOUS)
    assert set(render(bank, "background", held_out=True).phrases).isdisjoint(PLACES)


def test_no_look_is_asked_for_by_a_name_that_is_a_place_alone():
    looks = {phrase.lower() for edit in WHOLE.values() for phrase in (*edit.phrasings, *edit.held_out)}
    assert {name.lower() for name in PLACES if name not in AMBIGUOUS}.isdisjoint(looks)
