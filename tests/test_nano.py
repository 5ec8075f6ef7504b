"""The model in the package, on ten seconds of a recording whose other part it was trained on."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from sana_streaming import Editor, checkpoint
from sana_streaming.config import TaughtEdit
from sana_streaming.data.edits import EDITS
from sana_streaming.eval.codec import measure_codec
from sana_streaming.eval.edits import at_size, true_edit
from sana_streaming.io.readers import open_reader
from sana_streaming.metrics import psnr

CLIP = Path(__file__).parents[1] / "assets" / "webcam_talk_a.mp4"


@pytest.fixture(scope="module")
def editor() -> Editor:
    return Editor.load("nano", device="cpu")


@pytest.fixture(scope="module")
def frames() -> Tensor:
    """RGB uint8 [16, 256, 336, 3]"""
    reader = open_reader(CLIP)
    rgb = [torch.from_numpy(frame.rgb) for frame, _ in zip(reader.frames(), range(16), strict=False)]
    reader.close()
    return at_size(torch.stack(rgb).permute(0, 3, 1, 2), 256)


def test_weights_are_small_and_whole() -> None:
    folder = checkpoint.find("nano")
    assert sum(path.stat().st_size for path in folder.iterdir()) < 45e6
    config = checkpoint.load_config(folder)
    taught = {n: TaughtEdit(e.kind, e.example, e.strong, e.choices) for n, e in EDITS.items()}
    assert config.edits == taught


def test_parameters(editor: Editor) -> None:
    assert sum(p.numel() for p in editor.codec.parameters()) < 5e6
    assert sum(p.numel() for p in editor.dit.parameters()) < 19e6


def test_codec_carries_the_picture_and_keeps_stills_still(editor: Editor, frames: Tensor) -> None:
    result = measure_codec(editor.codec, {"clip": [frames[None]]})
    assert result["clip, dB"] > 35
    assert result["still, change of 255"] < 0.3


@pytest.mark.parametrize("name", ["night", "sepia", "thermal"])
def test_an_edit_comes_much_nearer_to_the_truth_than_the_source(editor: Editor, frames: Tensor, name: str) -> None:
    session = editor.session(EDITS[name].held_out[0])
    edited = torch.cat([session.step(chunk) for chunk in frames.split(session.chunk_frames)])
    truth = true_edit(name, frames[None])
    gain = psnr(edited[None], truth) - psnr(frames[None], truth)
    assert gain.item() > 6
