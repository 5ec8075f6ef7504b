"""Models whose scores can be known beforehand, and held-out material made of random pictures."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

pytest.importorskip("cv2")

from sana_streaming.codec import VideoCodec
from sana_streaming.config import CodecConfig, nano
from sana_streaming.data.bank import Bank
from sana_streaming.data.vocabulary import PLACES
from sana_streaming.eval.cases import Case
from sana_streaming.model.dit import DiTState, TextContext
from sana_streaming.stream.editor import Editor

CASE = Case(
    edit="sepia",
    material="rendered",
    degree="",
    source=torch.zeros(1, 8, 32, 32, 3, dtype=torch.uint8),
    truth=torch.zeros(1, 8, 32, 32, 3, dtype=torch.uint8),
    region=torch.ones(1, 8, 32, 32),
    phrases=("make it sepia",),
    subjects=("",),
    seeds=(0,),
)


class PassThrough(VideoCodec):
    """Latents are the frames themselves, four to a latent; decoding may add a pulse to every second frame."""

    def __init__(self, pulse: float = 0.0):
        super().__init__()
        self.config, self.pulse = CodecConfig("none", 12, 4, stride=1, first_latent_frames=4), pulse

    def init_encoder(self, batch: int) -> Any:
        return None

    def init_decoder(self, batch: int) -> Any:
        return None

    def frames_of(self, latents: int, first: bool) -> int:
        return 4 * latents

    def encode(self, frames: Tensor, state: Any) -> tuple[Tensor, Any]:
        return frames.unflatten(2, (-1, 4)).transpose(2, 3).flatten(1, 2), state

    def decode(self, latents: Tensor, state: Any) -> tuple[Tensor, Any]:
        frames = latents.unflatten(1, (3, 4)).transpose(2, 3).flatten(2, 3).clone()
        frames[:, :, ::2] += self.pulse
        return frames, state


class Function(torch.nn.Module):
    """A transformer that moves from the noise straight to a function of the source's latents."""

    def __init__(self, edited: Callable[[Tensor], Tensor]):
        super().__init__()
        self.config = nano().dit
        self.edited, self.weight = edited, torch.nn.Parameter(torch.zeros(1))

    def init_state(self, batch: int, grid: tuple[int, int]) -> Any:
        return DiTState(torch.zeros(batch, dtype=torch.int64), None, ())

    def encode_text(self, tokens: Tensor, mask: Tensor | None = None) -> TextContext:
        return TextContext((), (), None)

    def forward(self, x: Tensor, sigma: float, state: Any, *, source: Tensor, text: TextContext) -> Any:
        return ((x - self.edited(source)) / sigma if sigma else x), state


def editor(edited: Callable[[Tensor], Tensor] = lambda source: source, first_chunk: int = 1) -> Editor:
    """A model that does nothing, or what the function says."""
    config = replace(nano(), sampler=replace(nano().sampler, first_chunk=first_chunk, chunk=1))
    return Editor(config, Function(edited), PassThrough(), lambda phrase: torch.ones(len(phrase.split()), 4))  # type: ignore[arg-type]


@pytest.fixture
def still_model() -> Editor:
    return editor()


def pictures(count: int, channels: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    coarse = torch.rand(count, channels, 6, 6, generator=generator)
    smooth = F.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
    return (smooth * 255).round().to(torch.uint8)


@pytest.fixture(scope="session")
def bank() -> Bank:
    g = torch.Generator().manual_seed(0)
    y, x = torch.meshgrid(torch.arange(128) - 64, torch.arange(128) - 64, indexing="ij")
    disc = (torch.hypot(x.float(), y.float()) < 55).to(torch.uint8) * 255
    square = ((x.abs() < 45) & (y.abs() < 45)).to(torch.uint8) * 255
    ring = disc * (torch.hypot(x.float(), y.float()) > 30)
    shapes = torch.stack([disc, square, ring])[:, None]
    colours = torch.tensor([[230, 30, 30], [30, 200, 30], [30, 30, 230]], dtype=torch.uint8)[:, :, None, None]
    objects = torch.cat([colours.expand(3, 3, 128, 128), shapes], dim=1)
    clips = [pictures(1, 3, *size, g).expand(20, -1, -1, -1) for size in ((60, 80), (60, 80), (80, 60))]
    clips.append(pictures(1, 3, 60, 80, g).expand(4, -1, -1, -1))  # too short
    known = {
        "photos": pictures(3, 3, 90, 120, g),
        "photo_sizes": torch.tensor([[90, 120]] * 3),
        "bare_photos": (0, 1, 2),
        "masked_photos": (),
        "plated_photos": (),
        "photo_plates": torch.zeros(0, 3, 90, 120, dtype=torch.uint8),
        "photo_names": (),
        "photo_masks": torch.zeros(0, 1, 90, 120, dtype=torch.uint8),
        "sprites": objects,
        "sprite_names": ("comb", "leaf", "bell"),
        "sprite_colours": ("red", "green", "blue"),
        "sprite_categories": ("objects",) * 3,
        "objects": ("cat", "dog", "banana"),
        "object_pictures": objects,
        "places": tuple(PLACES),
        "place_pictures": pictures(len(PLACES), 3, 64, 96, g),
        "people": torch.zeros(0, 4, 320, 320, dtype=torch.uint8),
        "talks": (),
        "acts": (),
        "clips": tuple(clips),
        "scenery": tuple(clips),
        "film": (),
    }
    return Bank(**{name: known[name] for name in Bank.__dataclass_fields__})
