"""`sana-streaming doctor`: can this machine edit video, which models fit it, and what would a download fetch?

Every library is tried in a process of its own: one that is broken, hangs or takes its process down is one line here.
Nothing is downloaded, and no network is asked.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

Answer = dict[str, Any] | str  # of a trial, or in a line why there is none

TRIALS = {  # each leaves its answer in `answer`
    "torch": """
import torch
gpus, trouble = [], None
try:
    for i in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(i)
        torch.ones(8, device=f"cuda:{i}").sum().item()
        gpus.append({"name": torch.cuda.get_device_name(i), "free": free, "total": total})
except Exception as error:
    trouble = " ".join(str(error).split())
made_for = {"CUDA": torch.version.cuda, "ROCm": torch.version.hip}
made_for = next((f"{name} {version}" for name, version in made_for.items() if version), None)
answer = {"version": torch.__version__, "made_for": made_for, "gpus": gpus, "trouble": trouble}
""",
    "triton": """
import triton
answer = {"version": triton.__version__}
""",
    "av": """
import av
answer = {"version": av.__version__, "ffmpeg": av.ffmpeg_version_info, "h264": "libx264" in av.codecs_available}
""",
    "models": """
from dataclasses import asdict
import torch
from sana_streaming import checkpoint, download
from sana_streaming.bench.machine import cpu_name
from sana_streaming.stream.memory import estimate
from sana_streaming.config import PRESETS
from sana_streaming.stream.editor import pick_dtype
estimates = []
for name, size in (("nano", (256, 256)), ("2b", (1280, 704))):
    for dtype in (torch.bfloat16, torch.float32):
        needed = estimate(PRESETS[name](), size, dtype)
        precision = str(dtype).removeprefix("torch.")
        estimates.append({"model": name, "size": size, "precision": precision, **asdict(needed)})
releases = {}
for name in download.RELEASES:
    parts = download.parts_of(name)
    releases[name] = {
        "terms": download.terms(parts),
        "gigabytes": sum(part.gigabytes for part in parts),
        "folder_gigabytes": sum(part.gigabytes for part in parts[:2]),
        "encoder_gigabytes": parts[2].gigabytes,
        "here": (checkpoint.MODELS / name / "config.json").is_file(),
    }
cpu_precision = str(pick_dtype(torch.device("cpu"))).removeprefix("torch.")
answer = {"cpu": cpu_name(), "cpu_precision": cpu_precision, "estimates": estimates, "releases": releases}
""",
    "nano": """
import torch
from sana_streaming.stream.editor import Editor
editor = Editor.load("nano", DEVICE)
session = editor.session("turn the scene into a watercolor")
session.step(torch.zeros(session.chunk_frames, 32, 32, 3, dtype=torch.uint8))
precision = str(next(editor.dit.parameters()).dtype).removeprefix("torch.")
answer = {"device": editor.device.type, "precision": precision}
""",
}
PATIENCE = 180  # seconds that a trial may take
MARK = "answer: "
MARGIN, RESERVE = 1.1, 0.6e9  # on an estimate: gaps and workspaces; bytes of the libraries themselves
OLDEST_TORCH = (2, 11)
GET_TORCH = "see https://pytorch.org/get-started"


@dataclass(frozen=True)
class Machine:
    """What was found. Sizes in bytes; None where the system does not tell."""

    python: str
    memory: int | None  # that programs can still have
    disk: int | None  # free where downloads go
    driver: Answer | None  # of NVIDIA; None if there is none
    torch: Answer
    triton: Answer
    av: Answer
    models: Answer  # estimates and releases
    nano: Answer  # a chunk edited where the model runs by default
    nano_on_cpu: Answer | None  # the same, tried if that failed on a GPU

    @property
    def gpus(self) -> list[dict[str, Any]]:
        return self.torch["gpus"] if isinstance(self.torch, dict) else []

    @property
    def ready(self) -> bool:
        """Whether nano can edit a video file."""
        files = isinstance(self.av, dict) and self.av["h264"]
        return files and (isinstance(self.nano, dict) or isinstance(self.nano_on_cpu, dict))


@dataclass(frozen=True)
class Finding:
    level: str  # "ok", "note" or "problem", which says what to do
    about: str
    text: str

    def __str__(self) -> str:
        return f"{self.level:8}{self.about}: {self.text}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print all that was found, for programs")


def run(args: argparse.Namespace) -> int:
    machine = look()
    findings = list(judge(machine))
    if args.json:
        report = {"ready": machine.ready, "findings": list(map(asdict, findings)), "machine": asdict(machine)}
        print(json.dumps(report, indent=2))
    else:
        print("\n".join(map(str, findings)))
    return 0 if machine.ready else 1


def look() -> Machine:
    """Look at this machine. Some seconds."""
    torch = ask(TRIALS["torch"])  # alone, so that no other trial is in the GPU's memory
    others = [TRIALS[name] for name in ("triton", "av", "models")] + [TRIALS["nano"].replace("DEVICE", "None")]
    with ThreadPoolExecutor() as pool:
        triton, av, models, nano = pool.map(ask, others)
    on_cpu = None
    if isinstance(nano, str) and isinstance(torch, dict) and torch["gpus"]:
        on_cpu = ask(TRIALS["nano"].replace("DEVICE", "'cpu'"))
    return Machine(
        python=f"{platform.python_version()}, {platform.platform()}",
        memory=free_memory(),
        disk=free_disk(),
        driver=find_driver(),
        torch=torch,
        triton=triton,
        av=av,
        models=models,
        nano=nano,
        nano_on_cpu=on_cpu,
    )


def ask(code: str, patience: float = PATIENCE) -> Answer:
    """Run a trial in a process of its own."""
    code = f"import json, sys\nsys.path[:] = {sys.path!r}\n{code}\nprint('\\n{MARK}' + json.dumps(answer))"
    try:
        done = _call([sys.executable, "-P", "-c", code], patience)
    except subprocess.TimeoutExpired:
        return f"no answer within {patience:g} s"
    except OSError as error:
        return f"cannot be tried: {error}"
    for line in done.stdout.splitlines():
        if line.startswith(MARK) and done.returncode == 0:
            return json.loads(line.removeprefix(MARK))
    if done.returncode < 0:
        return f"its process ended by {_signal_name(-done.returncode)}"
    said = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    return said[-1] if said else f"its process ended with status {done.returncode}"


def find_driver() -> Answer | None:
    """Version of NVIDIA's driver and the name of the first GPU."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        done = _call([program, "--query-gpu=driver_version,name", "--format=csv,noheader"], 30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return " ".join(str(error).split())
    version, comma, name = done.stdout.partition("\n")[0].partition(", ")
    if done.returncode or not comma:
        return " ".join((done.stdout + done.stderr).split()) or "no GPU listed"
    return {"version": version, "gpu": name}


