"""Recordings that clients ask for: begun and ended by their commands, and handed out under names nobody can guess."""

import secrets
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

from sana_streaming.stream.log import header_of

from .background import in_background
from .feed import Live
from .hub import Hub
from .protocol import Accepted, Record, Recorded, Warn, error
from .recorder import Recorder, Recording

KEPT = 256  # files that can be fetched; the newest


class Recordings:
    """folder: where they go; None if this server makes none."""

    def __init__(self, hub: Hub, folder: Path | None):
        self.hub, self.folder = hub, folder
        self.files: dict[str, Path] = {}  # by the path that a client fetches them by
        self._running: dict[str, tuple[Recorder, Callable[[], None]]] = {}  # by session: and what unties it

    async def command(self, live: Live, message: Record) -> None:
        code = "state"
        if self.folder is None:
            trouble = "this server makes no recordings: it is started with --recordings FOLDER for that"
        elif message.on == (live.id in self._running):
            trouble = "a recording is running" if message.on else "no recording is running"
        else:
            try:
                await (self._start(live, self.folder) if message.on else self.stop(live))
                self._tell(live, Accepted(n=message.n, command=message.type))
                return
            except ValueError as failure:
                trouble = str(failure)
            except OSError as failure:  # its text names a path, which is nobody's business
                code, trouble = "internal", f"cannot record: {failure.strerror or type(failure).__name__}"
        self._tell(live, error(code, trouble, message.n))

    async def stop(self, live: Live) -> None:
        """Write what waits, and tell where it is. Nothing happens if none is running."""
        if live.id not in self._running:
            return
        recorder, untie = self._running.pop(live.id)
        untie()
        recording: Recording = await live.loop.run_in_executor(None, recorder.close)
        self._tell(live, Recorded(files=tuple(self._offered(recording))))

    async def _start(self, live: Live, folder: Path) -> None:
        assert live.opened is not None
        rate = Fraction(live.opened.fps).limit_denominator(1000)

        def warn(line: str) -> None:
            """From the recorder's thread, when it had to give up."""
            live.notify(Warn(message=line))
            live.loop.call_soon_threadsafe(lambda: in_background(self.stop(live)))

        def begin() -> Recorder:
            name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
            return Recorder(folder / name, header_of(self.hub.editor), rate=rate, warn=warn)

        recorder = await live.loop.run_in_executor(None, begin)
        try:
            self.hub.taps(live.id, recorder)
        except ValueError:  # the session ended meanwhile
            await live.loop.run_in_executor(None, recorder.close)
            raise
        deafen = live.sound.listen(recorder.sound)
        forget = live.on_finish(lambda: in_background(self.stop(live)))

        def untie() -> None:
            self.hub.untap(live.id, recorder)
            deafen()
            forget()

        self._running[live.id] = recorder, untie

    def _offered(self, recording: Recording) -> list[str]:
        key = secrets.token_urlsafe(16)
        paths = {f"recordings/{key}/{file.name}": file for file in recording.files}
        self.files |= paths
        for path in list(self.files)[:-KEPT]:
            del self.files[path]
        return list(paths)

    @staticmethod
    def _tell(live: Live, message: Any) -> None:
        if live.listener is not None:
            live.listener.tell(message)
