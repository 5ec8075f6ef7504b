import json
import random

import pytest

from sana_streaming.server import protocol
from sana_streaming.server.protocol import CLIENT, ERRORS, SERVER, Open, SetPrompt, Stats, dump, error, parse, schema

OPEN = {"type": "open", "prompt": "make it snow", "width": 640, "height": 480, "fps": 24}


def test_commands_are_read():
    message = parse(json.dumps(OPEN))
    assert message == Open(prompt="make it snow", width=640, height=480, fps=24.0)
    assert (message.seed, message.policy, message.steps, message.resume) == (0, "latest", None, None)
    assert parse('{"type": "set_prompt", "prompt": "x", "policy": "reset", "n": 7}') == SetPrompt(
        prompt="x", policy="reset", n=7
    )


@pytest.mark.parametrize("union", [CLIENT, SERVER], ids=["client", "server"])
def test_every_message_goes_there_and_back(union):
    examples = {
        "integer": 7,
        "number": 1.5,
        "string": "x",
        "boolean": True,
        "array": [],
    }
    definitions = union.json_schema()["$defs"]
    kinds = [d for d in definitions.values() if "type" in d["properties"]]
    assert len(kinds) >= 12
    seen = set()
    for definition in kinds:
        values = {"type": definition["properties"]["type"]["const"]}
        for name in definition.get("required", []):
            kind = definition["properties"][name]
            values[name] = kind.get("const") or (kind["enum"][0] if "enum" in kind else examples[kind["type"]])
            if name == "code":
                values[name] = "busy"
        message = union.validate_json(json.dumps(values))
        assert union.validate_json(dump(message)) == message
        assert "\n" not in dump(message)
        seen.add(values["type"])
    assert len(seen) == len(kinds)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"type": "dance"}, "tag 'dance' found"),
        ({"width": 0}, "open.width: Input should be greater than or equal to 1"),
        ({"width": "640"}, "open.width: Input should be a valid integer"),
        ({"fps": None}, "open.fps: Input should be a valid number"),
        ({"fps": 1e6}, "open.fps"),
        ({"seed": -1}, "open.seed"),
        ({"seed": 2**64}, "open.seed"),
        ({"prompt": "x" * 4001}, "open.prompt: String should have at most 4000"),
        ({"policy": "all"}, "open.policy: Input should be 'latest' or 'every'"),
        ({"steps": 0}, "open.steps"),
        ({"path": "/etc/passwd"}, "open.path: Extra inputs are not permitted"),
        ({"resume": "x" * 129}, "open.resume"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(change, told):
    with pytest.raises(ValueError) as failure:
        parse(json.dumps({**OPEN, **change}))
    assert told in str(failure.value)
    assert "\n" not in str(failure.value)


def broken(count):
    """A valid message with a few bytes changed, added or left out."""
    dice = random.Random(0)
    for _ in range(count):
        data = bytearray(json.dumps(OPEN).encode())
        for _ in range(dice.randrange(1, 6)):
            place = dice.randrange(len(data))
            data[place : place + dice.randrange(3)] = bytes(dice.randrange(256) for _ in range(dice.randrange(3)))
        yield bytes(data)


def test_whatever_bytes_come_it_is_a_message_or_a_value_error():
    told = []
    for data in broken(2000):
        try:
            told.append(parse(data).type)
        except ValueError as failure:
            told.append(str(failure))
    assert 10 < told.count("open") < 1000
    assert not [line for line in told if "\n" in line or not (line == "open" or line.startswith("message not underst"))]
    for text in ("", "[]", "null", "1", '{"type": null}', "[" * 5000, '{"a":' * 5000, "NaN", '{"type":"open"}'):
        with pytest.raises(ValueError, match="message not understood"):
            parse(text)


def test_an_error_is_one_line_and_its_code_is_known():
    told = error("editor", "two\nlines\r\n of it", n=3)
    assert (told.code, told.message, told.n) == ("editor", "two lines of it", 3)
    assert error("memory", "").message == ERRORS["memory"]
    with pytest.raises(AssertionError):
        error("nonsense", "x")


def test_the_schema_names_every_message_and_describes_what_is_not_plain():
    both = schema()
    client = set(both["client"]["discriminator"]["mapping"])
    server = set(both["server"]["discriminator"]["mapping"])
    assert client == {
        *("open", "set_prompt", "set_seed", "start", "pause", "resume", "reset", "anchor"),
        *("bypass", "panic", "record", "close", "offer", "candidate"),
    }
    assert server == {
        *("opened", "state", "accepted", "applied", "stats", "warning", "error"),
        *("queued", "answer", "candidate", "recorded", "closed"),
    }
    assert "median" in both["server"]["$defs"]["Stats"]["properties"]["latency_ms"]["description"]
    json.dumps(both)


def test_messages_are_values():
    stats = Stats(fps_in=1, fps_out=1, dropped=0, repeated=0, queue=0)
    with pytest.raises(ValueError):
        stats.dropped = 1
    assert {kind.model_config["frozen"] for kind in protocol.Message.__subclasses__()} == {True}
