"""The command line. Heavy libraries are loaded once the arguments are known to be good."""

import argparse
import math
import os
import shutil
import signal
import sys
import textwrap
import time
import warnings
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import closing, contextmanager
from importlib import import_module
from itertools import pairwise
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import sana_streaming

if TYPE_CHECKING:
    from sana_streaming.config import ModelConfig

# Name -> (module with add_arguments(parser) and run(args) -> exit code, what it does).
COMMANDS = {
    "edit": ("sana_streaming.cli", "edit a video file by instruction"),
    "serve": ("sana_streaming.commands.serve", "edit live: open a page that shows a camera edited as you type"),
    "bench": ("sana_streaming.bench.command", "measure the speed of this machine"),
    "download": ("sana_streaming.commands.download", "fetch a released model"),
    "import": ("sana_streaming.commands.import_model", "make a model folder of published files"),
    "export": ("sana_streaming.commands.export_model", "write a model folder in the style of diffusers"),
    "replay": ("sana_streaming.commands.replay", "make the frames of a recording again"),
    "doctor": ("sana_streaming.commands.doctor", "say what runs on this machine and what a download would fetch"),
}
LIBRARIES = {  # that some installations do without, and how they are installed
    "av": "av",
    "tqdm": "tqdm",
    "huggingface_hub": "'sana-streaming[hub]'",
    "yaml": "'sana-streaming[hub]'",
    "transformers": "'sana-streaming[2b]'",
    **dict.fromkeys(
        ("aiortc", "fastapi", "PIL", "prometheus_client", "uvicorn", "websockets"), "'sana-streaming[serve]'"
    ),
}
BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130
SPINS = 4000  # of a thread of torch's that waits for the others, before it sleeps: docs/performance.md
HEADINGS = {  # of the kinds of edits, in the order of --list-edits
    "look": "whole-frame looks",
    "weather": "weather",
    "object": "objects",
    "background": "backgrounds",
    "both": "two at once",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code. What the user got wrong ends as one line on stderr and code 2."""
    argv = sys.argv[1:] if argv is None else list(argv)
    wait_briefly(os.environ)
    parser = Parser(prog="sana-streaming", description="Live video editing by instruction.")
    parser.add_argument("--version", action="version", version=f"sana-streaming {sana_streaming.__version__}")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    chosen = next((word for word in argv if not word.startswith("-")), None)
    try:
        for name, (module, purpose) in COMMANDS.items():
            subparser = subparsers.add_parser(name, help=purpose, description=purpose.capitalize() + ".")
            if name == chosen:
                import_module(module).add_arguments(subparser)
        args = parser.parse_args(argv)
        with one_line_warnings():
            return import_module(COMMANDS[args.command][0]).run(args)
    except SystemExit:  # --help and --version
        return 0
    except KeyboardInterrupt:
        return interrupted()
    except ValueError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return BAD_INPUT
    except ModuleNotFoundError as error:
        if error.name not in LIBRARIES:
            raise
        print(f"error: {error.name} is missing; install it with: pip install {LIBRARIES[error.name]}", file=sys.stderr)
        return FAILED
    except ImportError as error:
        if not isinstance(error.__cause__, KeyboardInterrupt):  # which came while a compiled module was loading
            raise
        return interrupted()
    except (OSError, MemoryError, FloatingPointError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return FAILED


def wait_briefly(environment: MutableMapping[str, str]) -> None:
    """Let threads that wait for each other soon give their core away, unless the user chose how they wait.

    GNU's OpenMP, which torch uses on Linux, spins for milliseconds by default. On a core that another program wants as
    well that is time taken from the very thread that is waited for: `edit` was several times slower. To be called
    before torch is loaded.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & environment.keys():
        environment["GOMP_SPINCOUNT"] = str(SPINS)


def interrupted() -> int:
    print("interrupted: nothing was kept", file=sys.stderr)
    return INTERRUPTED


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as everything here does."""

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see {self.prog} --help")


class InsteadOf(argparse.Action):
    """A flag that makes other arguments needless, wherever it stands among them."""

    def __init__(self, option_strings: Sequence[str], dest: str, others: Sequence[argparse.Action], **rest: Any):
        super().__init__(option_strings, dest, nargs=0, default=False, **rest)
        self.others = others

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: Any) -> None:
        setattr(namespace, self.dest, True)
        for action in self.others:
            action.required = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `edit`."""
    parser.usage = "%(prog)s IN OUT --prompt TEXT [options]\n       %(prog)s --list-edits [--model NAME]"
    source = parser.add_argument("input", metavar="IN", help="the video to edit")
    edited = parser.add_argument("output", metavar="OUT", help="where the result goes: .mp4, .mov or .mkv")
    prompt = parser.add_argument(
        "--prompt",
        metavar="TEXT",
        action="append",
        required=True,
        help="the instruction; T=TEXT changes it T seconds after the beginning; may be given many times",
    )
    parser.add_argument(
        "--model", default="nano", metavar="NAME", help="a shipped model or a folder (default: %(default)s)"
    )
    parser.add_argument("--steps", type=whole(1), metavar="N", help="denoising steps (default: the model's)")
    parser.add_argument(
        "--seed",
        type=whole(0, 2**64 - 1),
        default=0,
        metavar="N",
        help="of the noise; the same seed gives the same result",
    )
    parser.add_argument(
        "--guidance",
        type=at_least_1,
        metavar="N",
        help="above 1, and at twice the work: how far to lead away from the negative prompt (default: the model's)",
    )
    parser.add_argument(
        "--negative-prompt", metavar="TEXT", help="what the result should not look like; needs guidance above 1"
    )
    parser.add_argument(
        "--size",
        type=whole(32),
        metavar="PIXELS",
        help="short side that is edited (default: the model's own size, else 256 on a CPU, 512 on a GPU)",
    )
    parser.add_argument(
        "--fit",
        choices=("letterbox", "crop"),
        default="letterbox",
        help="onto the model's grid: all of the picture, in bars that are cut off again, or its middle "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--rate",
        type=frame_rate,
        metavar="N",
        help="frames per second that are edited at most, or 'source' for every frame (default: the model's); "
        "the result keeps the frames and times of the source",
    )
    parser.add_argument(
        "--on-cut",
        choices=("ignore", "anchor", "reset"),
        help="where the source shows another scene: take it as the new sink, or forget what came before "
        "(default: ignore)",
    )
    parser.add_argument("--keep-size", action="store_true", help="scale the result back to the size of the source")
    parser.add_argument("--compare", action="store_true", help="show source and edited side by side")
    parser.add_argument(
        "--start", type=seconds, default=0.0, metavar="T", help="seconds of the source to leave out at the beginning"
    )
    parser.add_argument("--duration", type=positive_seconds, metavar="T", help="seconds to edit (default: to the end)")
    parser.add_argument("--device", metavar="NAME", help="cpu or cuda (default: a GPU if there is one)")
    parser.add_argument(
        "--list-edits",
        action=InsteadOf,
        others=(source, edited, prompt),
        help="edit nothing: print what the model was taught, each edit with an instruction that asks for it",
    )


def run(args: argparse.Namespace) -> int:
    """Edit a file, or say which edits there are."""
    if args.list_edits:
        from sana_streaming import checkpoint

        config = checkpoint.load_config(checkpoint.find(args.model))
        say("\n".join(edit_lines(config, shutil.get_terminal_size().columns)))
        return 0
    prompt, *changes = prompts_of(args.prompt)
    from sana_streaming.stream.run import edit_file, open_source

    with closing(open_source(args.input, args.output, start=args.start, duration=args.duration)) as source:
        from sana_streaming.stream.editor import Editor

        editor = Editor.load(args.model, device=args.device)
        with stop_on_signals() as stop, progress() as on_progress:
            report = edit_file(
                editor,
                source,
                args.output,
                prompt[1],
                size=args.size,
                fit=args.fit,
                keep_size=args.keep_size,
                rate=args.rate,
                compare=args.compare,
                seed=args.seed,
                steps=args.steps,
                guidance=args.guidance,
                negative_prompt=args.negative_prompt,
                cuts=args.on_cut,
                prompts=changes,
                on_progress=on_progress,
                stop=stop,
                tell=tell,
            )
    early = "stopped early: " if report.stopped_early else ""
    of = f" of {report.expected}" if early and report.expected and report.expected > report.frames else ""
    frames = f"{report.frames}{of} frame{'' if report.frames == 1 and not of else 's'}"
    some, kind = (f" ({report.edited} edited)", "edited frames") if report.edited < report.frames else ("", "frames")
    print(f"{early}{args.output}: {frames}{some} in {report.seconds:.1f} s, {report.fps:.1f} {kind} per second")
    return INTERRUPTED if report.stopped_early else 0


def say(text: str) -> None:
    """Print something long, of which a reader such as `head` may want the beginning alone."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nor may Python's own last flush fail


def edit_lines(config: "ModelConfig", width: int) -> list[str]:
    """What a model was taught, by kind, for a terminal of that many columns."""
    if not config.edits:
        return [f"{config.name}: no list of edits comes with this model; any instruction may be tried"]
    column = max(map(len, config.edits)) + 4
    lines = []
    for kind in dict.fromkeys((*HEADINGS, *(edit.kind for edit in config.edits.values()))):
        of_kind = {name: edit for name, edit in config.edits.items() if edit.kind == kind}
        if of_kind:
            lines += ["", HEADINGS.get(kind, kind)]
        for name, edit in of_kind.items():
            lines.append(f"  {name:{column - 2}}{edit.example}")
            names = textwrap.wrap(", ".join(edit.choices), max(width - column, 20), break_on_hyphens=False)
            lines += [" " * column + line for line in names]
    return lines[1:]


def prompts_of(texts: Sequence[str]) -> list[tuple[float, str]]:
    """Prompts by time. `T=TEXT` begins at T seconds if a number stands before the first `=`; all else begins at 0."""
    prompts = []
    for text in texts:
        before, mark, after = text.partition("=")
        begin = number_in(before) if mark else None
        prompt = (0.0, text) if begin is None else (begin, after)
        if prompt[0] < 0:
            raise ValueError(f"--prompt: expected a time of 0 seconds or more, got {before!r}")
        if not prompt[1].strip():
            raise ValueError(f"--prompt: expected an instruction, got {text!r}")
        prompts.append(prompt)
    prompts.sort(key=lambda prompt: prompt[0])
    if prompts[0][0] != 0:
        raise ValueError(
            f"--prompt: expected one that begins at 0 seconds, got the first at {prompts[0][0]:g}; add --prompt TEXT"
        )
    for (time_a, text_a), (time_b, text_b) in pairwise(prompts):
        if time_a == time_b:
            raise ValueError(
                f"--prompt: expected one prompt at a time, got {text_a!r} and {text_b!r} at {time_a:g} seconds"
            )
    return prompts


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """An argument type: a whole number from `least` to `most`."""
    allowed = f"of at least {least}" if most is None else f"from {least} to {most}"

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or (most is not None and value > most):
            raise argparse.ArgumentTypeError(f"expected a whole number {allowed}, got {text!r}")
        return value

    return parse


def seconds(text: str) -> float:
    """An argument type: a time of 0 seconds or more."""
    value = number_in(text)
    if value is None or value < 0:
        raise argparse.ArgumentTypeError(f"expected a number of seconds, 0 or more, got {text!r}")
    return value


def positive_seconds(text: str) -> float:
    """An argument type: a time above 0 seconds."""
    value = number_in(text)
    if value is None or value <= 0:
        raise argparse.ArgumentTypeError(f"expected a number of seconds above 0, got {text!r}")
    return value


def at_least_1(text: str) -> float:
    """An argument type: a number of 1 or more."""
    value = number_in(text)
    if value is None or value < 1:
        raise argparse.ArgumentTypeError(f"expected a number of 1 or more, got {text!r}")
    return value


def frame_rate(text: str) -> float | str:
    """An argument type: frames per second, 1 or more, or `source`."""
    if text == "source":
        return text
    value = number_in(text)
    if value is None or value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more frames per second, or 'source', got {text!r}")
    return value


def tell(line: str) -> None:
    """A line on stderr, above a bar that may be there."""
    from tqdm import tqdm

    if sys.stderr is not None:
        tqdm.write(line, file=sys.stderr)


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """A question that turns true at the first SIGINT or SIGTERM. The second aborts at once, by KeyboardInterrupt."""
    came: list[int] = []

    def handle(number: int, _: FrameType | None) -> None:
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt
        print("\nstopping after this chunk; once more to abort", file=sys.stderr)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def progress(
    every: float = 5.0, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[int, int | None], None]]:
    """Progress on stderr: a bar on a terminal, else a line every few seconds. Takes frames done and frames expected."""
    from tqdm import tqdm

    if sys.stderr is not None and sys.stderr.isatty():
        with tqdm(unit="frame", dynamic_ncols=True) as bar:

            def show(done: int, total: int | None) -> None:
                bar.total = total
                bar.update(done - bar.n)

            yield show
        return
    begin = last = clock()

    def line(done: int, total: int | None) -> None:
        nonlocal last
        now = clock()
        if now - last < every:
            return
        last = now
        rate = done / (now - begin)
        left = f", {(total - done) / rate:.0f} s left" if total and total > done else ""
        print(f"{done}/{total or '?'} frames, {rate:.1f} frames per second{left}", file=sys.stderr)

    yield line


@contextmanager
def one_line_warnings() -> Iterator[None]:
    """Our own warnings as one line each; those of libraries are for developers, not for users."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", category=UserWarning, module="sana_streaming")
        warnings.showwarning = lambda message, *_, **__: print(f"warning: {one_line(message)}", file=sys.stderr)
        yield


def number_in(text: str) -> float | None:
    """The finite number that a text is, if it is one."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def one_line(message: object) -> str:
    return " ".join(str(message).split())
