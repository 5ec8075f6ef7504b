"""What client and server tell each other: one JSON object a message, told apart by `type`.

    {"type": "open", "prompt": "make it a watercolor", "width": 640, "height": 480, "fps": 24}
    {"type": "set_prompt", "prompt": "make it snow", "n": 7}
    -> {"type": "accepted", "n": 7, "command": "set_prompt"}
    -> {"type": "applied", "n": 7, "command": "set_prompt", "chunk": 31, "frame": 124}

A command that cannot be carried out is answered by one `error`, and changes nothing. Unknown types and unknown keys
are errors too. `schema()` is the whole as JSON Schema.
"""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

LONGEST_PROMPT = 4000  # characters; a server may take fewer, see `opened`
LARGEST_SIDE = 8192
LONGEST_SDP = 200_000
LONGEST_LINE = 400  # characters of what a person is told

Prompt: TypeAlias = Annotated[str, Field(max_length=LONGEST_PROMPT)]
Seed: TypeAlias = Annotated[int, Field(ge=0, lt=2**64)]
Side: TypeAlias = Annotated[int, Field(ge=1, le=LARGEST_SIDE)]
PromptPolicy: TypeAlias = Literal["keep", "recache", "reset"]
State: TypeAlias = Literal["idle", "warming", "running", "paused", "draining", "closed"]


class Message(BaseModel):
    """Immutable, and strict about its keys and types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Command(Message):
    n: int | None = Field(default=None, ge=0, lt=2**53, description="the client's number, returned in receipts")


class Switch(Command):
    on: bool


class Receipt(Message):
    """Which command it answers."""

    n: int | None = None
    command: str


# From the client


class Open(Command):
    """A session is wanted. `opened` answers, or `queued`, or `error`."""

    type: Literal["open"] = "open"
    prompt: Prompt
    width: Side = Field(description="of the source's frames")
    height: Side
    fps: float = Field(ge=1, le=240)
    seed: Seed = 0
    steps: int | None = Field(default=None, ge=1, le=100)
    policy: Literal["latest", "every"] = Field(default="latest", description="frames may be dropped, or none")
    stamped: bool = Field(default=False, description="each frame carries a stamp under the picture")
    token: str | None = Field(default=None, max_length=256)
    resume: str | None = Field(default=None, max_length=128, description="id of a session that lost its connection")


class SetPrompt(Command):
    type: Literal["set_prompt"] = "set_prompt"
    prompt: Prompt
    policy: PromptPolicy | None = Field(default=None, description="what becomes of the past; None: the model's own")


class SetSeed(Command):
    """The noise of the next chunk, and of those after it, is that of a new stream with this seed."""

    type: Literal["set_seed"] = "set_seed"
    seed: Seed


class Start(Command):
    """Begin to edit. A session that receives its first frame starts by itself."""

    type: Literal["start"] = "start"


class Pause(Command):
    """Nothing is edited; the last frame stays in view."""

    type: Literal["pause"] = "pause"


class Resume(Command):
    type: Literal["resume"] = "resume"


class Reset(Command):
    """Forget everything before the next chunk."""

    type: Literal["reset"] = "reset"


class Anchor(Command):
    """Make the next chunk the one that later ones keep to."""

    type: Literal["anchor"] = "anchor"


class Bypass(Switch):
    """The source passes through, as late as the edited picture would be."""

    type: Literal["bypass"] = "bypass"


class Panic(Switch):
    """Black at once."""

    type: Literal["panic"] = "panic"


class Record(Switch):
    type: Literal["record"] = "record"


class Close(Command):
    """What was taken in is still edited, then the session ends."""

    type: Literal["close"] = "close"


class Offer(Command):
    """WebRTC: the client's description. `answer` answers."""

    type: Literal["offer"] = "offer"
    sdp: str = Field(max_length=LONGEST_SDP)


class Candidate(Command):
    """WebRTC: a way to reach the one who sends this; null ends the list. Both sides send it."""

    type: Literal["candidate"] = "candidate"
    candidate: str | None = Field(default=None, max_length=2000)
    sdpMid: str | None = Field(default=None, max_length=64)
    sdpMLineIndex: int | None = Field(default=None, ge=0, le=64)


# From the server


class EditOffered(Message):
    """An edit that the model was taught."""

    name: str
    kind: str
    example: str
    strong: bool = False


