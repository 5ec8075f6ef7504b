"""The server as one ASGI application: the page, its control connection, WHIP and WHEP, and what can be watched."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from . import whip
from .background import background_done
from .feed import Listener, Live
from .hub import Busy, Hub, UnknownSession, Worker
from .metrics import Metrics
from .protocol import ClientMessage, Close, Open, Queued, Record, schema
from .recordings import Recordings
from .trust import HEADERS, READABLE, Trust, bearer
from .websocket import LATER, POLICY, Connection

STATIC = Path(__file__).parent / "static"
KINDS = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
CONNECTIONS = 200  # of control, at once
TICK = 1.0  # seconds
PATIENCE = 10.0  # seconds for recordings and connections to end when the server stops


class Server:
    """What all connections share."""

    def __init__(
        self,
        hub: Hub,
        trust: Trust = Trust(),  # noqa: B008  # frozen
        *,
        ice: list[dict] | None = None,
        log: Callable[..., None] = lambda *_, **__: None,
        recordings: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.hub, self.trust, self.log, self.clock = hub, trust, log, clock
        self.ice = ice or []
        self.metrics = Metrics()
        hub.observe = self.metrics.observe
        self.pool = ThreadPoolExecutor(4, "media")
        self.lives: dict[str, Live] = {}
        self.recordings = Recordings(hub, recordings)
        self.connections = 0
        self.worker: Worker | None = None

    @property
    def ready(self) -> bool:
        return self.worker is not None and self.worker.is_alive()

    def admits_token(self, token: str | None) -> bool:
        known = self.trust.knows(token)
        if not known:
            self.metrics.refused.labels("token").inc()
        return known

    async def open(self, message: Open, listener: Listener, queue: bool = True) -> Live:
        """A new session, or the old one that `resume` names; one that waits in the queue is told so. ValueError for
        what cannot be, Busy if there is no room and it is not to wait."""
        if message.resume is not None:
            return await self._resume(message, listener)
        live = Live(self.hub, self.pool, self.metrics, clock=self.clock, ended=self._ended)
        live.listener = listener
        live.configure(message)
        opening = asyncio.get_running_loop().run_in_executor(self.pool, self.hub.open, message, live.notify)
        try:
            live.id = await asyncio.shield(opening)
        except Busy as busy:
            live.id = busy.id
            if not queue:
                self.hub.close(busy.id, "no room")
                live.finish()
                raise
            listener.tell(Queued(position=busy.position))
        except BaseException:
            live.finish()
            opening.add_done_callback(self._unwanted)
            raise
        if live.over:  # closed before anybody looked
            return live
        self.lives[live.id] = live
        self.metrics.sessions.set(len(self.lives))
        watch = whip.watch_name(live.id)
        self.log("opened", session=live.id[:8], watch=watch, prompt=message.prompt, fps=message.fps)
        return live

    def _unwanted(self, opening: asyncio.Future[str]) -> None:
        """Who asked for a session left before it was open."""
        failure = opening.exception()
        if failure is None or isinstance(failure, Busy):
            self.hub.close(opening.result() if failure is None else failure.id, "nobody waits for it")

    async def _resume(self, message: Open, listener: Listener) -> Live:
        live = self.lives.get(message.resume or "")
        if live is None or live.over:
            raise UnknownSession("there is no session of this id, or no longer")
        before, live.listener = live.listener, listener
        opening = asyncio.get_running_loop().run_in_executor(self.pool, self.hub.open, message, live.notify)
        try:
            await asyncio.shield(opening)
        except Busy as busy:
            listener.tell(Queued(position=busy.position))
        except BaseException:
            live.listener = before
            if before is None:  # nobody has it, as before
                opening.add_done_callback(lambda _: self.hub.detach(live.id))
            raise
        live.configure(message)
        if before is not None:
            before.end(1000, "the session was taken up elsewhere")
        self.log("resumed", session=live.id[:8])
        return live

    async def command(self, live: Live, message: ClientMessage) -> None:
        prompt = getattr(message, "prompt", None)
        self.log("command", session=live.id[:8], command=message.type, **({"prompt": prompt} if prompt else {}))
        if isinstance(message, Record):
            await self.recordings.command(live, message)
            return
        if isinstance(message, Close):
            await self.recordings.stop(live)  # as long as there is somebody to be told where it is
        await self._in_pool(self.hub.command, live.id, message)

    def leave(self, live: Live, holder: object) -> None:
        """A connection is gone. After the last one the session stays for a while, for somebody to take it up."""
        live.holders.discard(holder)
        if not live.holders and not live.over:
            self.hub.detach(live.id)
            self.log("lost", session=live.id[:8])

    async def close(self, live: Live, reason: str) -> None:
        await self._in_pool(self.hub.close, live.id, reason)
        live.finish()

    def _ended(self, live: Live) -> None:
        if self.lives.pop(live.id, None) is not None:
            self.metrics.sessions.set(len(self.lives))
            self.log("closed", session=live.id[:8])

    async def _in_pool(self, call: Callable, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.pool, call, *arguments)

    @asynccontextmanager
    async def running(self, _: FastAPI) -> AsyncIterator[None]:
        """The model's thread and the clock, for as long as the application runs."""
        self.worker = Worker(self.hub)
        self.worker.start()
        ticking = asyncio.ensure_future(self._tick())
        try:
            yield
        finally:
            ticking.cancel()
            for live in tuple(self.lives.values()):
                self.hub.close(live.id, "the server stops")
                live.finish()
            await background_done(PATIENCE)
            self.worker.stop()
            await self._in_pool(self.worker.join)
            self.pool.shutdown(wait=False, cancel_futures=True)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            try:
                await self._in_pool(self.hub.tick)
            except Exception as error:  # statistics are no reason to stop the show
                self.log("error", message=f"{type(error).__name__}: {error}")


