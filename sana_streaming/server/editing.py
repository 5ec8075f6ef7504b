"""The model's thread: chunks of all sessions through the model, those first that must be ready first.

Sessions whose chunks are there and fit share a pass, as many as that is worth it for. Nobody waits for company.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from sana_streaming.diffusion.flow import sampling
from sana_streaming.io.size import Size
from sana_streaming.stream import batch
from sana_streaming.stream.governor import Level, levels
from sana_streaming.stream.log import ChunkRecord
from sana_streaming.stream.prompt_policy import Receipt

from .frame import Passage
from .hosted import Hosted, Pass
from .protocol import Anchor, Applied, Command, SetPrompt, SetSeed, Warn
from .registry import Registry
from .taken import Taken, resized

if TYPE_CHECKING:
    from sana_streaming.stream.editor import Editor

WARM_SECONDS = 2.0


class Editing:
    """All methods but `wait` are of the model's thread only."""

    def __init__(self, editor: Editor, registry: Registry):
        self.editor, self.registry, self.clock = editor, registry, registry.clock

    def warm(self, size: Size, chunks: int) -> None:
        """Edit a few grey chunks of that width and height, then of more and more streams at once, while that is worth
        it and not much time has passed: the rest is learnt from those who come."""
        sampler, edits = self.editor.config.sampler, self.editor.config.edits
        prompt = next((edit.example for edit in edits.values()), "make it brighter")
        level, admission = levels(sampler, sampler.steps, size, self.editor.stride)[0], self.registry.admission
        start = self.clock()
        for streams in range(1, admission.most + 1):
            if streams > 1 and (admission.together(streams) < streams or self.clock() - start > WARM_SECONDS):
                break
            sessions = [self.editor.session(prompt) for _ in range(streams)]
            for number in range(chunks):
                grey = torch.full((sessions[0].chunk_frames, size[1], size[0], 3), 128, dtype=torch.uint8)
                begin = self.clock()
                for outcome in self.editor.step_together(sessions, [grey] * streams):
                    if isinstance(outcome, Exception):
                        raise outcome
                if number:
                    admission.measure(self.clock() - begin, streams * len(grey) * level.cost, streams)

    def work(self) -> bool:
        """Edit the chunk that must be ready first, and those that share its pass; False if there is none."""
        self._give_requests()
        with self.registry.lock:
            chunks = self._next()
        if not chunks:
            return False
        if not chunks[0].frames:
            self._end(chunks[0])
            return True
        passing: list[tuple[Taken, Tensor, ChunkRecord | None]] = []
        for chunk in chunks:
            try:
                passing.append((chunk, chunk.seen(), chunk.record()))
            except Exception as failure:
                self._failed(chunk, failure)
        if passing:
            self._edit(passing)
        return True

    def wait(self, seconds: float) -> None:
        """Until there may be work, at most so long."""
        with self.registry.changed:
            if not self._due() and not any(live.requests for live in self.registry.lives.values()):
                self.registry.changed.wait(seconds)

    # What clients asked for

    def _give_requests(self) -> None:
        """To their sessions; each then knows how long its next chunk is."""
        with self.registry.lock:
            asked = [(live, tuple(live.requests.values())) for live in self.registry.lives.values() if live.requests]
            for live, _ in asked:
                live.requests.clear()
        for live, requests in asked:
            for request in requests:
                try:
                    live.given[request.type] = (request, self._request(live, request))  # type: ignore[attr-defined]
                except Exception as failure:
                    self.registry.tell_error(live.id, "editor", failure, request.n)
            with self.registry.lock:
                live.governor.expect(live.session.chunk_frames, self.clock())

    def _request(self, live: Hosted, request: Command) -> Receipt:
        session = live.session
        if isinstance(request, SetPrompt):
            receipt = session.set_prompt(request.prompt, request.policy)
            live.prompt_in_force = request.prompt
            return receipt
        if isinstance(request, SetSeed):
            # Noise as in a new stream with that seed; what is remembered of the picture stays.
            session.generator = torch.Generator().manual_seed(request.seed)
            session.state = session.state and replace(session.state, noise=None)
            live.seed_in_force, live.reseeded = request.seed, True
            return Receipt()
        return session.anchor() if isinstance(request, Anchor) else session.reset()

    # Whose turn it is; with the lock held

    def _due(self) -> list[Hosted]:
        """Whose chunks are there, the one that must be ready first before the others. No stream is put off for ever,
        for the time at which its frames were there stays, even if some of them are dropped."""
        due = [(at, live) for live in self.registry.lives.values() if (at := live.due) is not None]
        return [live for _, live in sorted(due, key=lambda pair: pair[0])]

    def _next(self) -> list[Taken]:
        """What goes through the model next, in one pass."""
        due = self._due()
        if not due:
            return []
        first = due[0]
        fits = self._fits(first) if first.governor.waiting else None  # else it only ends
        others = (live for live in self.registry.lives.values() if live is not first and live.at_work)
        alike = [] if fits is None else [live for live in others if self._fits(live) == fits]
        ready = [first, *(live for live in due[1:] if live in alike and live.governor.waiting)]
        return [self._take(live, 1 + len(alike)) for live in ready[: self.registry.admission.together(len(ready))]]

    def _fits(self, live: Hosted) -> object:
        """Equal for those whose next chunks can share a pass. None: this one goes alone, as do those whose log promises
        the same frames again, bit for bit."""
        own = None if live.taps else batch.kind(live.session)
        return own and (live.shedder.level.size, own)

    def _take(self, live: Hosted, alike: int) -> Taken:
        now, since = self.clock(), live.governor.ready_since
        frames, wanted = live.governor.take(now) or live.governor.rest(), live.governor.chunk
        passage = Passage(now if since is None else since, now, now)
        filling = [None] * (wanted - len(frames)) if frames else ()
        live.pending.extend((*(replace(frame, passage=passage) for frame in frames), *filling))
        return Taken(live, frames, wanted, live.shedder.level, live.epoch, live.taps, alike)

    # Through the model

    def _edit(self, passing: Sequence[tuple[Taken, Tensor, ChunkRecord | None]]) -> None:
        sessions = [chunk.live.session for chunk, _, _ in passing]
        opening = sessions[0].chunks == 0  # has more to do, once; all of a pass are alike in this
        begin = self.clock()
        outcomes = self.editor.step_together(sessions, [seen for _, seen, _ in passing])
        seconds = self.clock() - begin
        took = None if opening else self._measured(seconds, [chunk for chunk, _, _ in passing])
        for (chunk, seen, record), outcome in zip(passing, outcomes, strict=True):
            try:
                if isinstance(outcome, Exception):
                    self._failed(chunk, outcome)
                else:
                    if record is not None:
                        for tap in chunk.taps:
                            tap.chunk(chunk.live.chunks, seen, outcome, record)
                    self._settle(chunk, outcome, took)
            except Exception as failure:
                self._failed(chunk, failure)

    def _measured(self, seconds: float, chunks: Sequence[Taken]) -> Pass:
        """What a pass was for each of those that shared it; they are of one size and length."""
        admission, streams, alike = self.registry.admission, len(chunks), chunks[0].alike
        admission.measure(seconds, sum(chunk.wanted * chunk.level.cost for chunk in chunks), streams)
        share, now, then = seconds / streams, admission.cost(streams), admission.cost(max(alike, streams))
        return Pass(seconds, share, least=share * then / now if then < now else share)

    def _settle(self, chunk: Taken, edited: Tensor, took: Pass | None) -> None:
        """A chunk is edited; took: None if its time is not a usual one."""
        live = chunk.live
        live.reseeded = False
        self._emit(live, edited, chunk.epoch)
        with self.registry.lock:
            now = self.clock()
            live.chunks += 1
            live.worked = now
            live.pacer.period = 1 / live.rate
            if took is not None:
                live.work.append((took, chunk.wanted / live.rate))
            live.governor.expect(live.session.chunk_frames, now)
            if live.id in self.registry.lives:
                self._tell_applied(live, chunk.frames[0].number)
                live.enter("edited")
            load = sum(other.load(now) for other in self.registry.lives.values())
            changed = took is not None and live.shedder.observe(load, now)
        if changed:
            self._relevel(live, chunk.level)

    def _emit(self, live: Hosted, edited: Tensor, epoch: int) -> None:
        """Edited frames, of any size, to where they are shown. A codec that looks ahead gives them later."""
        pictures = resized(edited, live.size).numpy()
        with self.registry.lock:
            now = self.clock()
            sources = [live.pending.popleft() for _ in range(min(len(pictures), len(live.pending)))]
            done = [f.edited(rgb, now) for f, rgb in zip(sources, pictures, strict=False) if f is not None]
            if live.epoch == epoch:
                live.pacer.add(done, now)

    def _tell_applied(self, live: Hosted, frame: int) -> None:
        """Receipts that the chunk just edited, which began with that source frame, has filled in."""
        for kind, (request, receipt) in tuple(live.given.items()):
            if receipt.applied is not None or isinstance(request, SetSeed):
                del live.given[kind]
                live.tell(Applied(n=request.n, command=kind, chunk=live.chunks - 1, frame=frame))

    def _end(self, chunk: Taken) -> None:
        """Of a stream that ends all is edited; what its session held back comes now."""
        live = chunk.live
        try:
            self._emit(live, live.session.flush(), chunk.epoch)
            with self.registry.lock:
                live.drained = self.clock()
        except Exception as failure:
            self._failed(chunk, failure)

    # What changes on the way

    def _relevel(self, live: Hosted, before: Level) -> None:
        """Go on with other steps, or at another size as a new session with the same prompt and seed."""
        level, session = live.shedder.level, live.session
        if level.size == before.size:
            session.sampling = sampling(self.editor.config.sampler, level.steps)
        else:
            self._emit(live, session.flush(), live.epoch)
            self._another(live)
        with self.registry.lock:
            live.work.clear()
            live.governor.expect(live.session.chunk_frames, self.clock())
            live.tell_state()

    def _another(self, live: Hosted) -> None:
        """A new session at the level of now takes over, with the prompt and the seed in force."""
        prompt, seed, steps = live.prompt_in_force, live.seed_in_force, live.shedder.level.steps
        live.session, live.reseeded = self.editor.session(prompt, seed=seed, steps=steps), False
        with self.registry.lock:
            live.pending.clear()

    def _failed(self, chunk: Taken, failure: Exception) -> None:
        """The session ends, the others go on; but a stream whose numbers went out of range begins anew."""
        live = chunk.live
        if isinstance(failure, FloatingPointError) and live.session.chunks:
            self._begin_anew(live, len(chunk.frames), failure)
            return
        code = "memory" if isinstance(failure, MemoryError) else "editor"
        plain = isinstance(failure, MemoryError | FloatingPointError)
        self.registry.tell_error(live.id, code, failure if plain else f"{type(failure).__name__}: {failure}")
        self.registry.close(live.id, "the model failed")

    def _begin_anew(self, live: Hosted, frames: int, failure: Exception) -> None:
        """It loses that chunk and its memory, and the show goes on."""
        self._another(live)
        with self.registry.lock:
            live.governor.dropped += frames
            live.requests = {**{kind: request for kind, (request, _) in live.given.items()}, **live.requests}
            live.given = {}
            live.governor.expect(live.session.chunk_frames, self.clock())
            live.tell(Warn(message=f"the stream begins anew: {' '.join(str(failure).split())}"))


class Works(Protocol):
    """What a worker runs: a hub."""

    def work(self) -> bool: ...

    def wait(self, seconds: float) -> None: ...


class Worker(threading.Thread):
    """Runs the model for a hub, until `stop`."""

    def __init__(self, hub: Works):
        super().__init__(name="model", daemon=True)
        self.hub = hub
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.is_set():
            if not self.hub.work():
                self.hub.wait(0.1)

    def stop(self) -> None:
        """After the chunk that is being edited."""
        self._stopping.set()
