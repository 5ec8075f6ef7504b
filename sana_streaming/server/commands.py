"""What a client's command does to its session. Called with the hub's lock held."""

from . import lifecycle
from .hosted import Hosted
from .protocol import (
    Accepted,
    Anchor,
    Bypass,
    ClientMessage,
    Close,
    Panic,
    Pause,
    Reset,
    Resume,
    SetPrompt,
    SetSeed,
    Start,
)


def carry_out(live: Hosted, message: ClientMessage, now: float) -> None:
    """At once, or at the next chunk; the receipt is told. ValueError for what does not fit. `open`, `record`, `offer`
    and `candidate` are the transport's own."""
    if live.position and not isinstance(message, Close):
        raise ValueError(f"this session waits at position {live.position} of the queue")
    match message:
        case SetPrompt() | SetSeed() | Reset() | Anchor():
            _request(live, message)
        case Start() | Pause() | Resume() | Close():
            _enter(live, message, now)
        case Bypass():
            live.tell(Accepted(n=message.n, command=message.type))
            live.bypass = message.on
            live.arrivals.clear()
            if message.on:
                live.pacer.put(live.governor.rest())
            live.tell_state()
        case Panic():
            live.tell(Accepted(n=message.n, command=message.type))
            live.panic = message.on
            live.tell_state()
        case _:
            raise ValueError(f"'{message.type}' is not a command of a session")


def _request(live: Hosted, message: SetPrompt | SetSeed | Reset | Anchor) -> None:
    """For the model's thread, which gives it to the stream before its next chunk."""
    if live.state == "draining":
        raise ValueError(f"cannot {message.type} in a session that is ending")
    live.requests.pop(message.type, None)
    live.requests[message.type] = message
    live.tell(Accepted(n=message.n, command=message.type))
    if isinstance(message, SetPrompt):
        live.prompt = message.prompt
        if live.policy == "latest":  # a prompt should be seen on what is in front of the camera now
            live.governor.dropped += live.governor.flush(live.governor.chunk)
    elif isinstance(message, SetSeed):
        live.seed = message.seed
    live.tell_state()


def _enter(live: Hosted, message: Start | Pause | Resume | Close, now: float) -> None:
    was = live.state
    state = lifecycle.after(was, message.type)
    live.tell(Accepted(n=message.n, command=message.type))
    live.enter(message.type)
    if was == "paused" and state != "paused":
        live.pacer.hold()
        live.epoch += 1
        live.arrivals.clear()
        if live.policy == "latest":
            live.governor.dropped += live.governor.flush()
    if state == "draining":
        live.worked = now
