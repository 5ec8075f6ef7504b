"""Read ahead and write behind in threads, so that neither end of the road waits for the other or for the model."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from .frame import Frame, Reader, Sound, Writer

DEPTH = 16  # frames that wait at most


class ReadAhead:
    """A reader whose next frames are already on their way."""

    def __init__(self, reader: Reader, depth: int = DEPTH):
        self.info = reader.info
        self._reader, self._depth = reader, depth
        self._thread = ThreadPoolExecutor(1, "read-ahead")

    def frames(self, size: tuple[int, int] | None = None) -> Iterator[Frame]:
        frames = self._reader.frames(size)
        coming: deque[Future[Frame | None]] = deque()
        coming.extend(self._thread.submit(next, frames, None) for _ in range(self._depth))
        while (frame := coming.popleft().result()) is not None:
            coming.append(self._thread.submit(next, frames, None))
            yield frame

    def soundtrack(self) -> Sound | None:
        return self._reader.soundtrack()

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)
        self._reader.close()


class WriteBehind:
    """A writer that does not keep anybody waiting. What goes wrong is told at the next frame, or at the end."""

    def __init__(self, writer: Writer, depth: int = DEPTH):
        self._writer, self._depth = writer, depth
        self._thread = ThreadPoolExecutor(1, "write-behind")
        self._waiting: deque[Future[None]] = deque()

    def write(self, frame: Frame) -> None:
        while len(self._waiting) >= self._depth:
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(self._writer.write, frame))

    def close(self, keep_tail: bool = True) -> None:
        while self._waiting:
            self._waiting.popleft().result()
        self._thread.shutdown()
        self._writer.close(keep_tail)

    def abort(self) -> None:
        self._thread.shutdown(cancel_futures=True)
        self._writer.abort()
