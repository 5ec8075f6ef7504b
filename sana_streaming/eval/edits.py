"""Edit many clips at once, chunk by chunk as a session does, and what to compare the result with."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from sana_streaming.codec import VideoCodec
from sana_streaming.data.edits import EDITS
from sana_streaming.data.prompts import Prompts
from sana_streaming.diffusion.flow import sampling
from sana_streaming.metrics import psnr
from sana_streaming.model.dit import TextContext
from sana_streaming.stream.editor import Editor
from sana_streaming.stream.road import edit_stream, to_signed, to_uint8

__all__ = ["at_size", "bounds", "edit", "frames_of", "psnr", "reconstruct", "stream", "true_edit"]

CODED_AT_ONCE = 8  # whole clips


def bounds(editor: Editor, frames: int) -> list[int]:
    """The first frame of every chunk, and the end. ValueError if whole chunks do not fill that many frames."""
    sampler, codec = editor.config.sampler, editor.codec
    edges = [0, codec.frames_of(sampler.first_chunk, first=True)]
    while edges[-1] < frames:
        edges.append(edges[-1] + codec.frames_of(sampler.chunk, first=False))
    if edges[-1] != frames:
        raise ValueError(f"frames: expected whole chunks, {edges[-2]} or {edges[-1]}, got {frames}")
    return edges


def stream(
    editor: Editor, pieces: Iterable[Tensor], text: TextContext, steps: int, seeds: Sequence[int]
) -> Iterator[Tensor]:
    """New streams side by side, each from noise of its own seed, as a session of it alone: the frames of each chunk,
    RGB uint8 [B, F, H, W, 3] -> the same, edited; later than they came if the codec looks ahead."""
    waiting: deque[int] = deque()  # lengths of the chunks that have not come back

    def counted() -> Iterator[Tensor]:
        for frames in pieces:
            waiting.append(frames.shape[1])
            yield frames

    noise, how = [Generator().manual_seed(seed) for seed in seeds], sampling(editor.config.sampler, steps)
    done: list[Tensor] = []
    for edited in edit_stream(editor.codec, editor.dit, counted(), text, noise, how):
        done.append(edited)
        while waiting and sum(part.shape[1] for part in done) >= waiting[0]:
            whole = torch.cat(done, dim=1)
            length = waiting.popleft()
            yield whole[:, :length]
            done = [whole[:, length:]]


def edit(
    editor: Editor,
    sources: Sequence[Tensor],
    phrases: Sequence[str],
    seeds: Sequence[int],
    prompts: Prompts,
    steps: int,
) -> list[Tensor]:
    """Whole clips of one size, RGB uint8 [n, F, H, W, 3] for each of the sources, all at once, each by an instruction
    and from noise of its own. They are joined chunk by chunk only: whole they are large."""
    text = editor.dit.encode_text(*prompts(phrases))
    edges = list(pairwise(bounds(editor, sources[0].shape[1])))
    pieces = (torch.cat([source[:, start:end] for source in sources]) for start, end in edges)
    edited = [torch.empty_like(source) for source in sources]
    for (start, end), frames in zip(edges, stream(editor, pieces, text, steps, seeds), strict=True):
        for whole, part in zip(edited, frames.split([len(source) for source in sources]), strict=True):
            whole[:, start:end] = part
    return edited


def reconstruct(codec: VideoCodec, video: Tensor) -> Tensor:
    """RGB uint8 [B, F, H, W, 3] through the codec"""
    parts = []
    for part in video.split(CODED_AT_ONCE):
        latents, _ = codec.encode(to_signed(part), codec.init_encoder(len(part)))
        parts.append(to_uint8(codec.decode(latents, codec.init_decoder(len(part)))[0]))
    return torch.cat(parts)


def true_edit(name: str, source: Tensor, *degree: str) -> Tensor:
    """A look or weather on RGB uint8 [B, F, H, W, 3] -> the same"""
    apply = EDITS[name].apply
    if apply is None:
        raise ValueError(f"edit: expected a look or weather, got {name!r}")
    clips = (clip.permute(0, 1, 4, 2, 3).float() / 255 for clip in source.split(1))  # one by one: floats are large
    return torch.cat([frames_of(apply(clip, Generator().manual_seed(0), *degree)) for clip in clips])


def frames_of(video: Tensor) -> Tensor:
    """[B, F, 3, H, W] in [0, 1] -> RGB uint8 [B, F, H, W, 3]"""
    return to_uint8(video.transpose(1, 2) * 2 - 1)


def at_size(clip: Tensor, short: int, multiple: int = 16) -> Tensor:
    """uint8 [F, 3, H, W] -> RGB uint8 [F, H', W', 3] with that short side, cut to a multiple on the long one."""
    height, width = clip.shape[-2:]
    scale = short / min(height, width)
    size = (max(short, round(height * scale)), max(short, round(width * scale)))
    video = F.interpolate(clip.float(), size=size, mode="bilinear", antialias=True)
    height, width = (side // multiple * multiple for side in size)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    cut = video[:, :, top : top + height, left : left + width]
    return cut.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
