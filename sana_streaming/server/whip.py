"""Standard ways in and out for programs such as OBS: WHIP (RFC 9725) sends to a new session, WHEP watches one.

    POST   /whip?prompt=TEXT&size=1280x720&fps=30&seed=0&steps=4   an offer -> 201, the answer, Location
    POST   /whep/NAME                                              likewise, for any number of viewers
    PATCH  /whip/ID, /whep/NAME/VIEWER                               more candidates (trickle)
    DELETE /whip/ID, /whep/NAME/VIEWER                               the end

The id also takes the session up on the control connection, with `resume`, to command it while the source goes on.
NAME is what `watch_name` makes of a session's id, or the id itself. The id is for those who may command the session;
the name, which the answer to WHIP links to and the log tells, is for those who only watch.

Each needs the server's token as `Authorization: Bearer TOKEN`, if it has one. A PATCH carries the ETag of the answer as
If-Match; "*" is taken too, since players send it. ICE restarts are not offered: a client that loses its connection
begins a new one. Pages of origins that the server admits may do all this as well.
"""

import base64
import hashlib
import re
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from .feed import Live
from .hub import Busy
from .protocol import Closed, ErrorTold, Open, ServerMessage, Warn
from .sdp import FRAGMENT, SDP, candidates, fragments, links, media
from .trust import LARGEST_MESSAGE, bearer
from .webrtc import Peer

if TYPE_CHECKING:
    from .app import Server

PATHS = ("/whip", "/whep")
VIEWERS = 32  # of one session
SIZE = re.compile(r"(\d{1,5})x(\d{1,5})")
SOURCE = "1280x720"  # until the first frame tells; frames of any size are scaled
RATE = 30.0
ENDPOINT, RESOURCE = "OPTIONS, POST", "OPTIONS, PATCH, DELETE"  # what may be asked of them
OTHERS = ("GET", "HEAD", "PUT")  # kept for what the standards may say of them one day
AGAIN = "10"  # seconds


class Refused(Exception):
    """A request that is answered by a status and one line."""

    def __init__(self, status: int, message: str, **headers: str):
        super().__init__(message)
        self.status, self.headers = status, {key.replace("_", "-"): value for key, value in headers.items()}

    def response(self) -> Response:
        return Response(f"{self}\n", self.status, self.headers, "text/plain")


@dataclass(frozen=True)
class Resource:
    """What a Location leads to."""

    live: Live
    peer: Peer
    offered: set[str]  # names of its ICE session
    tag: str  # of the same


class Told:
    """Who listens to a session that nobody reads messages of: trouble goes to the log."""

    def __init__(self, server: "Server"):
        self.server = server

    def tell(self, message: ServerMessage) -> None:
        if isinstance(message, (Warn, ErrorTold)):
            self.server.log(message.type, message=message.message)
        elif isinstance(message, Closed):
            self.server.log("closed", reason=message.reason)

    def end(self, code: int, reason: str) -> None:
        pass


