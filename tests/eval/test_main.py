"""The command from end to end, with a model that does nothing on made-up material."""

import json
from pathlib import Path

import pytest

from sana_streaming.data.bank import Bank
from sana_streaming.eval import __main__ as command
from sana_streaming.eval.features import Extractor, colours_and_edges

from .conftest import editor

TINY = ["--size", "48", "--frames", "8", "--rendered", "1", "--real", "1", "--scenes", "1", "--chunks", "8"]
TINY += ["--device", "cpu", "--out"]


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch, bank: Bank) -> None:
    monkeypatch.setattr(command.Editor, "load", lambda *_: editor())
    monkeypatch.setattr(command, "load_bank", lambda *_, **__: bank)
    monkeypatch.setattr(command, "load_extractor", lambda _: Extractor("plain", colours_and_edges))


def test_numbers_tables_and_sheets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command.main(["pack", *TINY, str(tmp_path), "--edits", "unchanged", "sepia", "snow", "remove", "add"])
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"numbers.json", "tables.md", "look_1.jpg", "weather_1.jpg", "object_1.jpg"}
    record = json.loads((tmp_path / "numbers.json").read_text())
    psnr = {(s["edit"], s["material"], s["video"]): s["mean"] for s in record["scores"] if s["metric"] == "psnr"}
    assert psnr["unchanged", "rendered", "2 steps"] > 60
    for name in ("sepia", "snow", "add"):
        assert psnr[name, "rendered", "4 steps"] == pytest.approx(psnr[name, "rendered", "unedited"], abs=0.05)
        assert psnr[name, "rendered", "codec"] > 60
    assert ("sepia", "clips", "2 steps") in psnr
    assert record["settings"]["size"] == 48
    assert len(record["long_streams"]) == 16
    text = (tmp_path / "tables.md").read_text()
    assert "| looks on rendered clips: mean | ≥ 28 dB |" in text
    shown = capsys.readouterr()
    assert text.startswith(shown.out.rstrip("\n"))
    assert "s left" in shown.err


def test_a_mistake_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="frames: expected whole chunks, 8 or 12, got 10"):
        command.main(["pack", *TINY, str(tmp_path), "--frames", "10"])


def test_quick_is_less_and_a_number_given_wins() -> None:
    quick, full = (command.parse(["pack", "--out", "x", *more]) for more in (["--quick", "--chunks", "9"], []))
    assert (quick.scenes, quick.chunks) == (8, 9)
    assert (full.scenes, full.chunks) == (24, 240)
