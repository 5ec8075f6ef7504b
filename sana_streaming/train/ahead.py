"""Work ahead: the next batch is made while the GPU is busy with this one."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

import torch

from sana_streaming.state import tensors

R = TypeVar("R")


class Ahead(Generic[R]):
    """Runs one function at a time in a thread of its own and, on a GPU, on a stream of its own.

    Results are tensors, or tuples and dataclasses of them.
    """

    def __init__(self, device: torch.device):
        self.pool = ThreadPoolExecutor(1)
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.future: Future[tuple[R, torch.cuda.Event | None]] | None = None

    def start(self, function: Callable[[], R]) -> None:
        self.future = self.pool.submit(self._run, function)

    def wait(self) -> None:
        """Until nothing runs there, and so nothing is launched from another thread; `take` still returns the result."""
        if self.future is not None:
            wait([self.future])

    def take(self) -> R:
        """What the function that was started last returned, or raised."""
        assert self.future is not None
        result, done = self.future.result()
        self.future = None
        if done is not None:
            current = torch.cuda.current_stream(self.stream.device if self.stream else None)
            current.wait_event(done)
            for tensor in tensors(result):
                tensor.record_stream(current)  # its memory must not go to the other stream before this one has read it
        return result

    def _run(self, function: Callable[[], R]) -> tuple[R, torch.cuda.Event | None]:
        if self.stream is None:
            return function(), None
        with torch.cuda.stream(self.stream):
            return function(), self.stream.record_event()
