"""Cuts of real clips are found at their frame; what only looks like one is not."""

from itertools import permutations
from pathlib import Path

import av
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from sana_streaming.state import nbytes
from sana_streaming.stream.scene_cuts import SIDE, Watch, find_cuts

ASSETS = Path(__file__).parents[2] / "assets"
CLIPS = ("webcam_talk_a", "hand_bottle", "bbb_rabbit_apple", "bbb_rabbit_meadow")
LENGTH, HEIGHT, WIDTH = 24, 90, 160


def read(name: str) -> Tensor:
    """The first frames of a clip, uint8 [F, H, W, 3]"""
    with av.open(str(ASSETS / f"{name}.mp4")) as file:
        pairs = zip(range(LENGTH), file.decode(video=0), strict=False)
        return torch.stack(
            [torch.from_numpy(f.to_ndarray(format="rgb24", width=WIDTH, height=HEIGHT)) for _, f in pairs]
        )


@pytest.fixture(scope="module")
def clips() -> dict[str, Tensor]:
    return {name: read(name) for name in CLIPS}


def cuts(video: Tensor, *lengths: int) -> list[int]:
    """All that is found when the frames come in pieces of these lengths, over and over; one by one if none is given."""
    watch, found, start, turn = Watch(), [], 0, 0
    while start < len(video):
        length = lengths[turn % len(lengths)] if lengths else 1
        new, watch = find_cuts(video[start : start + length], watch)
        found, start, turn = [*found, *new], start + length, turn + 1
    return found


@pytest.mark.parametrize(("first", "second"), list(permutations(CLIPS, 2)), ids=str)
def test_the_splice_of_two_clips_is_a_cut(clips: dict[str, Tensor], first: str, second: str) -> None:
    video = torch.cat([clips[first][:13], clips[second]])
    assert cuts(video, 4) == [13]


def test_it_is_certain_a_few_frames_later(clips: dict[str, Tensor]) -> None:
    video, watch = torch.cat([clips["hand_bottle"], clips["webcam_talk_a"]]), Watch()
    _, watch = find_cuts(video[: LENGTH + SIDE - 1], watch)
    found, watch = find_cuts(video[LENGTH + SIDE - 1 : LENGTH + SIDE], watch)
    assert found == (LENGTH,)


def test_any_partition_of_a_stream_gives_the_same(clips: dict[str, Tensor]) -> None:
    video = torch.cat([clips[CLIPS[0]][:11], clips[CLIPS[1]][:15], clips[CLIPS[2]][:9], clips[CLIPS[3]]])
    for lengths in ((), (4,), (3, 1, 7), (33, 24), (1000,)):
        assert cuts(video, *lengths) == [11, 26, 35]


def test_the_size_of_the_picture_matters_little(clips: dict[str, Tensor]) -> None:
    video = torch.cat([clips[CLIPS[0]], clips[CLIPS[1]]]).permute(0, 3, 1, 2)
    for size in ((16, 16), (32, 48), (400, 224)):
        scaled = F.interpolate(video.float(), size, mode="bilinear", antialias=True).to(torch.uint8)
        assert cuts(scaled.permute(0, 2, 3, 1), 4) == [LENGTH]


@pytest.mark.parametrize("name", CLIPS)
class TestNoCut:
    def test_in_the_clip_itself(self, clips: dict[str, Tensor], name: str) -> None:
        assert cuts(clips[name], 4) == []

    def test_still(self, clips: dict[str, Tensor], name: str) -> None:
        assert cuts(clips[name][:1].expand(30, -1, -1, -1), 4) == []

    @pytest.mark.parametrize("speed", [1, 5, 12])
    def test_pan(self, clips: dict[str, Tensor], name: str, speed: int) -> None:
        """A window runs over a picture, past its end into its mirror image; the fastest crosses itself in 7 frames."""
        wide = torch.cat([clips[name][0], clips[name][0].flip(1)], dim=1).repeat(1, 2, 1)
        video = torch.stack([wide[:, speed * i : speed * i + WIDTH // 2] for i in range(24)])
        assert cuts(video, 4) == []

    def test_zoom(self, clips: dict[str, Tensor], name: str) -> None:
        still = clips[name][0].permute(2, 0, 1)[None].float()
        steps = [still[:, :, i : HEIGHT - i, 2 * i : WIDTH - 2 * i] for i in range(20)]
        video = [F.interpolate(x, (HEIGHT, WIDTH), mode="bilinear") for x in steps]
        assert cuts(torch.cat(video).to(torch.uint8).permute(0, 2, 3, 1), 4) == []

    @pytest.mark.parametrize("length", range(1, SIDE))
    def test_flash(self, clips: dict[str, Tensor], name: str, length: int) -> None:
        for gain, offset in ((3.0, 40), (0.0, 255), (0.0, 0)):
            video = clips[name].float()
            video[10 : 10 + length] = (gain * video[10 : 10 + length] + offset).clamp(0, 255)
            assert cuts(video.to(torch.uint8), 4) == []

    @pytest.mark.parametrize("length", [6, 12])
    def test_fade(self, clips: dict[str, Tensor], name: str, length: int) -> None:
        """To black, and over into another clip."""
        other = clips[CLIPS[CLIPS.index(name) - 1]].float()
        share = ((torch.arange(LENGTH) - 6) / length).clamp(0, 1)[:, None, None, None]
        for target in (torch.zeros_like(other), other):
            assert cuts(torch.lerp(clips[name].float(), target, share).to(torch.uint8), 4) == []

    @pytest.mark.parametrize("sigma", [10, 60])
    def test_noise(self, clips: dict[str, Tensor], name: str, sigma: float) -> None:
        video = clips[name].float()
        noisy = video + sigma * torch.randn(video.shape, generator=torch.Generator().manual_seed(5))
        assert cuts(noisy.clamp(0, 255).to(torch.uint8), 4) == []

    @pytest.mark.parametrize("gain", [0.8, 1.25])
    def test_a_step_of_the_exposure(self, clips: dict[str, Tensor], name: str, gain: float) -> None:
        video = clips[name].float()
        video[12:] *= gain
        assert cuts(video.clamp(0, 255).to(torch.uint8), 4) == []


def test_what_is_remembered_does_not_grow(clips: dict[str, Tensor]) -> None:
    watch, sizes = Watch(), set()
    for i in range(60):
        _, watch = find_cuts(clips[CLIPS[0]][i % 20 : i % 20 + 4], watch)
        sizes.add(nbytes(watch.last) if i > 3 else 0)
    assert sizes == {0, 7 * 3 * 24 * 32 * 4}
    assert watch.last.untyped_storage().nbytes() == nbytes(watch.last)
    assert watch.frames == 240