def create_app(server: Server, static: Path = STATIC) -> FastAPI:
    """The application. It runs the worker of its hub from start to end."""
    app = FastAPI(title="SANA-Streaming", docs_url=None, redoc_url=None, lifespan=server.running)
    app.add_middleware(Guard, server=server)
    app.include_router(whip.routes(server))
    files = {file.relative_to(static).as_posix(): file for file in static.rglob("*") if file.suffix in KINDS}

    @app.exception_handler(whip.Refused)
    async def refused(_: Request, error: whip.Refused) -> Response:
        server.metrics.refused.labels(str(error.status)).inc()
        return error.response()

    def private(request: Request) -> None:
        if not server.admits_token(bearer(request.headers.get("authorization"))):
            raise whip.Refused(401, "the token is missing or wrong", www_authenticate="Bearer")

    @app.get("/health")
    async def health() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> JSONResponse:
        """The model is warm and at work."""
        return JSONResponse({"ready": server.ready}, 200 if server.ready else 503)

    @app.get("/schema")
    async def messages() -> dict[str, Any]:
        """JSON Schema of the messages of /api/session."""
        return schema()

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        private(request)
        return Response(server.metrics.text(), media_type=server.metrics.content_type)

    @app.get("/api/ice")
    async def ice(request: Request) -> dict[str, Any]:
        """Servers that help to find a way through, for RTCPeerConnection."""
        private(request)
        return {"iceServers": server.ice}

    @app.websocket("/api/session")
    async def session(socket: WebSocket) -> None:
        if server.connections >= CONNECTIONS:
            await socket.close(LATER)
            return
        server.connections += 1
        try:
            await Connection(server, socket).run()
        finally:
            server.connections -= 1

    @app.get("/recordings/{key}/{name}", include_in_schema=False)
    async def recording(key: str, name: str) -> Response:
        """A file of a recording. Who was told its key may have it."""
        file = server.recordings.files.get(f"recordings/{key}/{name}")
        if file is None or not file.is_file():
            raise whip.Refused(404, "there is nothing here")
        return FileResponse(file, filename=file.name, headers={"Cache-Control": "no-store"})

    @app.get("/{name:path}", include_in_schema=False)
    async def page(name: str) -> Response:
        """The page. What a client names is looked up among the files that were there at the start, and nowhere else."""
        file = files.get(name or "index.html")
        if file is None:
            raise whip.Refused(404, "there is nothing here")
        return FileResponse(file, headers={"Cache-Control": "no-cache"}, media_type=KINDS[file.suffix])

    return app


class Guard:
    """Looks at every request before anything else does, and puts the headers on every answer."""

    def __init__(self, app: ASGIApp, server: Server):
        self.app, self.server = app, server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        reason = self._wrong(headers)
        if reason is None:
            shared = scope["path"].startswith(whip.PATHS)
            await self.app(scope, receive, self._with_headers(send, headers.get("origin") if shared else None))
            return
        self.server.metrics.refused.labels("origin").inc()
        self.server.log("refused", reason=reason)
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": POLICY, "reason": reason})
        else:
            await Response(f"{reason}\n", 403, HEADERS, "text/plain")(scope, receive, send)

    def _wrong(self, headers: Headers) -> str | None:
        host = headers.get("host")
        if not self.server.trust.serves(host):
            return "this server is not known by that name"
        if not self.server.trust.admits(headers.get("origin"), host):
            return "pages of this origin may not connect"
        return None

    def _with_headers(self, send: Send, origin: str | None) -> Send:
        """origin: of a page that may read the answer, wherever it comes from."""
        told = HEADERS | (READABLE | {"Access-Control-Allow-Origin": origin} if origin else {})

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(key.lower().encode(), value.encode()) for key, value in told.items()]
                message["headers"] = [*message.get("headers", []), *headers]
            await send(message)

        return with_headers
