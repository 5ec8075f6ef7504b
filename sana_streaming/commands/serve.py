"""`sana-streaming serve`: a page that edits a camera as one types."""

import argparse
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sana_streaming.stream.editor import Editor

SHORTEST_TOKEN = 16  # characters
BACKLOG = 128
PATIENCE = 3  # seconds for connections to end when the server stops
UNREAD = 60_000  # milliseconds after which a connection whose other side takes nothing is cut


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", default="nano", metavar="NAME", help="a shipped model or a folder (default: %(default)s)"
    )
    parser.add_argument("--device", metavar="NAME", help="cpu or cuda (default: a GPU if there is one)")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="where to listen; any but this machine's own needs a token, which is made if not given "
        "(default: %(default)s)",
    )
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--token", metavar="TEXT", help="what clients must know to connect")
    parser.add_argument(
        "--origin",
        action="append",
        default=[],
        metavar="URL",
        help="a page of this address may connect too, such as https://show.example behind a proxy; may be given many "
        "times",
    )
    parser.add_argument("--cert", metavar="FILE", help="certificate for HTTPS, which cameras of other machines need")
    parser.add_argument("--key", metavar="FILE", help="private key of the certificate")
    parser.add_argument(
        "--stun",
        action="append",
        default=[],
        metavar="URL",
        help="stun:HOST:PORT, by which peers beyond a router find their address; may be given many times",
    )
    parser.add_argument(
        "--turn",
        action="append",
        default=[],
        metavar="URL",
        help="turn:HOST:PORT, which relays where nothing else gets through; may be given many times",
    )
    parser.add_argument("--turn-user", default="", metavar="NAME")
    parser.add_argument("--turn-password", default="", metavar="TEXT")
    parser.add_argument(
        "--max-sessions", type=int, default=8, metavar="N", help="sessions at once, at most (default: %(default)s)"
    )
    parser.add_argument("--recordings", metavar="FOLDER", help="where recordings go; without it there are none")
    parser.add_argument("--log", choices=("text", "json"), default="text", help="how events are told on stderr")
    parser.add_argument("--log-prompts", action="store_true", help="tell the instructions too")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM."""
    check(args)
    from sana_streaming.server.trust import LARGEST_FRAME, LARGEST_MESSAGE, Trust, is_loopback, make_token

    token = args.token or (None if is_loopback(args.host) else make_token())
    import uvicorn

    from sana_streaming.server.app import Server, create_app
    from sana_streaming.server.hub import Hub, Limits
    from sana_streaming.server.metrics import EventLog
    from sana_streaming.server.webrtc import ice_servers

    listening = listen(args.host, args.port)
    with listening:
        tell(f"loading {args.model}")
        from sana_streaming.stream.editor import Editor

        editor = Editor.load(args.model, device=args.device)
        hub = Hub(editor, Limits(sessions=args.max_sessions))
        width, height = size_of(editor)
        tell(f"warming up at {width}x{height}")
        hub.warm(width, height)
        server = Server(
            hub,
            Trust(token, tuple(args.origin)),
            ice=ice_servers(args.stun, args.turn, args.turn_user, args.turn_password),
            log=EventLog(args.log, args.log_prompts),
            recordings=Path(args.recordings) if args.recordings else None,
        )
        config = uvicorn.Config(
            create_app(server),
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="websockets-sansio",
            ws_max_size=LARGEST_FRAME + LARGEST_MESSAGE,
            ws_per_message_deflate=False,
            timeout_graceful_shutdown=PATIENCE,
            ssl_certfile=args.cert,
            ssl_keyfile=args.key,
        )
        print(url(args.host, listening.getsockname()[1], token, secure=bool(args.cert)), flush=True)
        with ended_by_signals():
            uvicorn.Server(config).run(sockets=[listening])
    return 0


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """uvicorn stops at SIGINT or SIGTERM, then raises the signal once more; that is how this ends, and no failure."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check(args: argparse.Namespace) -> None:
    """What can be wrong without looking at the model."""
    if not 0 <= args.port < 2**16:
        raise ValueError(f"--port: expected a number from 0 to 65535, got {args.port}")
    if args.max_sessions < 1:
        raise ValueError(f"--max-sessions: expected at least 1, got {args.max_sessions}")
    if args.token is not None and len(args.token) < SHORTEST_TOKEN:
        raise ValueError(f"--token: expected at least {SHORTEST_TOKEN} characters, got {len(args.token)}")
    for name, schemes, urls in (("--stun", ("stun:", "stuns:"), args.stun), ("--turn", ("turn:", "turns:"), args.turn)):
        for given in urls:
            if not given.startswith(schemes):
                raise ValueError(f"{name}: expected {schemes[0]}HOST:PORT, got {given!r}")
    for given in args.origin:
        if not given.startswith(("http://", "https://")) or given.count("/") != 2:
            raise ValueError(f"--origin: expected https://HOST without a path, got {given!r}")
    if args.recordings is not None and Path(args.recordings).exists() and not Path(args.recordings).is_dir():
        raise ValueError(f"--recordings: expected a folder, got {args.recordings}")
    if (args.cert is None) != (args.key is None):
        raise ValueError("--cert and --key belong together")
    for file in (args.cert, args.key):
        if file is not None and not Path(file).is_file():
            raise ValueError(f"there is no file {file}")


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there. ValueError if that cannot be."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):  # of Linux; connections have it from here
                listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD)
            listening.bind(address)
            listening.listen(BACKLOG)
        except OSError:
            listening.close()
            raise
    except (OSError, UnicodeError) as error:
        raise ValueError(f"cannot listen on {host} port {port}: {getattr(error, 'strerror', None) or error}") from error
    return listening


def url(host: str, port: int, token: str | None, secure: bool) -> str:
    """Where the page is, for a person to open. The token is a fragment, which browsers keep to themselves."""
    name = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(host, f"[{host}]" if ":" in host else host)
    return f"http{'s' * secure}://{name}:{port}/" + (f"#token={token}" if token else "")


def size_of(editor: "Editor") -> tuple[int, int]:
    """Width and height that a model is at home with."""
    config = editor.config
    width, height = config.frame_size or (config.size, config.size)
    return width, height


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
