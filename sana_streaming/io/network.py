"""A camera on the network by its address, rtsp://user:password@host:554/path."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import av

from .frame import VideoError
from .live import BACK_OFF, LiveReader

TIMEOUT = (10.0, 5.0)  # seconds, to connect and between two frames
OPTIONS = {
    "rtsp_transport": "tcp",  # of UDP a firewall often lets nothing through, and what is lost is seen
    "fflags": "nobuffer",
    "analyzeduration": "500000",  # microseconds in which the library finds out what it is sent
}


def network_reader(
    address: str,
    *,
    options: Mapping[str, str] | None = None,
    timeout: tuple[float, float] = TIMEOUT,
    again: Sequence[float] = BACK_OFF,
    **live: Any,
) -> LiveReader:
    """A live reader; what breaks off is connected to again. options: of the video library, instead of ours.
    live: see `LiveReader`."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise VideoError(f"cannot read a camera on the network: bad address ({error})") from error
    name = f"{parts.scheme}://{host or ''}{f':{port}' if port else ''}{parts.path}"  # without password and query
    if not host:
        raise VideoError(f"cannot read {name}: expected {parts.scheme}://HOST/PATH, got no host")
    given = dict(OPTIONS if options is None else options)
    connect = partial(av.open, address, options=given, timeout=timeout)
    return LiveReader(name, connect, again=again, patience=2 * sum(timeout), **live)