class Opened(Message):
    type: Literal["opened"] = "opened"
    id: str = Field(description="who knows it may take the session up again")
    model: str
    edits: tuple[EditOffered, ...] = ()
    prompt_limit: int = Field(description="characters")
    width: int = Field(description="of the edited frames")
    height: int
    chunk_frames: int = Field(description="frames that are edited together")
    fps: float
    resumed: bool = False


class StateTold(Message):
    """Sent whenever any of it changes."""

    type: Literal["state"] = "state"
    state: State
    prompt: str = Field(description="in force, or accepted and due at the next chunk")
    seed: int
    chunk: int = Field(description="chunks edited so far")
    steps: int
    width: int = Field(description="at which frames are edited now; they are shown at the size of `opened`")
    height: int
    bypass: bool = False
    panic: bool = False
    recording: bool = False


class Accepted(Receipt):
    type: Literal["accepted"] = "accepted"


class Applied(Receipt):
    """The command holds from this chunk on, which begins with this frame of the source."""

    type: Literal["applied"] = "applied"
    chunk: int
    frame: int


class Stats(Message):
    """Of the last seconds; counts are of the whole session."""

    type: Literal["stats"] = "stats"
    fps_in: float
    fps_out: float = Field(description="frames shown that are not a repetition")
    latency_ms: float | None = Field(default=None, description="from arrival to display, median")
    latency_p95_ms: float | None = None
    chunk_p95_ms: float | None = None
    real_time_factor: float | None = Field(default=None, description="seconds of video edited per second of work")
    dropped: int
    repeated: int
    queue: int = Field(description="frames that wait to be edited")
    memory_mb: float | None = None
    level: int = Field(default=0, description="0: the quality asked for; above: how far it was lowered to keep up")


class Warn(Message):
    type: Literal["warning"] = "warning"
    message: str


class ErrorTold(Message):
    type: Literal["error"] = "error"
    code: str = Field(description="one of ERRORS")
    message: str = Field(description="one line for a person")
    n: int | None = None


class Queued(Message):
    type: Literal["queued"] = "queued"
    position: int = Field(ge=1, description="1: next")


class Answer(Message):
    type: Literal["answer"] = "answer"
    sdp: str


class Recorded(Message):
    type: Literal["recorded"] = "recorded"
    files: tuple[str, ...]


class Closed(Message):
    type: Literal["closed"] = "closed"
    reason: str


ERRORS = {
    "invalid": "the message, or a value in it, is not what was expected",
    "state": "the command does not fit the session's state",
    "unknown_session": "there is no session of this id, or no longer",
    "token": "the token is missing or wrong",
    "too_many": "too many messages",
    "busy": "no room for another session, and none to wait in",
    "memory": "out of memory",
    "editor": "the model failed; this session ends",
    "internal": "the server failed",
}

ClientMessage: TypeAlias = Annotated[
    Open
    | SetPrompt
    | SetSeed
    | Start
    | Pause
    | Resume
    | Reset
    | Anchor
    | Bypass
    | Panic
    | Record
    | Close
    | Offer
    | Candidate,
    Field(discriminator="type"),
]
ServerMessage: TypeAlias = Annotated[
    Opened
    | StateTold
    | Accepted
    | Applied
    | Stats
    | Warn
    | ErrorTold
    | Queued
    | Answer
    | Candidate
    | Recorded
    | Closed,
    Field(discriminator="type"),
]
CLIENT: TypeAdapter[ClientMessage] = TypeAdapter(ClientMessage)
SERVER: TypeAdapter[ServerMessage] = TypeAdapter(ServerMessage)


def parse(text: str | bytes) -> ClientMessage:
    """A client's message. ValueError says in one line what is wrong with it."""
    try:
        return CLIENT.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"message not understood: {place + ': ' if place else ''}{first['msg']}") from None


def dump(message: ServerMessage | ClientMessage) -> str:
    """A message as JSON, in one line."""
    return message.model_dump_json()


def schema() -> dict[str, Any]:
    """JSON Schema of both directions."""
    return {"client": CLIENT.json_schema(), "server": SERVER.json_schema()}


def error(code: str, message: object, n: int | None = None) -> ErrorTold:
    """One line, whatever is told: it may name what a client sent."""
    assert code in ERRORS
    line = " ".join(str(message).split()) or ERRORS[code]
    return ErrorTold(code=code, message=line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]} ...", n=n)
