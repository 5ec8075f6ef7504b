"""What a model is: frozen dataclasses, presets, and their JSON form. Unknown keys raise.

Axes used in the whole package: B batch, F video frames, T latent frames, L tokens, D width, N heads, K/V head dims;
H, W height, width.
"""

import dataclasses
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Any, TypeVar

C = TypeVar("C")


@dataclass(frozen=True)
class DiTConfig:
    """The hybrid diffusion transformer (paper section 3.1)."""

    latent_channels: int  # of the noisy latents, of the source latents and of the velocity
    dim: int
    depth: int
    heads: int
    text_dim: int
    ffn_dim: int  # after the gate; the up-projection is twice as wide
    softmax_ratio: float = 0.25  # share of blocks that use softmax attention; the rest use the gated delta rule
    sink: bool = True  # softmax blocks always see the first chunk
    window: int | None = (
        3  # latent frames of most recent whole chunks that softmax blocks see besides the sink; None: all
    )
    rope_theta: float = 10000.0
    max_position: int = 512  # latent frames that positions, and with them the distance to the sink, stay below
    norm_eps: float = 1e-6
    attention_norm_eps: float = 1e-5  # q and k of self-attention, and the text
    cross_norm_eps: float = 1e-6
    blend: bool = False  # the output is an estimate of the data, blended with the source by a learned gate
    coordinates: bool = False  # every token is told where in the picture it lies
    contractive: bool = False  # keys are kept so short that no frame erases more of the memory than there is

    def __post_init__(self) -> None:
        if self.dim % self.heads:
            raise ValueError(f"dim must be a multiple of heads, got dim={self.dim}, heads={self.heads}")

    @property
    def head_dim(self) -> int:
        return self.dim // self.heads

    @property
    def softmax_blocks(self) -> frozenset[int]:
        """Indices of the softmax blocks: the last of each of depth * softmax_ratio groups of equal length."""
        if self.softmax_ratio == 0:
            return frozenset()
        count = max(1, int(self.depth * self.softmax_ratio))
        return frozenset(int((i + 1) * self.depth / count) - 1 for i in range(count))


@dataclass(frozen=True)
class CodecConfig:
    """The video codec: frames in [-1, 1] to latents and back, causal in time."""

    kind: str
    latent_channels: int
    frames_per_latent: int
    stride: int  # pixels per latent cell along height and width
    first_latent_frames: int  # frames that the first latent of a stream stands for
    widths: tuple[int, ...] = ()  # channels at each resolution, fine to coarse
    blocks: tuple[int, ...] = ()  # residual blocks at each resolution; this and what follows: LTX-2 only
    decoder_widths: tuple[int, ...] = ()  # fine to coarse, too
    decoder_blocks: tuple[int, ...] = ()
    decoder_padding: str = "reflect"  # of the picture's border; or "zeros"
    decode: str = "causal"  # or "chunk_tile": overlapping windows that see two latents ahead


@dataclass(frozen=True)
class TextConfig:
    """The text encoder. Prompts become token states of width `dim`."""

    kind: str
    dim: int
    max_tokens: int
    model: str = ""  # folder or hub repository of the encoder, where it does not come with the package
    revision: str = ""  # of the repository; empty: the latest
    template: str = ""  # what stands before every instruction


@dataclass(frozen=True)
class SamplerConfig:
    """How a chunk is denoised, and how long chunks are."""

    first_chunk: int  # latent frames
    chunk: int
    steps: int  # default number of denoising steps
    shift: float  # of the noise schedule for step counts without a list
    schedules: tuple[tuple[float, ...], ...] = ()  # trained sigma lists, each from 1 downwards, without the final 0
    temperature: float = 1.0  # of the noise that a chunk begins from; below 1 results vary less
    repeat_noise: bool = (
        False  # every latent frame of a stream begins from the same noise, which keeps the picture calm
    )
    guidance: float = 1.0  # how far the result is led away from the negative prompt; above 1 at twice the work
    negative_prompt: str = ""
    clip: tuple[int, ...] = ()  # fewest and most latent frames, of a model that edits short clips whole (DPM-Solver++)
    motion_score: int = 0  # told to the model behind every instruction; 0: not
    rate: float | None = None  # frames per second that are edited at most; None: every frame of a source

    def __post_init__(self) -> None:
        if self.rate is not None and not 1 <= self.rate < math.inf:
            raise ValueError(f"expected a rate of 1 or more frames per second, got {self.rate}")
        if not 1 <= self.guidance < math.inf:
            raise ValueError(f"expected guidance of 1 or more, got {self.guidance}")
        if self.clip and not (len(self.clip) == 2 and 1 <= self.clip[0] <= self.clip[1]):
            raise ValueError(f"expected clip to be the fewest and the most latent frames, got {self.clip}")
        for schedule in self.schedules:
            if list(schedule) != sorted(schedule, reverse=True) or not all(0 < s <= 1 for s in schedule):
                raise ValueError(f"a schedule must fall from 1 towards 0, got {schedule}")


