import dataclasses

import pytest
import torch
from torch import Generator

from sana_streaming.data import scenes
from sana_streaming.data.bank import Bank
from sana_streaming.data.layers import paint
from sana_streaming.data.motion import eased, speed_limited, waves


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


@pytest.mark.parametrize(("frames", "height", "width"), [(5, 96, 160), (1, 160, 96), (25, 64, 64)], ids=str)
def test_sources_have_the_size_and_range_asked_for(bank: Bank, frames: int, height: int, width: int):
    clips = scenes.render_sources(bank, 12, frames, height, width, seeded(0))
    assert clips.shape == (12, frames, 3, height, width)
    assert clips.dtype == torch.float32
    assert clips.min() >= 0
    assert clips.max() <= 1
    assert clips.std() > 0.1


def test_sources_follow_the_seed(bank: Bank):
    first = scenes.render_sources(bank, 8, 3, 64, 64, seeded(1))
    assert torch.equal(first, scenes.render_sources(bank, 8, 3, 64, 64, seeded(1)))
    assert (first - scenes.render_sources(bank, 8, 3, 64, 64, seeded(2))).abs().mean() > 0.05


def test_a_generator_goes_on_from_batch_to_batch(bank: Bank):
    generator = seeded(1)
    first = scenes.render_sources(bank, 4, 2, 64, 64, generator)
    assert not torch.equal(first, scenes.render_sources(bank, 4, 2, 64, 64, generator))


@pytest.mark.parametrize("missing", ["clips", "sprites"])
def test_a_bank_may_lack_video_or_sprites(bank: Bank, missing: str):
    empty = {"clips": (), "sprites": bank.sprites[:0]}[missing]
    clips = scenes.render_sources(dataclasses.replace(bank, **{missing: empty}), 16, 2, 64, 64, seeded(3))
    assert clips.std() > 0.1


def test_resting_cameras_rest_and_moving_ones_move_smoothly(bank: Bank):
    still = torch.arange(16) < 8
    clips = scenes.photo_clips(bank, 12, 64, 96, still, seeded(4))
    change = clips.diff(dim=1).abs().mean(dim=(2, 3, 4))  # [16, 11]
    assert change[:8].max() == 0
    assert change[8:].amax(1).min() > 0
    assert change.max() < 0.12


def test_a_short_shot_is_played_to_and_fro(bank: Bank):
    shot = bank.clips[0]
    longer = scenes.to_and_fro(shot, 27)
    assert len(longer) == 27
    assert torch.equal(longer[10], shot[8])
    assert torch.equal(longer[18:28], shot[:9])


def test_sprites_cover_a_part_of_the_picture_only(bank: Bank):
    grey = torch.full((6, 4, 3, 64, 96), 0.5)
    layer = scenes.sprites(bank, torch.tensor([0, 1, 4]), 4, 64, 96, seeded(5))
    changed = (paint(grey, [layer]) - grey).abs().amax(2) > 0.02
    assert 0.005 < changed[[0, 1, 4]].float().mean() < 0.5
    assert not changed[[2, 3, 5]].any()
    assert grey.unique().item() == 0.5


@pytest.mark.parametrize("draw", scenes.GRAPHICS, ids=lambda draw: draw.__name__)
def test_graphics_fill_the_clip(draw):
    clip = torch.full((7, 3, 96, 160), torch.nan)
    draw(clip, seeded(6))
    assert clip.min() >= 0
    assert clip.max() <= 1


def test_odd_sizes_are_refused(bank: Bank):
    with pytest.raises(ValueError, match="multiples of 16, got 100x64"):
        scenes.render_sources(bank, 1, 1, 100, 64, seeded(0))


def test_paths_keep_their_range_and_speed():
    path = torch.cat([waves(seeded(7), 50, (20, 90), 6), eased(seeded(8), 50, 6)])
    assert path.abs().max() <= 1
    speed = torch.full((12,), 0.7)
    limited = speed_limited(path, torch.full((12,), 40.0), speed)
    assert limited.diff(dim=-1).abs().max() <= 0.7 + 1e-4
    assert limited.abs().max() <= 40


@pytest.mark.parametrize("size", [(64, 64), (64, 112)])
def test_a_camera_that_looks_at_something_keeps_it_in_sight(size: tuple[int, int]):
    masks = torch.zeros(24, 1, 90, 160)
    boxes = torch.tensor([[30, 20, 70, 50], [100, 5, 150, 85], [5, 60, 60, 88]]).repeat(8, 1)
    for mask, (left, top, right, bottom) in zip(masks, boxes.tolist(), strict=True):
        mask[:, top:bottom, left:right] = 1
    still = torch.arange(24) % 2 == 0
    sizes = torch.tensor([90, 160]).expand(24, 2)
    looking, plain = (
        scenes.camera_moves(masks, sizes, 24, *size, still, seeded(0), what)[:, :, 0] for what in (boxes, None)
    )
    assert looking.mean((2, 3)).min() > 0.1
    assert plain.mean((2, 3)).min() < 0.05

    def cut_off(seen: torch.Tensor) -> float:
        return float((torch.cat([seen[:, :, :, 0], seen[:, :, :, -1]], 2) > 0.5).float().mean())

    assert cut_off(looking) < 0.6 * cut_off(plain)
