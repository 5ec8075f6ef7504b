"""How well a codec carries pictures: reconstruction of held-out video, and whether a still stays still."""

import torch
from torch import Tensor

from sana_streaming.codec import VideoCodec
from sana_streaming.eval.edits import reconstruct
from sana_streaming.metrics import psnr


def measure_codec(codec: VideoCodec, sources: dict[str, list[Tensor]]) -> dict[str, float]:
    """sources: by material, batches of RGB uint8 [B, F, H, W, 3] -> PSNR in decibels for each material, and the mean
    absolute change from frame to frame, in levels of 255, of stills made of the first frames of the first material."""
    result = {}
    for material, batches in sources.items():
        values = torch.cat([psnr(reconstruct(codec, clip[None]), clip[None]) for batch in batches for clip in batch])
        result[f"{material}, dB"] = float(values.mean())
    stills = [clip[:1].expand_as(clip)[None] for clip in next(iter(sources.values()))[0]]
    changes = [reconstruct(codec, still).float().diff(dim=1).abs().mean() for still in stills]
    result["still, change of 255"] = float(torch.stack(changes).mean())
    return result
