"""How live is live: a server as people start it, clients that send a clip by WebRTC, and what comes of it.

    python benchmarks/live.py                               # one client: latency and its parts
    python benchmarks/live.py --clients 4                   # how many have room, and what becomes of them
    python benchmarks/live.py --seconds 600 --warm-up 60    # does memory grow?

Server and clients are processes of their own on this machine, and share its cores. Latency is from glass to glass: from
the moment that a client takes a frame to the moment that it has the edited one decoded, known by a number drawn below
the picture. Its parts within the server are those of /metrics. Ends by itself whatever happens; the exit status is 1 if
a client had an error or saw nothing.
"""

import argparse
import json
import multiprocessing
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))  # also where this file is loaded by its path

from live_clients import TRANSPORTS, Plan, run
from live_report import Measured, Sample, summary, table

from sana_streaming.bench import machine

START_SECONDS = 180.0  # for the server to load and warm its model
END_SECONDS = 10.0  # for a process to end before it is made to
EVERY = 10.0  # seconds between two looks at the server's memory, at most


# Processes


@contextmanager
def serving(command: Sequence[str], seconds: float = START_SECONDS) -> Iterator[str]:
    """The address that a server prints once it is warm; it is ended when this is left. ValueError if it says none."""
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"  # files, for a pipe that nobody reads fills up
        with out.open("w") as o, err.open("w") as e:
            server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=o, stderr=e)
        try:
            limit = time.monotonic() + seconds
            while "\n" not in (told := out.read_text()):
                if server.poll() is not None or time.monotonic() > limit:
                    said = " ".join(err.read_text().strip().splitlines()[-1:]) or "it says nothing"
                    wrong = f"is not ready after {seconds:g} s" if server.poll() is None else "did not start"
                    raise ValueError(f"the server {wrong}: {said}")
                time.sleep(0.05)
            yield told.split()[0]
        finally:
            server.terminate()
            try:
                server.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def measure(plan: Plan) -> Measured:
    """ValueError if the clients fail as a whole."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=run, args=(plan, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        limit = time.monotonic() + plan.longest
        wait_for(ours, limit - plan.seconds)
        begin, samples = time.monotonic(), [sample(plan.url, 0.0)]
        every = min(EVERY, plan.seconds / 6)
        while not ours.poll(min(every, max(0.0, begin + plan.seconds - time.monotonic())) + 0.01):
            passed = time.monotonic() - begin
            if passed > plan.seconds:
                break
            samples.append(sample(plan.url, passed))
            left = f"{max(0.0, plan.seconds - passed):.0f} s left"
            tell(f"{passed:6.0f} s of {plan.seconds:g}, {left}; server {samples[-1].memory_mb:.0f} MB")
        samples.append(sample(plan.url, time.monotonic() - begin))
        return Measured(wait_for(ours, limit), samples)
    finally:
        process.join(END_SECONDS if sys.exc_info()[0] is None else 0)
        process.kill()
        process.join()


def wait_for(pipe: Any, limit: float) -> Any:
    """What comes down the pipe. ValueError if nothing does in time, or if it is the text of an error."""
    try:
        if not pipe.poll(max(0.0, limit - time.monotonic())):
            raise ValueError("the clients do not answer")
        told = pipe.recv()
    except EOFError:
        raise ValueError("the clients' process ended early") from None
    if isinstance(told, str) and told != "measuring":
        raise ValueError(told)
    return told


def sample(url: str, seconds: float) -> Sample:
    with urllib.request.urlopen(url + "metrics", timeout=END_SECONDS) as answer:
        lines = [line for line in answer.read().decode().splitlines() if not line.startswith("#")]
    return Sample(seconds, {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)})


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--fps", type=float, default=16.0)
    parser.add_argument("--size", default="256x256", help="WIDTHxHEIGHT of the source")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--warm-up", type=float, default=10.0, help="seconds before, that are not measured")
    parser.add_argument("--steps", type=int, help="of denoising (default: the model's own)")
    parser.add_argument("--transport", choices=TRANSPORTS, default="webrtc")
    parser.add_argument("--prompt", default="turn it into a watercolor painting")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write all numbers there")
    options = parser.parse_args(argv)
    try:
        width, height = (int(side) for side in options.size.split("x"))
    except ValueError:
        parser.error(f"--size: expected WIDTHxHEIGHT, got {options.size}")
    options.size = width, height
    if min(options.clients, options.fps, options.seconds, width, height) <= 0 or options.warm_up < 0:
        parser.error("--clients, --fps, --seconds and --size: expected numbers above 0")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    options = parsed(argv)
    command = [sys.executable, "-m", "sana_streaming", "serve", "--model", options.model, "--port", "0"]
    names = ("clients", "transport", "fps", "size", "warm_up", "seconds", "prompt", "steps", "seed")
    tell(f"starting a server with {options.model}")
    try:
        with serving([*command, "--max-sessions", str(max(8, options.clients))]) as url:
            plan = Plan(url, **{name: getattr(options, name) for name in names})
            tell(f"connecting {plan.clients} client(s), then {plan.warm_up:g} s to warm up")
            measured = measure(plan)
    except (ValueError, OSError) as failure:
        tell(f"error: {failure}")
        return 1
    told, where = summary(plan, measured), machine.describe(torch.device("cpu"))
    print(*table(told, where), sep="\n", flush=True)
    if options.json:
        known = json.loads(json.dumps({"machine": where, **told}), parse_constant=lambda _: None)
        options.json.write_text(json.dumps(known, indent=2) + "\n")
    return int(any(client["errors"] or not (client["waiting"] or client["fps_out"]) for client in told["clients"]))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the processes are ended too
    sys.exit(main())
