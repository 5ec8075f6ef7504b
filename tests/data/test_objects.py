import dataclasses
import re
from typing import Any

import pytest
import torch
from torch import Generator

from sana_streaming.data import objects
from sana_streaming.data.bank import Bank, middles
from sana_streaming.data.layers import Path
from sana_streaming.data.objects import COLOURS, NEW_SIZE, OBJECTS, PLACES, fill, recoloured
from sana_streaming.data.pairs import Pairs
from sana_streaming.data.photographed import seen_middles
from sana_streaming.data.vocabulary import article

N, F, H, W = 12, 3, 64, 96


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def render(bank: Bank, name: str, seed: int = 0, held_out: bool = False) -> Pairs:
    return OBJECTS[name].render(bank, N, F, H, W, seeded(seed), held_out)


@pytest.mark.parametrize("name", OBJECTS)
def test_nothing_changes_outside_of_the_region(bank: Bank, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(objects, "UNFOUND", 0.0)
    pairs = render(bank, name)
    assert pairs.source.shape == pairs.target.shape == (N, F, 3, H, W)
    assert pairs.region.shape == (N, F, 1, H, W)
    assert len(pairs.phrases) == len(pairs.reverses) == len(pairs.subjects) == N
    for picture in (pairs.source, pairs.target, pairs.region):
        assert picture.min() >= 0
        assert picture.max() <= 1
    change = (pairs.target - pairs.source).abs().amax(2, keepdim=True)
    assert change[pairs.region == 0].max() < 1e-5
    assert (change > 0.05).flatten(1).any(1).float().mean() > 0.6


@pytest.mark.parametrize("name", OBJECTS)
def test_a_seed_says_all(bank: Bank, name: str):
    first, second = render(bank, name, 3), render(bank, name, 3)
    assert torch.equal(first.target, second.target)
    assert first.phrases == second.phrases


@pytest.mark.parametrize("name", OBJECTS)
def test_phrasings_for_judging_are_others(name: str):
    edit = OBJECTS[name]
    assert len(edit.phrasings) >= 8
    assert len(edit.held_out) >= 3
    assert set(edit.phrasings).isdisjoint(edit.held_out)


@pytest.mark.parametrize(("name", "share"), [("remove", "ABSENT"), ("recolour", "UNFOUND")])
def test_an_absent_object_leaves_the_clip_alone(bank: Bank, name: str, share: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(objects, share, 1.0)
    monkeypatch.setattr(objects, "OWN", 0.0)
    pairs = render(bank, name)
    assert torch.equal(pairs.source, pairs.target)
    assert pairs.region.max() == 0
    assert set(pairs.reverses) == {"keep the video unchanged"}


@pytest.mark.parametrize(("name", "share"), [("remove", "ABSENT"), ("recolour", "UNFOUND")])
def test_words_of_other_edits_are_said_only_of_what_is_not_there(
    bank: Bank, name: str, share: str, monkeypatch: pytest.MonkeyPatch
):
    def foreign(phrase: str) -> bool:
        return any(re.search(rf"\b{word}\b", phrase) for word in objects.FOREIGN_WORDS)

    monkeypatch.setattr(objects, "FOREIGN", 1.0)
    monkeypatch.setattr(objects, share, 0.0)
    assert not any(map(foreign, render(bank, name).phrases))
    monkeypatch.setattr(objects, share, 1.0)
    monkeypatch.setattr(objects, "OWN", 0.0)
    assert all(map(foreign, render(bank, name).phrases))
    assert not any(map(foreign, render(bank, name, held_out=True).phrases))


def test_what_is_recoloured_to_judge_is_always_there(bank: Bank, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(objects, "UNFOUND", 1.0)
    pairs = render(bank, "recolour", held_out=True)
    assert (pairs.region > 0).flatten(1).any(1).all()


def test_subjects_of_photographs_are_recoloured_to_train_on(bank: Bank, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(objects, "OWN", 1.0)
    monkeypatch.setattr(objects, "HEAD_ONLY", 0.0)
    monkeypatch.setattr(objects, "ANYTHING", 0.0)
    pairs = render(bank, "recolour")
    assert all(any(name in phrase for name in ("heron", "rhinoceros")) for phrase in pairs.phrases)
    change = (pairs.target - pairs.source).abs().amax(2, keepdim=True)
    assert change[pairs.region == 0].max() < 1e-5
    herons = torch.tensor(
        ["heron" in phrase and pairs.region[i].mean() > 0.02 for i, phrase in enumerate(pairs.phrases)]
    )
    assert herons.any()
    for i in herons.nonzero()[:, 0].tolist():
        inside = pairs.target[i].mean(1)[pairs.region[i, :, 0] > 0.99]
        assert inside.mean() == pytest.approx(sum(COLOURS[pairs.subjects[i]]) / 3, abs=0.2)
    held_out = render(bank, "recolour", held_out=True)
    assert not any(name in phrase for phrase in held_out.phrases for name in ("heron", "rhinoceros"))


def herons_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is meant is the subject of a photograph, said by its name, with nothing pasted beside it."""
    monkeypatch.setattr(objects, "OWN", 1.0)
    for name in ("HEAD_ONLY", "ANYTHING", "BEHIND", "IN_FRONT"):
        monkeypatch.setattr(objects, name, 0.0)


def test_subjects_of_photographs_are_removed_to_train_on(bank: Bank, monkeypatch: pytest.MonkeyPatch):
    """The heron, a red disc on another colour, is the only one whose photograph is known without it."""
    herons_alone(monkeypatch)
    pairs = render(bank, "remove")
    assert all("heron" in phrase for phrase in pairs.phrases)
    assert set(pairs.reverses) == {"add a heron"}
    red, still_red = (video[:, :, :1] - video[:, :, 1:2] for video in (pairs.source, pairs.target))
    inside = pairs.region > 0.9
    assert inside.any()
    assert red[inside].median() > 0.5
    assert still_red[inside].abs().mean() < 0.2
    change = (pairs.target - pairs.source).abs().amax(2, keepdim=True)
    assert change[pairs.region == 0].max() < 1e-5


def test_subjects_of_photographs_are_replaced_to_train_on(bank: Bank, monkeypatch: pytest.MonkeyPatch):
    herons_alone(monkeypatch)
    pairs = render(bank, "replace")
    assert all("heron" in phrase for phrase in pairs.phrases)
    change = (pairs.target - pairs.source).abs().amax(2, keepdim=True)
    assert change[pairs.region == 0].max() < 1e-5
    assert pairs.moved is not None
    torch.testing.assert_close(pairs.moved(0.0, 0.0), pairs.target)


def test_the_middle_is_that_of_what_is_seen():
    alpha = torch.zeros(1, 2, 20, 30)
    alpha[0, 0, 4:7, 10:13] = 1
    assert seen_middles(alpha)[0].T.tolist() == [[11.0, 5.0], [14.5, 9.5]]


def test_a_name_that_is_kept_apart_is_not_said_of_a_photograph(bank: Bank, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(objects, "OWN", 1.0)
    nameless = dataclasses.replace(bank, photo_names=("",) * len(bank.photo_names))
    pairs = render(nameless, "recolour")
    assert not any("heron" in phrase for phrase in pairs.phrases)


def test_no_other_object_has_the_name_of_the_old_one(bank: Bank, monkeypatch: pytest.MonkeyPatch):
    """In a bank of one name nothing can be beside it."""
    monkeypatch.setattr(objects, "BEHIND", 1.0)
    monkeypatch.setattr(objects, "IN_FRONT", 1.0)
    monkeypatch.setattr(objects, "ABSENT", 1.0)
    alike = dataclasses.replace(bank, sprite_names=("race car",) + ("car",) * (len(bank.sprites) - 1))
    base, front = objects._scene(alike, [("car",)] * 4, F, H, W, seeded(0), True)
    assert not front
    assert base.shape == (4, F, 3, H, W)


def test_a_new_object_is_where_the_words_say(bank: Bank):
    pairs = render(bank, "add", 1)
    for phrase, region, subject in zip(pairs.phrases, pairs.region, pairs.subjects, strict=True):
        place = next((words for words in sorted(PLACES, key=len, reverse=True) if phrase.endswith(words)), "")
        rows, columns = (region[0, 0] > 0.5).nonzero().float().unbind(-1)
        x, y = PLACES[place]
        assert abs(columns.mean() - x * W) < 0.1 * NEW_SIZE * W
        assert abs(rows.mean() - y * H) < 0.2 * NEW_SIZE * H
        assert subject in bank.objects
        assert torch.equal(region[0], region[-1])


def test_what_replaces_an_object_has_one_size_and_goes_where_that_one_goes(bank: Bank, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(objects, "OWN", 0.0)
    monkeypatch.setattr(objects, "BEHIND", 0.0)
    monkeypatch.setattr(objects, "IN_FRONT", 0.0)
    drawn, draw = [], objects.draw

    def kept(pictures, path, *rest):
        drawn.append(path)
        return draw(pictures, path, *rest)

    monkeypatch.setattr(objects, "draw", kept)
    render(bank, "replace")
    old, new = drawn
    assert (new.position - old.position).abs().max() < 0.3 * old.size.max()
    old_middles = (new.position - old.position).norm(dim=1) / old.size  # [m, F], whatever its angle
    assert torch.allclose(old_middles, old_middles[:, :1].expand_as(old_middles), atol=1e-4)
    assert old.position.diff(dim=-1).abs().max() > 0.1
    assert new.size.unique().tolist() == pytest.approx([objects.NEW_SIZE * H])
    assert new.angle.abs().max() == 0
    assert old.size.std() > 1


def test_what_replaces_an_object_can_be_moved_aside(bank: Bank, monkeypatch: pytest.MonkeyPatch):
    """For in training the nearest of several places counts: nobody can tell it to the pixel."""
    pairs = render(bank, "replace")
    assert pairs.moved is not None
    assert torch.equal(pairs.moved(0, 0), pairs.target)
    drawn, draw = [], objects.draw

    def kept(pictures, path, *rest):
        drawn.append(path.position)
        return draw(pictures, path, *rest)

    monkeypatch.setattr(objects, "draw", kept)
    aside = pairs.moved(5, -3)
    pairs.moved(0, 0)
    torch.testing.assert_close(drawn[0] - drawn[1], torch.tensor([5.0, -3.0])[:, None].expand(N, 2, F))
    assert not torch.equal(aside, pairs.target)
    far = pairs.moved(9e3, 0)
    assert torch.equal(far[pairs.region.expand_as(far) == 0], pairs.source[pairs.region.expand_as(far) == 0])


def test_what_is_told_exactly_cannot_be_moved(bank: Bank):
    assert all((render(bank, name).moved is not None) == (name == "replace") for name in OBJECTS)


@pytest.mark.parametrize("name", ["remove", "recolour"])
def test_objects_are_larger_to_train_on_than_to_judge(bank: Bank, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(objects, "ABSENT", 0.0)
    monkeypatch.setattr(objects, "UNFOUND", 0.0)
    largest = []
    plain = objects.in_sight

    def watched(path: Path, *rest: Any) -> Path:
        largest.append(float(path.size[:, 0].max()) / min(H, W))
        return plain(path, *rest)

    monkeypatch.setattr(objects, "in_sight", watched)
    for seed in range(8):
        for held_out in (False, True):
            render(bank, name, seed, held_out)
    limit = 1.2 * objects.OBJECT_SIZES[1]  # paths swell by a fifth at most
    assert max(largest[1::2]) <= limit < max(largest[::2])


def test_cut_outs_are_varied_to_train_on_and_never_to_judge(bank: Bank):
    index = torch.arange(len(bank.sprites)).repeat(16)
    plain, where = objects._sprites(bank, index, seeded(0), False)
    varied, moved = objects._sprites(bank, index, seeded(0), True)
    assert torch.equal(plain, bank.sprites[index] / 255)
    assert torch.equal(where, bank.sprite_middles[index])
    assert torch.allclose(moved, middles((varied * 255).round().byte()), atol=0.01)  # still the middle of what is seen
    assert 0.4 < (plain[:, 3] - varied[:, 3].flip(-1)).abs().flatten(1).amax(1).gt(0.01).float().mean() < 0.9
    assert varied[:, 3].flatten(1).mean(1).lt(0.95 * plain[:, 3].flatten(1).mean(1)).float().mean() > 0.2  # narrower
    assert varied.min() >= 0
    assert varied.max() <= 1


def test_names_are_shortened_to_train_on_and_never_to_judge(bank: Bank):
    names = ["chair with cushion", "small car", "plate, glasses and cutlery", "cat"]
    assert [objects.head(name) for name in names] == ["chair", "car", "plate", "cat"]
    said = [objects.spoken(names, seeded(i)) for i in range(200)]
    assert {one[0] for one in said} == {"chair with cushion", "chair", *objects.ANY}
    assert sum(one[0] == names[0] for one in said) > 100
    bare = {phrase for i in range(4) for phrase in render(bank, "remove", i, held_out=True).phrases}
    assert all(any(phrase.count(name) for name in bank.sprite_names) for phrase in bare)


def test_nothing_stands_beside_what_is_only_called_an_object(bank: Bank, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(objects, "BEHIND", 1.0)
    monkeypatch.setattr(objects, "IN_FRONT", 1.0)
    _, front = objects._scene(bank, [("sofa", "thing")] * 8, F, H, W, seeded(0), True)
    assert not front
    _, front = objects._scene(bank, [("sofa", "sofa")] * 8, F, H, W, seeded(0), True)
    assert front


def test_new_objects_are_of_the_vocabulary_and_not_the_old_one(bank: Bank):
    indices, names = objects._new_objects(bank, ["big dog", "cat", "banana"] * 10, seeded(0))
    assert all(old.split()[-1] != new for old, new in zip(["big dog", "cat", "banana"] * 10, names, strict=True))
    assert [bank.objects[i] for i in indices.tolist()] == names


def test_recoloured_means_have_the_colour_that_was_asked_for():
    tone = torch.linspace(0.3, 0.7, 128).expand(1, 3, 128, 128)
    cutout = torch.cat([tone, torch.ones(1, 1, 128, 128)], 1)
    for name, colour in COLOURS.items():
        new = recoloured(cutout, [name])
        assert (new[0, :3].mean((1, 2)) - torch.tensor(colour)).abs().max() < 0.16
        assert (new[0, :3, :, 1:].mean(0).diff(dim=-1) >= -1e-6).all()  # shading keeps its order
        assert torch.equal(new[:, 3], cutout[:, 3])


def test_an_object_never_gets_the_colour_that_it_has(bank: Bank):
    for colour in ("red", "cyan", "olive", ""):
        drawn = {objects._other_colour(colour, seeded(i)) for i in range(200)}
        assert colour not in drawn
        assert objects.ALIKE.get(colour) not in drawn
        assert len(drawn) >= 9


def test_phrases_read_well():
    assert fill(("add {new} {place}",), seeded(0), new="a cat", place="") == "add a cat"
    assert fill(("can you add {new} {place}?",), seeded(0), new="a cat", place="") == "can you add a cat?"
    names = ("dog", "owl", "unicorn", "scissors", "glass of milk", "octopus", "apple", "ukulele", "compass")
    expected = ["a dog", "an owl", "a unicorn", "scissors", "a glass of milk", "an octopus", "an apple", "a ukulele"]
    assert [article(name) for name in names] == [*expected, "a compass"]


def test_a_bank_without_sprites_is_refused(bank: Bank):
    empty = dataclasses.replace(bank, sprites=bank.sprites[:0], sprite_names=())
    with pytest.raises(ValueError, match="expected sprites"):
        OBJECTS["remove"].render(empty, 2, F, H, W, seeded(0), False)
