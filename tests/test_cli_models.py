"""`import`, `export` and `download` on the command line."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from sana_streaming import checkpoint, cli
from sana_streaming.checkpoint.names import PUBLISHED, scatter
from sana_streaming.config import PRESETS
from sana_streaming.model.dit import DiT

from .tiny_2b import tiny_2b


@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
    """Run a command in an empty folder, where the released model is a small one; exit code, stdout, lines of stderr."""
    monkeypatch.setitem(PRESETS, "2b", tiny_2b)
    monkeypatch.chdir(tmp_path)

    def run(*words):
        code = cli.main(list(words))
        out, err = capsys.readouterr()
        return code, out, err.splitlines()

    return run


@pytest.fixture
def released(command):
    """A file as it was published: of the bidirectional variant, whose q and k have no taps in softmax blocks."""
    weights = scatter(DiT(PRESETS["2b"]().dit).state_dict(), PUBLISHED)
    for name in [f"blocks.{i}.attn.{part}.weight" for i in range(3) for part in "qk"]:
        weights[name] = weights[name][..., None]
    torch.save({"state_dict": weights}, "dit.pth")
    return weights


def test_import_says_what_is_missing(command, released, tmp_path):
    code, out, err = command("import", "dit.pth", "model")
    assert (code, out) == (0, "model: 2b-bidirectional\n")
    assert [line.partition(",")[0] for line in err] == ["warning: no --yaml", "warning: no --vae"]
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["config.json", "dit.safetensors"]


def test_import_takes_the_template(command, released, tmp_path):
    (tmp_path / "model.yaml").write_text("text_encoder: {chi_prompt: [One, two]}")
    code, _, err = command("import", "dit.pth", "model", "--yaml", "model.yaml", "--variant", "bidirectional")
    assert (code, len(err)) == (0, 1)
    assert json.loads((tmp_path / "model" / "config.json").read_text())["text"]["template"] == "One\ntwo"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["import", "dit.pth"], "OUT"),
        (["import", "none.pth", "model"], "expected a file of published weights, got none.pth"),
        (["import", "dit.pth", "model", "--variant", "live"], "--variant"),
        (["import", "dit.pth", "model", "--variant", "streaming"], "'blocks.3.attn.q.weight' has shape (24, 24)"),
        (["import", "dit.pth", "model", "--decode", "causal"], "--decode goes with --vae"),
        (["import", "dit.pth", "model", "--vae", "none"], "expected config.json"),
        (["import", "dit.pth", "model", "--yaml", "dit.pth"], "expected text_encoder.chi_prompt"),
        (["import", "dit.pth", "."], "a new or an empty folder"),
        (["import", ".", "model"], "there is no config.json"),
        (["import", ".", "model", "--yaml", "x"], "--yaml goes with a published file"),
        (["export", "nono", "out"], "unknown model 'nono'"),
        (["export", "nano", "."], "a new or an empty folder"),
        (["download"], "NAME"),
        (["download", "3b"], "unknown release '3b'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_trouble_with_models_is_one_line_and_leaves_nothing(command, released, tmp_path, words, expected):
    code, out, err = command(*words)
    assert (code, out) == (2, "")
    assert len(err) == 1
    assert err[0].startswith("error: ")
    assert expected in err[0]
    assert [p.name for p in tmp_path.iterdir()] == ["dit.pth"]


def test_export_and_back(command, tmp_path):
    assert command("export", "nano", "out") == (0, "out: nano, in the style of diffusers\n", [])
    assert command("import", "out", "back") == (0, "back: nano\n", [])
    for name in ("dit", "codec"):
        before = load_file(checkpoint.find("nano") / f"{name}.safetensors")
        after = load_file(tmp_path / "back" / f"{name}.safetensors")
        assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize("name", ["yaml", "transformers", "huggingface_hub"])
def test_a_library_that_is_not_there_is_one_line(command, released, monkeypatch, name):
    def missing(args):
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    monkeypatch.setattr("sana_streaming.commands.import_model.run", missing)
    code, _, err = command("import", "dit.pth", "model")
    assert code == 1
    assert len(err) == 1
    assert err[0].startswith(f"error: {name} is missing; install it with: pip install 'sana-streaming[")


@pytest.mark.parametrize("name", ["download", "import", "export"])
def test_help_on_models_does_not_load_heavy_libraries(name):
    code = (
        f"import sys; from sana_streaming.cli import main; main(['{name}', '--help']); "
        "sys.exit(bool({'torch', 'numpy', 'huggingface_hub', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).returncode == 0
