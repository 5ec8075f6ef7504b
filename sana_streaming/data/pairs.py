"""What a training pair is, and what an edit is: something that renders pairs."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from torch import Generator, Tensor

from sana_streaming.data.bank import Bank


@dataclass(frozen=True)
class Pairs:
    """Clips before and after an edit, and the instructions that lead from one to the other and back.

    Axes: n clips, F frames, H, W pixels. Pictures are RGB in [0, 1], float32, on the device of the bank.
    """

    source: Tensor  # [n, F, 3, H, W]
    target: Tensor  # [n, F, 3, H, W]
    region: Tensor  # [n, F, 1, H, W] in [0, 1]: where the instruction asks for a change
    phrases: tuple[str, ...]  # n instructions
    reverses: tuple[str, ...]  # n instructions that ask for the source, given the target
    subjects: tuple[str, ...]  # n names of what is asked for: a new object, a colour, a place, a degree; or ""
    moved: Callable[[float, float], Tensor] | None = None
    """Targets [n, F, 3, H, W] with what is new moved by so many pixels to the right and down, where nobody could tell
    the exact place from source and instruction; None where one place is right."""


class Render(Protocol):
    def __call__(
        self, bank: Bank, clips: int, frames: int, height: int, width: int, rng: Generator, held_out: bool
    ) -> Pairs:
        """Pairs of one edit. rng lives on the CPU; held_out: for judging, in phrasings kept apart, with
        cut-outs and their names as they are; to train on, in other phrasings, with both varied."""
        ...


@dataclass(frozen=True)
class Edit:
    name: str
    kind: str  # "look", "weather", "object", "background" or "both"
    render: Render
    example: str  # the instruction that a user interface shows
    share: float = 1.0  # how often it is drawn for training, against 1 for a look
    strong: bool = False  # far from its source: PSNR below 16 dB on most photos
    apply: Callable[..., Tensor] | None = None
    """Of looks and weather: clips [n, F, 3, H, W] in [0, 1] -> the same, edited; None for edits that need a scene."""
    phrasings: tuple[str, ...] = ()  # for training: whole phrases of looks and weather, templates of the others
    held_out: tuple[str, ...] = ()  # for judging
    choices: tuple[str, ...] = field(default=())  # names that fill the templates, where they are a fixed set
