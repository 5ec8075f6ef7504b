"""The command: what it takes, and a server from start to end with an editor that needs no model."""

import argparse
import json
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
import uvicorn
from websockets.sync.client import connect

from sana_streaming import cli
from sana_streaming.commands import serve
from sana_streaming.server import recordings, stamp
from sana_streaming.server.websocket import HEADER, from_jpeg
from sana_streaming.stream.editor import Editor
from sana_streaming.stream.log import Header

from .conftest import FakeEditor, RealClock
from .fakes import picture
from .test_websocket import jpeg


def arguments(*given):
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)
    return parser.parse_args(given)


@pytest.fixture
def served(monkeypatch, capsys):
    """Start `serve` with arguments in a thread -> the URL it printed."""
    servers, threads = [], []

    class Server(uvicorn.Server):
        def __init__(self, config):
            super().__init__(config)
            servers.append(self)

    monkeypatch.setattr(uvicorn, "Server", Server)
    monkeypatch.setattr(Editor, "load", lambda model, device: FakeEditor(RealClock()))
    monkeypatch.setattr(recordings, "header_of", lambda editor: Header("fake", "0", "float32", "cpu", "2", 1))

    def start(*given):
        threads.append(threading.Thread(target=serve.run, args=(arguments("--port", "0", *given),)))
        threads[-1].start()
        end = time.monotonic() + 10
        while not (servers and servers[-1].started):
            assert time.monotonic() < end
            time.sleep(0.01)
        told = capsys.readouterr()
        assert told.out.count("\n") == 1  # one URL and nothing else
        assert "loading nano" in told.err
        return told.out.strip()

    yield start
    for server in servers:
        server.should_exit = True
    for thread in threads:
        thread.join()


def messages(socket, kind):
    """The next message of that type; pictures on the way are left out."""
    while True:
        data = socket.recv(timeout=30)
        if isinstance(data, str) and json.loads(data)["type"] == kind:
            return json.loads(data)


@contextmanager
def opened_by(url, **changes):
    message = {"type": "open", "prompt": "make it snow", "width": 256, "height": 256, "fps": 50, "stamped": True}
    with connect(url.replace("http", "ws") + "api/session") as socket:
        socket.send(json.dumps(message | changes))
        yield socket


def show(socket, count, begin=0, fps=50):
    for i in range(begin, begin + count):
        stamped = stamp.draw(picture(i, (256, 256)), 1000 + i)
        socket.send(HEADER.pack(1, i, 1000 * i / fps) + jpeg(stamped))
        time.sleep(1 / fps)


def test_a_picture_comes_back_edited_with_its_stamp_and_a_recording_is_made(served, tmp_path):
    url = served("--recordings", str(tmp_path / "shows"))
    with urllib.request.urlopen(f"{url}ready") as answer:
        assert json.load(answer) == {"ready": True}
    with opened_by(url) as socket:
        told = messages(socket, "opened")
        assert (told["model"], told["edits"][0]["example"]) == ("fake", "make it snow")
        socket.send(json.dumps({"type": "record", "on": False}))
        assert "no recording" in messages(socket, "error")["message"]
        socket.send(json.dumps({"type": "record", "on": True, "n": 1}))
        assert messages(socket, "accepted")["n"] == 1
        show(socket, 30)
        while isinstance(data := socket.recv(timeout=30), str):
            pass
        _, number, _ = HEADER.unpack_from(data)
        rgb, value = from_jpeg(data[HEADER.size :], (256, 256), 256)
        assert value == 1000 + number
        assert abs(rgb.mean(axis=(0, 1)) - (255 - picture(number, (256, 256)).mean(axis=(0, 1)))).max() < 6
        socket.send(json.dumps({"type": "record", "on": False, "n": 2}))
        files = messages(socket, "recorded")["files"]
    assert sorted(file.rpartition("/")[2] for file in files) == ["edited.mp4", "session.jsonl", "source.mkv"]
    log = next(file for file in files if file.endswith("jsonl"))
    with urllib.request.urlopen(url + log) as answer:
        assert answer.headers["content-disposition"].startswith("attachment")
        lines = [json.loads(line) for line in answer]
    assert lines[0]["type"] == "session"
    assert sum(line["type"] == "chunk" for line in lines) >= 3
    assert "make it snow" in str(lines)
    for wrong in ("recordings/guess/session.jsonl", log.replace("session.jsonl", "..%2f..%2fsecret")):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(url + wrong)
    with urllib.request.urlopen(f"{url}metrics") as answer:
        told = answer.read().decode()
    for stage in ("fill", "queue", "edit", "clock", "total"):
        assert f'latency_seconds_count{{stage="{stage}"}}' in told


def test_without_a_folder_nothing_is_stored(served):
    url = served()
    with opened_by(url) as socket:
        messages(socket, "opened")
        socket.send(json.dumps({"type": "record", "on": True, "n": 1}))
        assert "--recordings" in messages(socket, "error")["message"]


def test_listening_wider_demands_a_token(served):
    url = served("--host", "0.0.0.0")
    port, token = url.split(":")[2].split("/")[0], url.partition("#token=")[2]
    assert len(token) >= 32
    local = f"http://127.0.0.1:{port}/"
    with opened_by(local) as socket:
        assert messages(socket, "error")["code"] == "token"
    with opened_by(local, token=token) as socket:
        messages(socket, "opened")


@pytest.fixture
def interruptible():
    """SIGINT raises KeyboardInterrupt, which it does not in jobs of the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_signal_is_how_it_ends(interruptible):
    with serve.ended_by_signals():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_url():
    assert serve.url("127.0.0.1", 8000, None, secure=False) == "http://127.0.0.1:8000/"
    assert serve.url("::1", 8000, "abc", secure=True) == "https://[::1]:8000/#token=abc"
    assert socket.gethostname() in serve.url("0.0.0.0", 80, None, secure=False)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--token", "short"], "--token: expected at least 16"),
        (["--stun", "http://x"], "--stun: expected stun:HOST:PORT"),
        (["--turn", "stun:x"], "--turn: expected turn:HOST:PORT"),
        (["--origin", "https://show.example/page"], "without a path"),
        (["--cert", "x.pem"], "--cert and --key"),
        (["--cert", "x.pem", "--key", "y.pem"], "there is no file x.pem"),
        (["--recordings", __file__], "expected a folder"),
        (["--port", "65536"], "from 0 to 65535"),
        (["--max-sessions", "0"], "--max-sessions: expected at least 1"),
        (["--port", "http"], "invalid int value"),
        (["--host", "203.0.113.1"], "cannot listen on 203.0.113.1"),
    ],
)
def test_what_is_wrong_is_one_line(given, said, capsys):
    assert cli.main(["serve", *given]) == cli.BAD_INPUT
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert said in told


def test_a_port_in_use_is_one_line(capsys):
    with serve.listen("127.0.0.1", 0) as taken:
        assert cli.main(["serve", "--port", str(taken.getsockname()[1])]) == cli.BAD_INPUT
    assert "in use" in capsys.readouterr().err
