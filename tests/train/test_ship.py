"""A model folder made of the exports of both training stages."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from sana_streaming import checkpoint
from sana_streaming.codec import build_codec
from sana_streaming.config import PRESETS, ModelConfig, TaughtEdit, nano
from sana_streaming.model.dit import DiT
from sana_streaming.train import ship
from sana_streaming.train.loop import save_export

CPU = torch.device("cpu")


def tiny() -> ModelConfig:
    model = nano()
    return replace(
        model,
        codec=replace(model.codec, widths=(8, 8, 8), latent_channels=4),
        dit=replace(model.dit, latent_channels=4, dim=24, heads=2, depth=4, text_dim=6, ffn_dim=16),
    )


@pytest.fixture
def exports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an export of each stage; edits of two kinds."""
    torch.manual_seed(0)
    for name, module in (("codec", build_codec(tiny().codec)), ("dit", DiT(tiny().dit))):
        (tmp_path / name).mkdir()
        save_export(tmp_path / name, {f"{name}.{k}": v for k, v in module.state_dict().items()})
    edits = {
        "neon": SimpleNamespace(kind="look", example="trace it in neon", strong=True, choices=()),
        "add": SimpleNamespace(kind="object", example="add a ball", strong=False, choices=("ball", "toy car")),
    }
    monkeypatch.setattr(ship, "EDITS", edits)
    monkeypatch.setitem(PRESETS, "nano", tiny)
    return tmp_path


def run(codec: Path, flow: Path, out: Path) -> None:
    ship.main(["--codec", str(codec), "--flow", str(flow), "--out", str(out)])


def test_the_folder_loads_and_says_what_was_taught(exports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = exports / "model"
    run(exports / "codec", exports / "dit", out)
    assert capsys.readouterr().out.startswith(f"{out}: ")
    config, dit, _ = checkpoint.load(out, CPU, torch.float32)
    assert config.edits == {
        "neon": TaughtEdit("look", "trace it in neon", strong=True),
        "add": TaughtEdit("object", "add a ball", choices=("ball", "toy car")),
    }
    assert config.dit == tiny().dit
    assert next(dit.parameters()).isfinite().all()


def test_an_export_of_the_other_stage_is_refused(exports: Path) -> None:
    with pytest.raises(ValueError, match=r"expected weights named dit\.\*, found none"):
        run(exports / "codec", exports / "codec", exports / "model")