def free_memory() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return None
    except (OSError, ValueError):
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # all there is: better than nothing
    except (AttributeError, OSError, ValueError):
        return None


def free_disk() -> int | None:
    try:
        return shutil.disk_usage(Path.home()).free
    except (OSError, RuntimeError):
        return None


def judge(machine: Machine) -> Iterator[Finding]:
    """All that there is to say of a machine, in order."""
    models = machine.models if isinstance(machine.models, dict) else None
    yield Finding("ok", "Python", machine.python)
    yield from _judge_cpu(machine, models)
    yield from _judge_gpu(machine)
    yield from _judge_libraries(machine)
    yield _judge_nano(machine)
    if models is None:
        why = machine.models if isinstance(machine.torch, dict) else "it takes PyTorch to tell"
        yield Finding("note", "models", f"what fits and what a download fetches is not known: {why}")
        return
    for needed in models["estimates"]:
        yield _judge_fit(machine, needed, models)
    for name, release in models["releases"].items():
        yield from _judge_download(machine, name, release)


def _judge_cpu(machine: Machine, models: dict[str, Any] | None) -> Iterator[Finding]:
    if models is None:
        yield Finding("note", "CPU", f"{platform.processor() or platform.machine()}; its precision is not known")
    elif models["cpu_precision"] == "bfloat16":
        yield Finding("ok", "CPU", f"{models['cpu']}; models run on it in bfloat16")
    else:
        yield Finding("note", "CPU", f"{models['cpu']}; without bfloat16, so that models run on it in float32, slower")
    for about, size in (("free memory", machine.memory), ("free disk", machine.disk)):
        if size is None:
            yield Finding("note", about, "not known")
        else:
            yield Finding("ok" if size > 2e9 else "note", about, _gigabytes(size))


def _judge_gpu(machine: Machine) -> Iterator[Finding]:
    driver, torch = machine.driver, machine.torch
    if isinstance(driver, dict):
        yield Finding("ok", "driver", f"NVIDIA {driver['version']}")
    elif driver is not None:
        yield Finding("problem", "driver", f"{driver}; reinstall NVIDIA's driver and restart the machine")
    if isinstance(torch, str):
        return
    for index, gpu in enumerate(machine.gpus):
        sizes = f"{_gigabytes(gpu['total'])}, {_gigabytes(gpu['free'])} of it free; models run on it in bfloat16"
        yield Finding("ok", f"GPU {index}", f"{gpu['name']}, {sizes}")
    if torch["trouble"]:
        yield Finding(
            "problem", "GPU", f"{torch['trouble']}; update the driver, or install another PyTorch: {GET_TORCH}"
        )
    elif machine.gpus:
        return
    elif not isinstance(driver, dict):
        yield Finding("note", "GPU", "none that PyTorch can use; models run on the CPU")
    elif torch["made_for"] is None:
        text = f"this PyTorch is not made for the {driver['gpu']} that is here; install one that is: {GET_TORCH}"
        yield Finding("problem", "GPU", text)
    else:
        text = f"PyTorch for {torch['made_for']} cannot use the {driver['gpu']}"
        yield Finding("problem", "GPU", f"{text}; update the driver, or unset CUDA_VISIBLE_DEVICES if it hides the GPU")


