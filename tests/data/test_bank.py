import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sana_streaming.data.bank import Bank, load_bank, shot_bounds

WORDS = ("make it rain", "sepia")


def test_splits_share_nothing(packed: Path, bank: Bank):
    index = json.loads((packed / "index.json").read_text())
    held_out = load_bank(packed, "val", threads=2)
    assert len(bank.photos) + len(held_out.photos) == len(index["photos"])
    assert set(bank.sprite_names).isdisjoint(held_out.sprite_names)
    assert len(held_out.clips) == 1
    pictures = {photo.numpy().tobytes() for photo in bank.photos}
    assert all(photo.numpy().tobytes() not in pictures for photo in held_out.photos)


def test_a_clip_is_parted_at_its_cut(bank: Bank):
    assert [len(clip) for clip in bank.clips] == [10, 8]
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


def test_prompts_come_back_padded_and_masked(bank: Bank):
    assert bank.prompts is not None
    states, mask = bank.prompts([WORDS[1], WORDS[0]])
    assert states.shape == (2, 5, 4)
    assert mask.tolist() == [[True] * 3 + [False] * 2, [True] * 5]
    assert states[0, :3].unique().item() == len(WORDS[1])
    assert states[0, 3:].abs().max() == 0


def test_unknown_phrases_and_splits_are_refused(packed: Path, bank: Bank):
    assert bank.prompts is not None
    with pytest.raises(ValueError, match="expected phrases of the pack"):
        bank.prompts(["make me a sandwich"])
    with pytest.raises(ValueError, match="split: expected one of"):
        load_bank(packed, "test")
    with pytest.raises(ValueError, match=r"index\.json"):
        load_bank(packed / "photos", "train")
