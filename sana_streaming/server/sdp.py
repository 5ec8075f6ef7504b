"""What is read from descriptions (SDP) and fragments of them, and headers that go with them, for WHIP and WHEP."""

import re
from collections import Counter

SDP = "application/sdp"
FRAGMENT = "application/trickle-ice-sdpfrag"


def media(description: str) -> Counter[str]:
    """How many lines there are of each kind of media."""
    return Counter(re.findall(r"^m=(\w+) ", description, re.MULTILINE))


def fragments(description: str) -> set[str]:
    """Names of ICE sessions. A fragment of another one than the offer's asks for a restart."""
    return set(re.findall(r"^a=ice-ufrag:(\S+)", description, re.MULTILINE))


def candidates(fragment: str) -> list[tuple[str | None, str | None]]:
    """Candidate and media line. None for the end of candidates."""
    found: list[tuple[str | None, str | None]] = []
    mid = None
    for line in fragment.splitlines():
        name, _, value = line.strip().partition(":")
        if name == "a=mid":
            mid = value
        elif name == "a=candidate":
            found.append((value, mid))
        elif name == "a=end-of-candidates":
            found.append((None, mid))
    return found


def links(servers: list[dict]) -> list[str]:
    """Headers that name the servers that help to find a way through."""
    told = []
    for server in servers:
        link = f'<{server["urls"]}>; rel="ice-server"'
        if server.get("username"):
            user, password = (re.sub(r'(["\\])', r"\\\1", server[key]) for key in ("username", "credential"))
            link += f'; username="{user}"; credential="{password}"; credential-type="password"'
        told.append(link)
    return told
