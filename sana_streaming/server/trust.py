"""Who may talk to the server, how much, and what browsers are told about its pages."""

import hmac
import ipaddress
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

LARGEST_MESSAGE = 256 * 1024  # bytes of a message or of a description (SDP)
LARGEST_FRAME = 4 * 1024 * 1024  # bytes of a JPEG
LOOPBACK_NAMES = {"localhost", "127.0.0.1", "::1"}
CONTENT_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' blob: data:",
        "media-src 'self' blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(self), display-capture=(self), geolocation=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

READABLE = {  # what a page of another origin that is admitted may see of an answer
    "Access-Control-Expose-Headers": "Location, ETag, Link, Accept-Patch, Accept-Post, Allow, Retry-After",
    "Vary": "Origin",
}


def is_loopback(host: str) -> bool:
    """Whether a server that listens there can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def make_token() -> str:
    return secrets.token_urlsafe(24)


@dataclass(frozen=True)
class Trust:
    """Without a token, only this machine is served: names other than its own are refused, so that no page of another
    site gets in by a name that leads here."""

    token: str | None = None
    origins: tuple[str, ...] = ()  # of other pages that may connect, such as https://show.example

    def knows(self, token: str | None) -> bool:
        if self.token is None:
            return True
        return token is not None and hmac.compare_digest(token.encode(), self.token.encode())

    def serves(self, host: str | None) -> bool:
        """Whether a request may name the server so; `host` is the header."""
        return self.token is not None or _name_of(f"//{host}") in LOOPBACK_NAMES or self._proxied(host)

    def admits(self, origin: str | None, host: str | None) -> bool:
        """Whether a page of `origin` may connect; programs that are no browser send none."""
        if origin is None or origin in self.origins:
            return True
        parts = _split(origin)
        return parts is not None and parts.scheme in ("http", "https") and parts.netloc == host

    def _proxied(self, host: str | None) -> bool:
        return any(urlsplit(origin).netloc == host for origin in self.origins)


def bearer(header: str | None) -> str | None:
    """The token of an Authorization header."""
    scheme, _, token = (header or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token.strip() else None


class Bucket:
    """Lets through `rate` a second on average and `burst` at once."""

    def __init__(self, rate: float, burst: float, clock: Callable[[], float]):
        self.rate, self.burst, self.clock = rate, burst, clock
        self._left, self._since = burst, clock()

    def take(self) -> bool:
        now = self.clock()
        self._left = min(self.burst, self._left + self.rate * (now - self._since))
        self._since = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def _split(url: str):  # type: ignore[no-untyped-def]  # the result's type is private to urllib
    try:
        return urlsplit(url)
    except ValueError:
        return None


def _name_of(url: str) -> str | None:
    parts = _split(url)
    return parts.hostname if parts else None