def _judge_libraries(machine: Machine) -> Iterator[Finding]:
    torch, triton, av = machine.torch, machine.triton, machine.av
    if isinstance(torch, str):
        yield Finding("problem", "PyTorch", f"{torch}; install it anew: pip install --force-reinstall torch")
    else:
        built = f"{torch['version']}, for {torch['made_for'] or 'CPUs'}"
        if _version(torch["version"]) < OLDEST_TORCH:
            oldest = ".".join(map(str, OLDEST_TORCH))
            yield Finding("problem", "PyTorch", f"{built}; expected {oldest} or later: pip install --upgrade torch")
        else:
            yield Finding("ok", "PyTorch", built)
    if isinstance(triton, dict):
        yield Finding("ok", "Triton", triton["version"])
    elif machine.gpus:
        text = f"{triton}; models need it on a GPU: pip install triton, and until then add --device cpu"
        yield Finding("problem", "Triton", text)
    else:
        yield Finding("note", "Triton", "cannot be loaded; only needed on a GPU")
    if isinstance(av, str):
        yield Finding("problem", "PyAV", f"{av}; video cannot be read or written: pip install --force-reinstall av")
    elif not av["h264"]:
        text = f"{av['version']} with FFmpeg {av['ffmpeg']} cannot write H.264"
        yield Finding(
            "problem", "PyAV", f"{text}; take the one that brings its own FFmpeg: pip install --force-reinstall av"
        )
    else:
        yield Finding("ok", "PyAV", f"{av['version']}, FFmpeg {av['ffmpeg']}")


def _judge_nano(machine: Machine) -> Finding:
    for trial in (machine.nano, machine.nano_on_cpu):
        if not isinstance(trial, dict):
            continue
        where = f"edits on {'the GPU' if trial['device'] == 'cuda' else 'the CPU'} in {trial['precision']}"
        if trial is machine.nano:
            return Finding("ok", "nano", where)
        return Finding("problem", "nano", f"fails on the GPU: {machine.nano}; it {where}: add --device cpu")
    if isinstance(machine.torch, str):
        return Finding("problem", "nano", "cannot run without PyTorch; install that first")
    text = f"cannot run: {machine.nano}; install the package anew: pip install --force-reinstall sana-streaming"
    return Finding("problem", "nano", text)


def _judge_fit(machine: Machine, needed: dict[str, Any], models: dict[str, Any]) -> Finding:
    """Whether a model fits in a precision. 2b runs on a GPU, nano without one on the CPU."""
    name, (width, height) = needed["model"], needed["size"]
    about = f"{name} at {width}x{height} in {needed['precision']}"
    parts = {key: _gigabytes(needed[key]) for key in ("weights", "state", "activations")}
    total = sum(needed[key] for key in parts) * MARGIN + RESERVE
    sizes = (
        f"about {_gigabytes(total)} ({', '.join(f'{key} {size}' for key, size in parts.items())}, the rest libraries)"
    )
    if not machine.gpus:
        if name != "nano":
            return Finding("note", about, f"needs a GPU with {sizes}")
        if machine.memory is None or total <= machine.memory:
            return Finding("ok", about, f"fits, {sizes}")
        return Finding("note", about, f"does not fit, {sizes}; close other programs")
    index, gpu = max(enumerate(machine.gpus), key=lambda numbered: numbered[1]["free"])
    if total > gpu["total"]:
        return Finding("note", about, f"does not fit the {gpu['name']}, {sizes}")
    if total > gpu["free"]:
        return Finding("note", about, f"fits once other programs leave the {gpu['name']}, {sizes}")
    fits = f"fits GPU {index}, {sizes}" if index == 0 else f"fits GPU {index} (--device cuda:{index}), {sizes}"
    encoder = models["releases"]["2b"]["encoder_gigabytes"] * 1e9 if name == "2b" else 0
    if needed["weights"] + needed["state"] + encoder + RESERVE > gpu["free"]:
        fits += "; the text encoder does not fit beside it and runs on the CPU"
    return Finding("ok", about, fits)


def _judge_download(machine: Machine, name: str, release: dict[str, Any]) -> Iterator[Finding]:
    about = f"download {name}"
    if release["here"]:
        yield Finding("ok", about, "was done")
        return
    for line in release["terms"]:
        yield Finding("note", about, line)
    room = 1e9 * (release["gigabytes"] + release["folder_gigabytes"])
    sizes = f"{release['gigabytes']:.1f} GB to fetch, up to {_gigabytes(room)} of disk with the model folder made of it"
    if machine.disk is not None and room > machine.disk:
        sizes += f"; only {_gigabytes(machine.disk)} are free: make room first"
    yield Finding("note", about, sizes)


def _call(command: list[str], patience: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        timeout=patience,
        check=False,
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _version(text: str) -> tuple[int, ...]:
    """The first two numbers of a version: 2.13.0+cpu -> (2, 13)"""
    numbers = text.split("+")[0].split(".")[:2]
    return tuple(int("".join(filter(str.isdigit, number)) or 0) for number in numbers)


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e9:.2f} GB"
