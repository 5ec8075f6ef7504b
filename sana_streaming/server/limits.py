"""What one server takes on, and at what size it edits a source."""

from dataclasses import dataclass

import torch

from sana_streaming.config import ModelConfig
from sana_streaming.io.size import Size, working_geometry
from sana_streaming.stream.run import DEFAULT_SIZES, SMALLEST_SIZE

from .protocol import Open

WIDEST = 4  # width over height, and the other way round


@dataclass(frozen=True)
class Limits:
    sessions: int = 8  # at most, whatever the model could do
    waiting: int = 16  # places in the queue
    together: int = 8  # streams in one pass of the model, where that is less work
    prompt: int = 500  # characters
    side: int = 1280  # pixels of an edited frame, at most
    fps: float = 60.0
    idle_seconds: float = 60.0  # without a frame or a command
    grace_seconds: float = 30.0  # without a connection

    def check_prompt(self, prompt: str) -> None:
        """ValueError if it is too long."""
        if len(prompt) > self.prompt:
            raise ValueError(f"expected a prompt of at most {self.prompt} characters, got {len(prompt)}")

    def size_for(self, message: Open, config: ModelConfig, stride: int, device: torch.device) -> Size:
        """Width and height that a source is edited at. ValueError for one that cannot be."""
        width, height = message.width, message.height
        if message.fps > self.fps:
            raise ValueError(f"expected at most {self.fps:g} frames per second, got {message.fps:g}")
        if min(width, height) < SMALLEST_SIZE or max(width, height) > WIDEST * min(width, height):
            raise ValueError(
                f"expected a picture of at least {SMALLEST_SIZE} pixels and at most {WIDEST} times as long as wide, "
                f"got {width}x{height}"
            )
        default = DEFAULT_SIZES.get(device.type, 512)
        trained = config.frame_size
        picture = working_geometry((width, height), stride, fit="crop", default=default, trained=trained).picture
        if max(picture) > self.side:
            short = max(stride, self.side * min(width, height) // max(width, height))
            picture = working_geometry((width, height), stride, fit="crop", short=short).picture
        largest = max(stride, self.side // stride * stride)
        return min(picture[0], largest), min(picture[1], largest)