@dataclass(frozen=True)
class TaughtEdit:
    """What a user is told of an edit that a model was trained on."""

    kind: str  # "look", "weather", "object", "background" or "both"
    example: str  # an instruction that asks for it
    strong: bool = False  # far from its source
    choices: tuple[str, ...] = ()  # objects, colours or places that the instruction may name, where the set is fixed


@dataclass(frozen=True)
class ModelConfig:
    """One model, whole. Saved as config.json beside its weights."""

    name: str
    dit: DiTConfig
    codec: CodecConfig
    text: TextConfig
    sampler: SamplerConfig
    size: int = 256  # short side, pixels, that the model was trained at
    frame_size: tuple[int, ...] = ()  # width and height, of a model that was trained at one size
    prompt_policy: str = "keep"  # what becomes of a stream's memory when its prompt changes, if nobody says
    edits: dict[str, TaughtEdit] = field(default_factory=dict)  # by name; empty where any instruction may be tried


def nano() -> ModelConfig:
    """The model shipped in the package: 18 M parameters, runs on a laptop CPU."""
    return ModelConfig(
        name="nano",
        dit=DiTConfig(
            latent_channels=64,
            dim=320,
            depth=8,
            heads=5,
            text_dim=384,
            ffn_dim=960,
            window=4,
            max_position=512,  # the clock of training clips jumps by that much at most
            blend=True,
            coordinates=True,
            contractive=True,
        ),
        codec=CodecConfig(
            "nano", latent_channels=64, frames_per_latent=4, stride=16, first_latent_frames=4, widths=(80, 144, 208)
        ),
        text=TextConfig("minilm", dim=384, max_tokens=64),
        sampler=SamplerConfig(
            first_chunk=1,
            chunk=1,
            steps=2,
            shift=3.0,
            schedules=((1.0, 0.75, 0.5, 0.3), (1.0, 0.75)),  # alike at first, where it is decided what to do
            temperature=0.4,
            repeat_noise=True,
        ),
        prompt_policy="reset",  # measured: it is taught little of what comes after a change
    )


def two_b() -> ModelConfig:
    """The released 2 B model at 1280x704 (streaming variant; the other has its own weights and sampler)."""
    return ModelConfig(
        name="2b",
        dit=DiTConfig(
            latent_channels=128, dim=2240, depth=20, heads=20, text_dim=2304, ffn_dim=6720, max_position=1024
        ),
        codec=CodecConfig(
            "ltx2",
            latent_channels=128,
            frames_per_latent=8,
            stride=32,
            first_latent_frames=1,
            widths=(128, 256, 512, 1024, 2048),
            blocks=(4, 6, 6, 2, 2),
            decoder_widths=(128, 256, 512, 1024),
            decoder_blocks=(5, 5, 5, 5),
        ),
        text=TextConfig("gemma", dim=2304, max_tokens=300, model="Efficient-Large-Model/gemma-2-2b-it"),
        sampler=SamplerConfig(
            first_chunk=5,
            chunk=3,
            steps=4,
            shift=8.0,
            schedules=((1.0, 0.961, 0.893, 0.743), (1.0, 0.743)),
            rate=16,  # of the published script's results; training took frames as they came
        ),
        size=704,
        frame_size=(1280, 704),
        prompt_policy="recache",
    )


PRESETS = {"nano": nano, "2b": two_b}


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain JSON types."""
    return dataclasses.asdict(config)


def from_dict(kind: type[C], values: dict[str, Any]) -> C:
    """A config from JSON types. ValueError names unknown and missing keys."""
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    required = {
        n for n, f in fields.items() if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }
    if unknown := sorted(values.keys() - fields.keys()):
        raise ValueError(f"{kind.__name__}: unknown keys {unknown}; known keys are {sorted(fields)}")
    if missing := sorted(required - values.keys()):
        raise ValueError(f"{kind.__name__}: missing keys {missing}")
    hints = typing.get_type_hints(kind)
    return kind(**{name: _coerce(hints[name], value) for name, value in values.items()})


def _coerce(hint: Any, value: Any) -> Any:
    if hint is TaughtEdit and isinstance(value, str):  # early models name the example alone
        return TaughtEdit("look", value)
    if dataclasses.is_dataclass(hint):
        return from_dict(hint, value)  # type: ignore[arg-type]
    if typing.get_origin(hint) is tuple:
        item = typing.get_args(hint)[0]
        return tuple(_coerce(item, v) for v in value)
    if typing.get_origin(hint) is dict:
        item = typing.get_args(hint)[1]
        return {name: _coerce(item, v) for name, v in value.items()}
    if isinstance(hint, types.UnionType):
        return value
    return value
