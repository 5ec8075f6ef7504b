"""One stream of very many chunks through a small random model: does memory stay constant and the output finite?

    python benchmarks/soak.py --chunks 100000

The model is the real thing, only small: both kinds of attention, the nano codec, re-basing, prompts that change with
every policy, fresh anchors. A line every few seconds; the exit status is 1 as soon as something grows or breaks.
"""

import argparse
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sana_streaming.codec import build_codec
from sana_streaming.config import CodecConfig, DiTConfig, ModelConfig, SamplerConfig, TextConfig
from sana_streaming.model.dit import DiT
from sana_streaming.state import nbytes, tensors
from sana_streaming.stream.editor import Editor
from sana_streaming.stream.session import Session

SIZE = (32, 32)
CONFIG = ModelConfig(
    name="soak",
    dit=DiTConfig(latent_channels=4, dim=24, depth=2, heads=2, text_dim=5, ffn_dim=16, softmax_ratio=0.5),
    codec=CodecConfig("nano", 4, frames_per_latent=4, stride=16, first_latent_frames=4, widths=(8, 8, 8)),
    text=TextConfig("minilm", dim=5, max_tokens=8),
    sampler=SamplerConfig(first_chunk=1, chunk=1, steps=2, shift=3.0),
)
PROMPT_EVERY, ANCHOR_EVERY, RESET_EVERY = 100, 1000, 5000  # chunks
LOOK_EVERY = 50  # so that all of these have settled when the state is looked at, before the next of them


@dataclass(frozen=True)
class Reading:
    chunks: int
    state_bytes: int
    state_tensors: int
    position: int
    peak_memory: int  # of the process, as the system counts it: kilobytes on Linux, bytes on macOS
    finite: bool
    contrast: float  # standard deviation of the edited pixels


def random_editor(seed: int = 0) -> Editor:
    torch.manual_seed(seed)
    dit, codec = DiT(CONFIG.dit), build_codec(CONFIG.codec)
    with torch.no_grad():
        for parameter in [*dit.parameters(), *codec.parameters()]:
            parameter.add_(0.1 * torch.randn_like(parameter))
    for module in (dit, codec):
        module.eval().requires_grad_(False)
    return Editor(CONFIG, dit, codec, encode_text)


def encode_text(prompt: str) -> Tensor:
    return torch.randn(len(prompt), 5, generator=torch.Generator().manual_seed(sum(map(ord, prompt))))


def soak(session: Session, chunks: int) -> Iterator[Reading]:
    """A reading every few chunks, and after the last one."""
    frames = torch.randint(0, 256, (8, session.chunk_frames, *SIZE, 3), dtype=torch.uint8)
    for i in range(1, chunks + 1):
        if i % PROMPT_EVERY == 0:
            session.set_prompt(f"prompt {i}", "recache" if i // PROMPT_EVERY % 2 else "keep")
        if i % RESET_EVERY == 0:
            session.set_prompt(f"prompt {i}", "reset")
        if i % ANCHOR_EVERY == 0:
            session.anchor()
        edited = session.step(frames[i % len(frames)])
        if i % LOOK_EVERY != LOOK_EVERY - 1 and i != chunks:
            continue
        assert session.state is not None
        held = list(tensors(session.state))
        yield Reading(
            chunks=i,
            state_bytes=nbytes(session.state),
            state_tensors=len(held),
            position=int(session.state.denoiser.position),
            peak_memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
            finite=all(bool(t.isfinite().all()) for t in held),
            contrast=float(edited.float().std()),
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two lines")
    parser.add_argument("--stop-after", type=float, default=float("inf"), help="seconds after which to stop early")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    begin = told = time.perf_counter()
    size = None  # of the state, once it has reached it
    for reading in soak(random_editor().session("prompt"), arguments.chunks):
        now = time.perf_counter()
        size = size or reading.state_bytes
        grew = reading.state_bytes > size
        stopping = reading.chunks == arguments.chunks or now - begin > arguments.stop_after
        if now - told > arguments.every or stopping or grew or not reading.finite:
            told = now
            print(f"{now - begin:7.1f} s  {reading}", flush=True)
        if grew or not reading.finite:
            print("the state grew" if grew else "the state is no longer finite", file=sys.stderr)
            return 1
        if stopping:
            break
    return 0


if __name__ == "__main__":
    sys.exit(main())