def routes(server: "Server") -> APIRouter:
    router = APIRouter()
    sources: dict[str, Resource] = {}  # by the id of the session
    viewers: dict[tuple[str, str], Resource] = {}  # by that and their own

    def authorised(request: Request) -> None:
        if not server.admits_token(bearer(request.headers.get("authorization"))):
            raise Refused(401, "the token is missing or wrong", www_authenticate="Bearer")

    def allowed(methods: str, **headers: str) -> Callable[[], Awaitable[Response]]:
        async def options() -> Response:
            asks = "Authorization, Content-Type, If-Match"
            allow = {"Allow": methods, "Access-Control-Allow-Methods": methods, "Access-Control-Allow-Headers": asks}
            return Response(None, 200, allow | headers)

        return options

    def refused(methods: str) -> Callable[[], Awaitable[Response]]:
        async def refuse() -> Response:
            raise Refused(405, f"expected {methods}", allow=methods)

        return refuse

    for path in ("/whip", "/whep/{id}"):
        router.add_api_route(path, allowed(ENDPOINT, **{"Accept-Post": SDP}), methods=["OPTIONS"])
        router.add_api_route(path, refused(ENDPOINT), methods=[*OTHERS, "PATCH", "DELETE"], include_in_schema=False)
    for path in ("/whip/{id}", "/whep/{id}/{viewer}"):
        router.add_api_route(path, allowed(RESOURCE, **{"Accept-Patch": FRAGMENT}), methods=["OPTIONS"])
        router.add_api_route(path, refused(RESOURCE), methods=[*OTHERS, "POST"], include_in_schema=False)

    @router.post("/whip")
    async def send(request: Request) -> Response:
        authorised(request)
        offer = await body(request, SDP)
        check(offer)
        live = await opened(server, asked(request))
        peer = Peer(live, server.ice, receives=True, sends=False, lost=lambda peer: server.leave(live, peer))
        live.holders.add(peer)
        answer = await answered(server, live, peer, offer)
        sources[live.id] = Resource(live, peer, fragments(offer), secrets.token_hex(8))
        live.on_finish(lambda: sources.pop(live.id, None))
        server.log("whip", session=live.id[:8])
        response = created(answer, f"/whip/{live.id}", sources[live.id].tag)
        response.headers.append("Link", f'</whep/{watch_name(live.id)}>; rel="alternate"')
        return response

    @router.post("/whep/{id}")
    async def watch(request: Request, id: str) -> Response:  # noqa: A002
        authorised(request)
        offer = await body(request, SDP)
        live = server.lives.get(id) or next((v for v in server.lives.values() if watch_name(v.id) == id), None)
        if live is None or live.over:
            raise Refused(404, "there is no session of this id")
        if live.feed is None:
            raise Refused(409, "this session waits for its turn", retry_after=AGAIN)
        if sum(resource.live is live for resource in viewers.values()) >= VIEWERS:
            raise Refused(503, "this session has as many viewers as it takes", retry_after=AGAIN)
        viewer = secrets.token_urlsafe(12)

        def gone(_: object = None) -> None:
            if viewers.pop((id, viewer), None) is not None:
                server.metrics.viewers.dec()

        peer = Peer(live, server.ice, receives=False, sends=True, lost=gone)
        viewers[id, viewer] = Resource(live, peer, fragments(offer), secrets.token_hex(8))
        server.metrics.viewers.inc()
        try:
            answer = await peer.answer(offer)
        except ValueError as error:
            gone()
            raise Refused(400, str(error)) from error
        live.on_finish(gone)
        return created(answer, f"/whep/{id}/{viewer}", viewers[id, viewer].tag)

    def created(answer: str, location: str, tag: str) -> Response:
        response = Response(answer, 201, {"Location": location, "ETag": f'"{tag}"', "Accept-Patch": FRAGMENT}, SDP)
        for link in links(server.ice):
            response.headers.append("Link", link)
        return response

    async def trickle(request: Request, resource: Resource | None) -> Response:
        authorised(request)
        text = await body(request, FRAGMENT)
        if resource is None:
            raise Refused(404, "there is no such connection")
        condition = request.headers.get("if-match")
        if condition is None:
            raise Refused(428, "expected If-Match with the ETag of the answer")
        if condition not in ("*", f'"{resource.tag}"'):
            raise Refused(412, "this is another ICE session")
        if not fragments(text) <= resource.offered:
            raise Refused(422, "ICE restarts are not offered")
        try:
            for candidate, mid in candidates(text):
                await resource.peer.add_candidate(candidate, mid, None)
        except ValueError as error:
            raise Refused(400, str(error)) from error
        return Response(None, 204)

    @router.patch("/whip/{id}")
    async def trickle_source(request: Request, id: str) -> Response:  # noqa: A002
        return await trickle(request, sources.get(id))

    @router.patch("/whep/{id}/{viewer}")
    async def trickle_viewer(request: Request, id: str, viewer: str) -> Response:  # noqa: A002
        return await trickle(request, viewers.get((id, viewer)))

    @router.delete("/whip/{id}")
    async def end_source(request: Request, id: str) -> Response:  # noqa: A002
        authorised(request)
        resource = sources.pop(id, None)
        if resource is None:
            raise Refused(404, "there is no such connection")
        await server.close(resource.live, "the source left")
        return Response(None, 200)

    @router.delete("/whep/{id}/{viewer}")
    async def end_viewer(request: Request, id: str, viewer: str) -> Response:  # noqa: A002
        authorised(request)
        resource = viewers.pop((id, viewer), None)
        if resource is None:
            raise Refused(404, "there is no such connection")
        server.metrics.viewers.dec()
        await resource.peer.close()
        return Response(None, 200)

    return router


def watch_name(session_id: str) -> str:
    """By which a session is watched. Nobody can tell the id by it."""
    return base64.urlsafe_b64encode(hashlib.sha256(f"watch {session_id}".encode()).digest()[:18]).decode()


async def body(request: Request, kind: str) -> str:
    """Of a request, if it is of that kind, and of a size that it may have."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != kind:
        raise Refused(415, f"expected content of type {kind}")
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > LARGEST_MESSAGE:
            raise Refused(413, f"expected at most {LARGEST_MESSAGE} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise Refused(400, "expected text in UTF-8") from error


def asked(request: Request) -> Open:
    """The session that a query asks for."""
    query = dict(request.query_params)
    if unknown := set(query) - {"prompt", "size", "fps", "seed", "steps"}:
        raise Refused(400, f"unknown parameter {min(unknown)!r}: expected prompt, size, fps, seed or steps")
    size = SIZE.fullmatch(query.get("size", SOURCE))
    if size is None or "prompt" not in query:
        raise Refused(400, "expected ?prompt=TEXT, and a size such as 640x480 if there is one")
    try:
        return Open(
            prompt=query["prompt"],
            width=int(size[1]),
            height=int(size[2]),
            fps=float(query.get("fps", RATE)),
            seed=int(query.get("seed", 0)),
            steps=int(query["steps"]) if "steps" in query else None,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise Refused(400, f"{first['loc'][0]}: {first['msg']}") from error
    except ValueError as error:
        raise Refused(400, "fps, seed and steps are numbers") from error


def check(offer: str) -> None:
    """Of a source: one picture, with its sound or without."""
    count = media(offer)
    if not count:
        raise Refused(400, "expected a description (SDP) with media")
    if count["video"] != 1 or count["audio"] > 1:
        told = f"{count['video']} of pictures and {count['audio']} of sound"
        raise Refused(406, f"expected one stream of pictures and at most one of sound, got {told}")


async def opened(server: "Server", wanted: Open) -> Live:
    """A new session; a program does not wait in the queue, it comes again."""
    try:
        live = await server.open(wanted, Told(server), queue=False)
    except Busy as error:
        raise Refused(503, "no room for another session now", retry_after=AGAIN) from error
    except ValueError as error:
        raise Refused(400, str(error)) from error
    except Exception as error:  # of the model; the server goes on
        line = " ".join(str(error).split()) or type(error).__name__
        server.log("error", message=line)
        raise Refused(503, f"the session could not be opened: {line}", retry_after=AGAIN) from error
    await live.ready.wait()
    if live.over:
        raise Refused(503, "the session ended at once", retry_after=AGAIN)
    return live


async def answered(server: "Server", live: Live, peer: Peer, offer: str) -> str:
    try:
        return await peer.answer(offer)
    except ValueError as error:
        await server.close(live, "no connection")
        raise Refused(400, str(error)) from error
