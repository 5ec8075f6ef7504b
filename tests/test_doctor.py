"""What `doctor` says of machines that are not here, how it tries what is here, and its estimate of device memory."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from sana_streaming import checkpoint, cli
from sana_streaming.codec import build_codec
from sana_streaming.commands import doctor
from sana_streaming.commands.doctor import TRIALS, Finding, Machine, ask, judge
from sana_streaming.config import ModelConfig, nano, two_b
from sana_streaming.diffusion.flow import sampling
from sana_streaming.model.dit import DiT
from sana_streaming.ops import linear
from sana_streaming.state import nbytes
from sana_streaming.stream import memory
from sana_streaming.stream.road import edit_chunk, init_state

CPU, META = torch.device("cpu"), torch.device("meta")
GIGA = 10**9


def needed(model: str, size: tuple[int, int], precision: str, *parts: float) -> dict:
    names = ("weights", "state", "activations")
    return {"model": model, "size": size, "precision": precision} | dict(
        zip(names, (int(part * GIGA) for part in parts), strict=True)
    )


MODELS = {
    "cpu": "Some CPU",
    "cpu_precision": "bfloat16",
    "estimates": [
        needed("nano", (256, 256), "bfloat16", 0.045, 0.009, 0.017),
        needed("nano", (256, 256), "float32", 0.089, 0.016, 0.022),
        needed("2b", (1280, 704), "bfloat16", 6.8, 2.2, 3.7),
        needed("2b", (1280, 704), "float32", 13.5, 4.3, 7.3),
    ],
    "releases": {
        "2b": {
            "terms": ["transformer: hub/t, about 4.5 GB. Licence: Apache-2.0", "text encoder: hub/g. Licence: Gemma's"],
            "gigabytes": 14.7,
            "folder_gigabytes": 9.4,
            "encoder_gigabytes": 5.3,
            "here": False,
        }
    },
}
LAPTOP = Machine(
    python="3.11.9, Linux",
    memory=12 * GIGA,
    disk=100 * GIGA,
    driver=None,
    torch={"version": "2.13.0+cpu", "made_for": None, "gpus": [], "trouble": None},
    triton="ModuleNotFoundError: No module named 'triton'",
    av={"version": "18.1.0", "ffmpeg": "8.1", "h264": True},
    models=MODELS,
    nano={"device": "cpu", "precision": "bfloat16"},
    nano_on_cpu=None,
)
NO_TRITON = "ModuleNotFoundError: No module named 'triton'"


def with_gpu(total: float, free: float | None = None) -> Machine:
    """A machine whose GPU has so many gigabytes."""
    gpu = {"name": "Some GPU", "total": int(total * GIGA), "free": int((total if free is None else free) * GIGA)}
    return replace(
        LAPTOP,
        driver={"version": "580.1", "gpu": "Some GPU"},
        torch={"version": "2.13.0", "made_for": "CUDA 13.0", "gpus": [gpu], "trouble": None},
        triton={"version": "3.9.0"},
        nano={"device": "cuda", "precision": "bfloat16"},
    )


def said(machine: Machine, about: str) -> list[Finding]:
    return [finding for finding in judge(machine) if finding.about.startswith(about)]


def the(machine: Machine, about: str) -> Finding:
    (finding,) = said(machine, about)
    return finding


def problems(machine: Machine) -> list[str]:
    return [finding.about for finding in judge(machine) if finding.level == "problem"]


@pytest.fixture
def command(monkeypatch, capsys):
    """Run `doctor` on a machine; exit code and lines."""

    def run(machine: Machine, *options: str) -> tuple[int, list[str]]:
        monkeypatch.setattr(doctor, "look", lambda: machine)
        code = cli.main(["doctor", *options])
        out, err = capsys.readouterr()
        assert err == ""
        return code, out.splitlines()

    return run


EVERY_KIND = {
    "laptop": LAPTOP,
    "gpu": with_gpu(80),
    "nothing known": replace(
        LAPTOP, memory=None, disk=None, torch="boom", triton="boom", av="boom", models="boom", nano="boom"
    ),
    "no models": replace(LAPTOP, models="boom"),
    "nano broken": replace(with_gpu(8), nano="boom", nano_on_cpu="boom"),
    "sick driver": replace(LAPTOP, driver="it does not answer"),
}


@pytest.mark.parametrize("machine", EVERY_KIND.values(), ids=EVERY_KIND)
def test_every_line_has_a_level_and_both_forms_say_the_same(command, machine):
    code, lines = command(machine)
    assert all(line.split()[0] in ("ok", "note", "problem") for line in lines)
    code_json, report = command(machine, "--json")
    report = json.loads("\n".join(report))
    assert lines == [str(Finding(**finding)) for finding in report["findings"]]
    assert (code, code_json) == ((0, 0) if report["ready"] else (1, 1))
    assert report["machine"]["python"] == machine.python


def test_without_a_gpu_nano_runs(command):
    assert command(LAPTOP)[0] == 0
    assert problems(LAPTOP) == []
    assert the(LAPTOP, "GPU").level == "note"
    assert the(LAPTOP, "Triton").level == "note"
    assert the(LAPTOP, "nano at 256x256 in bfloat16").level == "ok"
    assert "needs a GPU with about 14.6 GB" in the(LAPTOP, "2b at 1280x704 in bfloat16").text


@pytest.mark.parametrize(
    ("gigabytes", "levels"),
    [(8, ["ok", "ok", "note", "note"]), (24, ["ok", "ok", "ok", "note"]), (80, ["ok", "ok", "ok", "ok"])],
)
def test_what_fits_a_gpu(gigabytes, levels):
    fits = [finding for finding in judge(with_gpu(gigabytes)) if " at " in finding.about]
    assert [finding.level for finding in fits] == levels
    assert problems(with_gpu(gigabytes)) == []


def test_memory_that_others_hold():
    finding = the(with_gpu(80, free=10), "2b at 1280x704 in bfloat16")
    assert finding.level == "note"
    assert "once other programs leave" in finding.text
    assert "does not fit the Some GPU" in the(with_gpu(8, free=8), "2b at 1280x704 in bfloat16").text


def test_the_text_encoder_needs_room_of_its_own():
    """6.8 + 2.2 + 5.3 + 0.6 GB for weights, state, encoder and libraries."""
    beside = "runs on the CPU"
    assert beside in the(with_gpu(14.8), "2b at 1280x704 in bfloat16").text
    assert beside not in the(with_gpu(15.0), "2b at 1280x704 in bfloat16").text


def test_the_gpu_with_most_room_is_named():
    machine = with_gpu(24, free=2)
    gpus = [*machine.gpus, machine.gpus[0] | {"free": 20 * GIGA}]
    machine = replace(machine, torch=machine.torch | {"gpus": gpus})
    assert "fits GPU 1 (--device cuda:1)" in the(machine, "2b at 1280x704 in bfloat16").text


def test_a_gpu_without_triton(command):
    machine = replace(with_gpu(24), triton=NO_TRITON, nano=NO_TRITON, nano_on_cpu=LAPTOP.nano)
    code, _ = command(machine)
    assert code == 0  # on the CPU
    assert problems(machine) == ["Triton", "nano"]
    assert "pip install triton" in the(machine, "Triton").text
    assert "--device cpu" in the(machine, "Triton").text


def test_without_pyav(command):
    machine = replace(LAPTOP, av="ModuleNotFoundError: No module named 'av'")
    assert command(machine)[0] == 1
    assert problems(machine) == ["PyAV"]
    assert "pip install" in the(machine, "PyAV").text


def test_ffmpeg_that_cannot_write_what_we_write(command):
    machine = replace(LAPTOP, av=LAPTOP.av | {"h264": False})
    assert command(machine)[0] == 1
    assert problems(machine) == ["PyAV"]


@pytest.mark.parametrize("nano_on_cpu", [None, "boom"])
def test_nano_that_fails(command, nano_on_cpu):
    machine = replace(LAPTOP, nano="ModuleNotFoundError: No module named 'onnxruntime'", nano_on_cpu=nano_on_cpu)
    assert command(machine)[0] == 1
    assert "onnxruntime" in said(machine, "nano")[0].text
    assert "pip install" in said(machine, "nano")[0].text


def test_broken_torch_is_told_once(command):
    reason = "ImportError: libcudart.so.13: cannot open shared object file"
    machine = replace(LAPTOP, torch=reason, models=reason, nano=reason)
    code, lines = command(machine)
    assert code == 1
    assert problems(machine) == ["PyTorch", "nano"]
    assert sum("libcudart" in line for line in lines) == 1


@pytest.mark.parametrize(
    ("change", "advice"),
    [
        ({"version": "2.10.1"}, "pip install --upgrade torch"),
        ({"trouble": "no kernel image is available"}, "pytorch.org"),
        ({"gpus": []}, "update the driver"),
        ({"gpus": [], "made_for": None}, "pytorch.org"),
    ],
)
def test_torch_that_does_not_go_with_the_gpu(change, advice):
    machine = with_gpu(24)
    (problem,) = [f for f in judge(replace(machine, torch=machine.torch | change)) if f.level == "problem"]
    assert advice in problem.text


def test_downloads_name_size_and_licence():
    *terms, size = said(LAPTOP, "download 2b")
    assert [finding.text for finding in terms] == MODELS["releases"]["2b"]["terms"]
    assert "14.7 GB to fetch" in size.text
    assert "make room" not in size.text
    assert "make room" in said(replace(LAPTOP, disk=20 * GIGA), "download 2b")[-1].text
    here = MODELS["releases"]["2b"] | {"here": True}
    assert the(replace(LAPTOP, models=MODELS | {"releases": {"2b": here}}), "download 2b").level == "ok"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("raise OSError('one\\n\\ntwo')", "two"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "its process ended by SIGSEGV"),
        ("import sys; sys.exit(3)", "its process ended with status 3"),
        ("print('answer: {}')", "NameError: name 'answer' is not defined"),
        ("import time; time.sleep(60)", "no answer within 0.5 s"),
    ],
)
def test_a_trial_that_fails_is_one_line(code, reason):
    assert ask(code, patience=0.5 if "sleep" in code else 60) == reason


def test_an_answer_among_chatter():
    assert ask("print('hello', end=''); answer = {'version': '1', 'none': None}") == {"version": "1", "none": None}


def tried(name: str, **known: str) -> dict:
    """The answer of a trial, here and now."""
    space: dict = {}
    code = TRIALS[name]
    for word, value in known.items():
        code = code.replace(word, value)
    exec(code, space)
    return json.loads(json.dumps(space["answer"]))


def test_trials_answer_what_is_asked_of_them(monkeypatch):
    estimated = []

    def estimate(config: ModelConfig, size: tuple[int, int], dtype: torch.dtype) -> memory.Estimate:
        estimated.append((config.name, size, dtype))
        return memory.Estimate(1, 2, 3)

    monkeypatch.setattr(memory, "estimate", estimate)
    for name, like in {"torch": LAPTOP.torch, "av": LAPTOP.av, "models": MODELS, "nano": LAPTOP.nano}.items():
        answer = tried(name, DEVICE="'cpu'")
        assert answer.keys() == like.keys(), name
        if name == "models":
            assert [item.keys() for item in answer["estimates"]] == [item.keys() for item in MODELS["estimates"]]
            assert answer["releases"]["2b"].keys() == MODELS["releases"]["2b"].keys()
            assert "Apache-2.0" in answer["releases"]["2b"]["terms"][0]
    assert [(name, size) for name, size, _ in estimated[::2]] == [("nano", (256, 256)), ("2b", (1280, 704))]


def test_look_tries_the_cpu_where_the_gpu_fails(monkeypatch):
    asked = []

    def fake(code: str) -> doctor.Answer:
        asked.append(code)
        if "Editor" in code:
            return LAPTOP.nano if "'cpu'" in code else NO_TRITON
        return next(getattr(with_gpu(24), name) for name, trial in TRIALS.items() if trial == code)

    monkeypatch.setattr(doctor, "ask", fake)
    monkeypatch.setattr(doctor, "find_driver", lambda: None)
    machine = doctor.look()
    assert (machine.nano, machine.nano_on_cpu) == (NO_TRITON, LAPTOP.nano)
    assert machine.models == MODELS
    assert len(asked) == len(TRIALS) + 1
    assert machine.ready


@pytest.mark.parametrize(
    ("status", "out", "expected"),
    [
        (0, "580.1, Some GPU\n580.1, Other GPU\n", {"version": "580.1", "gpu": "Some GPU"}),
        (9, "it cannot\ntalk to the driver", "it cannot talk to the driver"),
        (0, "", "no GPU listed"),
    ],
)
def test_the_driver_is_asked(monkeypatch, status, out, expected):
    done = SimpleNamespace(returncode=status, stdout=out, stderr="")
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/bin/" + name)
    monkeypatch.setattr(doctor, "_call", lambda command, patience: done)
    assert doctor.find_driver() == expected
    monkeypatch.setattr(doctor.shutil, "which", lambda name: None)
    assert doctor.find_driver() is None


def test_doctor_itself_loads_no_library():
    code = (
        "import sana_streaming.commands.doctor, sys; "
        "answer = [m for m in ('torch', 'numpy', 'av', 'triton') if m in sys.modules]"
    )
    assert ask(code) == []


TINY = replace(
    nano(),
    dit=replace(nano().dit, dim=80, depth=4, window=2),
    codec=replace(nano().codec, widths=(8, 12, 20)),
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_estimate_is_what_a_real_stream_takes(dtype, monkeypatch):
    """Same road, same operators, real tensors: not a byte differs."""
    monkeypatch.setattr(linear, "available", lambda: False)  # it is for GPUs
    dit, codec = DiT(TINY.dit), build_codec(TINY.codec)
    for module in (dit, codec):
        module.to(dtype).eval().requires_grad_(False)
    generator, steps = torch.Generator().manual_seed(0), sampling(TINY.sampler, 2)
    with torch.inference_mode(), memory.FusedOperators(), memory.Tally(CPU) as tally:
        text = dit.encode_text(torch.zeros(1, TINY.text.max_tokens, TINY.text.dim))
        state = init_state(codec, dit, 1, 48, 96)
        for _ in range(6):
            frames = torch.zeros(1, 4, 48, 96, 3, dtype=torch.uint8)
            edited, state = edit_chunk(codec, dit, frames, text, state, generator, steps)
            del edited, frames
    needed = memory.estimate(TINY, (96, 48), dtype)
    assert needed.state == nbytes(state)
    assert needed.state + needed.activations == tally.peak
    assert needed.total == needed.weights + tally.peak


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_weights_are_those_that_are_loaded(dtype):
    config, dit, codec = checkpoint.load(checkpoint.find("nano"), CPU, dtype)
    loaded = sum(x.nbytes for module in (dit, codec) for x in module.state_dict().values())
    assert memory.estimate(config, (32, 32), dtype).weights == loaded


def test_state_of_the_released_model():
    """What 3 gated-delta blocks and 1 of softmax remember: the last frame of each FFN, memory and normaliser, keys and
    values of 5 + 3 latents. The last chunk is remembered with its past, which shares the sink and nothing else."""
    shallow, deep = (replace(two_b(), dit=replace(two_b().dit, depth=depth)) for depth in (4, 8))
    cells, dim, heads, head_dim = 10 * 6, 2240, 20, 112
    gated_delta = 3 * 4 * heads * (head_dim * head_dim + head_dim)
    sink, recent, ffn = (2 * frames * cells * dim for frames in (2 * 5, 2 * 3, 4))
    states = [memory.estimate(config, (320, 192), torch.bfloat16).state for config in (shallow, deep)]
    assert states[1] - states[0] == sink + 2 * (gated_delta + recent + ffn)


def test_memory_grows_with_the_picture():
    one, two, three = (memory.estimate(TINY, (128 * n, 128), torch.float32) for n in (1, 2, 3))
    assert one.weights == two.weights == three.weights
    assert one.state < two.state < three.state
    assert three.activations - two.activations == pytest.approx(two.activations - one.activations, rel=0.02)
    assert two.activations > 1.8 * one.activations


def test_tally_counts_storages_once_and_forgets_them():
    with memory.Tally(META) as tally:
        a = torch.empty(10, device=META)
        view, same = a[2:], a.add_(1)
        torch.empty(1000)  # on another device
        b = a + 1
        assert tally.now == 80
        del b
        assert tally.now == 40
        del a, same
        assert tally.now == 40  # the view holds it all
        del view
        assert tally.now == 0
        assert tally.peak == 80
