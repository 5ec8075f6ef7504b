import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sana_streaming.data.bank import Bank, boxes, load_bank, shot_bounds, spans
from sana_streaming.data.subjects import ACT_FRAMES
from sana_streaming.data.vocabulary import DRAWN


def test_splits_share_nothing(packed: Path, bank: Bank):
    index = json.loads((packed / "index.json").read_text())
    held_out = load_bank(packed, "val", threads=2)
    assert len(bank.photos) + len(held_out.photos) == len(index["photos"])
    assert set(bank.sprite_names).isdisjoint(held_out.sprite_names)
    assert len(held_out.clips) == 1
    pictures = {photo.numpy().tobytes() for photo in bank.photos}
    assert all(photo.numpy().tobytes() not in pictures for photo in held_out.photos)


def test_a_clip_is_parted_at_its_cut(bank: Bank):
    assert [len(clip) for clip in bank.scenery] == [10, 8]
    assert all(clip.dtype == torch.uint8 and clip.shape[1:] == (3, 96, 128) for clip in bank.clips)


def test_motion_is_not_taken_for_a_cut(moving_frames: np.ndarray):
    assert shot_bounds(moving_frames) == [(0, 9)]


def test_the_film_is_read_in_its_spans_and_up_to_its_limit(packed_with_film: Path):
    def frames(split: str, limit: int | None = None) -> int:
        return sum(map(len, load_bank(packed_with_film, split, film_frames=limit, threads=2).film))

    assert frames("train") == 36
    assert frames("val") == 24
    assert 0 < frames("val", limit=12) <= 16
    assert frames("train", limit=0) == 0


def test_both_splits_have_the_same_vocabulary(packed: Path, bank: Bank):
    held_out = load_bank(packed, "val", threads=2)
    assert bank.objects == held_out.objects == ("cat", "dog", "banana")
    assert bank.places == held_out.places == ("sunset", *DRAWN)
    assert torch.equal(bank.object_pictures, held_out.object_pictures)
    assert torch.equal(bank.place_pictures, held_out.place_pictures)
    assert bank.place_pictures.flatten(1).float().std(1)[0] > 5


def test_people_stand_on_the_lower_edge(bank: Bank):
    assert bank.people.shape == (1, 4, 320, 320)
    assert bank.people[0, 3, -1].max() > 200
    assert bank.people[0, 3, 0].max() == 0
    top, bottom = bank.people_spans[0]
    assert 0.3 < top < 0.9
    assert bottom == 1


def test_a_talk_has_a_mask_for_each_frame(bank: Bank):
    (talk,) = bank.talks
    assert len(talk.frames) == len(talk.masks) == 18
    assert talk.masks[:, :, -1, talk.masks.shape[-1] // 2].min() > 200
    assert talk.masks[:, :, 0, 0].max() < 20
    (act,) = bank.acts
    assert len(act.frames) == len(act.masks) == ACT_FRAMES
    assert act.masks[0].float().mean() == pytest.approx(255 * 0.16, rel=0.2)  # the disc
    assert act.masks[:, :, 0, 0].max() < 20
    assert len(bank.clips) == len(bank.scenery) + 2  # no part of a clip is there twice


def test_every_cut_out_of_a_name_is_found(bank: Bank):
    assert sum(map(len, bank.sprites_of.values())) == len(bank.sprites)
    assert all(bank.sprite_names[i] == name for name, found in bank.sprites_of.items() for i in found)


def test_spans_find_the_first_and_the_last_row():
    cutouts = torch.zeros(2, 4, 20, 20, dtype=torch.uint8)
    cutouts[0, 3, 5:15, 7] = 255
    assert torch.allclose(spans(cutouts)[0], torch.tensor([0.25, 0.75]))


def test_unknown_splits_and_folders_are_refused(packed: Path):
    with pytest.raises(ValueError, match="split: expected one of"):
        load_bank(packed, "test")
    with pytest.raises(ValueError, match=r"index\.json"):
        load_bank(packed / "photos", "train")


def test_boxes_hold_all_of_a_mask():
    masks = torch.zeros(3, 1, 20, 30, dtype=torch.uint8)
    masks[0, 0, 4:9, 10:12], masks[1, 0, 0, 29] = 255, 200
    assert boxes(masks[:, 0] > 127).tolist() == [[10, 4, 12, 9], [29, 0, 30, 1], [0, 0, 30, 20]]
