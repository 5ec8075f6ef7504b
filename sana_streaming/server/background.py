"""Work on the event loop that ends when it is done, whoever else ends."""

import asyncio
from collections.abc import Coroutine

_background: set[asyncio.Task] = set()  # the loop itself holds tasks by weak references


def in_background(work: Coroutine) -> asyncio.Task:
    """Run to its end, whoever else ends."""
    task = asyncio.ensure_future(work)
    _background.add(task)
    task.add_done_callback(_background.discard)
    return task


async def background_done(seconds: float) -> None:
    """Until what runs there on this loop is done, at most so long."""
    loop = asyncio.get_running_loop()
    if tasks := [task for task in _background if task.get_loop() is loop]:
        await asyncio.wait(tasks, timeout=seconds)
