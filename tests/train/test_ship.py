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


def run(codec: Path, flow: Path, out: Path, *more: str) -> None:
    ship.main(["--codec", str(codec), "--flow", str(flow), "--out", str(out), *more])


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


def test_a_mix_lies_between_before_and_after(exports: Path) -> None:
    """Of the transformer alone: the codec is that of --codec."""
    (exports / "later").mkdir()
    save_export(exports / "later", {f"dit.{k}": v for k, v in DiT(tiny().dit).state_dict().items()})
    run(exports / "codec", exports / "dit", exports / "old")
    run(exports / "codec", exports / "later", exports / "new", "--before", str(exports / "old"), "--share", "1")
    run(exports / "codec", exports / "later", exports / "mix", "--before", str(exports / "old"), "--share", "0.25")
    (_, old, codec), (_, new, _), (_, mix, same) = (
        checkpoint.load(exports / name, CPU, torch.float32) for name in ("old", "new", "mix")
    )
    for name, weight in mix.state_dict().items():
        between = 0.75 * old.state_dict()[name] + 0.25 * new.state_dict()[name]
        torch.testing.assert_close(weight, between, rtol=2e-3, atol=1e-4)
    assert any((new.state_dict()[name] - weight).abs().max() > 0.01 for name, weight in old.state_dict().items())
    assert all(torch.equal(codec.state_dict()[name], weight) for name, weight in same.state_dict().items())


def test_a_share_of_no_mix_is_refused(exports: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(exports / "codec", exports / "dit", exports / "model", "--share", "0.6")
    assert "--share 0.6: expected --before FOLDER" in capsys.readouterr().err
    assert not (exports / "model").exists()


@pytest.mark.parametrize(("share", "complaint"), [(1.5, "between 0 and 1, got 1.5"), (0.5, "others: a, b, c, ...")])
def test_a_mix_that_is_none_is_refused(share: float, complaint: str) -> None:
    one, other = {"a": torch.zeros(2), "b": torch.zeros(3)}, {"a": torch.zeros(3), "c": torch.zeros(3)}
    with pytest.raises(ValueError, match=complaint):
        ship.mixed(one, other, share)
