"""Who may begin: as many sessions as the model was measured to keep up with, the others in a queue; and how many of
them share a pass of the model: as many as that makes cheaper."""

from collections import deque
from statistics import median

MEASURED = 32  # passes that tell what work costs
TRIED = 3  # passes of some number of streams, before it is judged
WORTH = 0.9  # of its cost alone: what a chunk may cost in a pass of several, which keeps the first one waiting


class QueueFull(ValueError):
    """There is not even room to wait."""


class Admission:
    """Sessions by id, each with its demand: units of work per second of video, at full quality.

    What a unit costs is the median over the latest passes of as many streams as would share one if all were ready at
    once, which they are when there is much to do. Another session begins while all of them together, it included,
    would take less than the whole of the time. One may always begin, and until a pass was measured as many as there
    are places.
    """

    def __init__(self, sessions: int, waiting: int, together: int = 1):
        """At most so many sessions, places in the queue, and streams in one pass."""
        self.sessions, self.places, self.most = sessions, waiting, together
        self.admitted: dict[str, float] = {}
        self.queue: dict[str, float] = {}  # in order
        self._costs = {streams: deque[float](maxlen=MEASURED) for streams in range(1, together + 1)}

    def measure(self, seconds: float, units: float, streams: int = 1) -> None:
        """A pass took so long, the chunks of so many streams together so many units."""
        self._costs[streams].append(seconds / units)

    def together(self, ready: int) -> int:
        """How many streams should share a pass, of those that are ready and fit. One more is tried where fewer were
        worth it; before it is known what one alone costs, nothing is."""
        most = min(ready, self.most)
        known = self._worth(most)
        return min(known + 1, most) if self._costs[1] and not self._judged(known + 1) else known

    def cost(self, streams: int) -> float:
        """Seconds per unit of work of so many streams; 0 as long as nothing is known."""
        costs = self._costs[self._worth(min(streams, self.most))]
        return median(costs) if costs else 0.0

    @property
    def load(self) -> float:
        """Share of the time that the admitted sessions take, when they take the most."""
        return self.cost(max(1, len(self.admitted))) * sum(self.admitted.values())

    def ask(self, session_id: str, demand: float) -> int:
        """0: it may begin; else its position in the queue. QueueFull if there is no place."""
        if not self.queue and self._room(demand):
            self.admitted[session_id] = demand
            return 0
        if len(self.queue) >= self.places:
            raise QueueFull(f"no room: {len(self.admitted)} sessions run and {len(self.queue)} wait; try again later")
        self.queue[session_id] = demand
        return len(self.queue)

    def leave(self, session_id: str) -> None:
        self.admitted.pop(session_id, None)
        self.queue.pop(session_id, None)

    def advance(self) -> list[str]:
        """Those who waited and may begin now, in the order in which they came."""
        begun = []
        while self.queue:
            session_id, demand = next(iter(self.queue.items()))
            if not self._room(demand):
                break
            del self.queue[session_id]
            self.admitted[session_id] = demand
            begun.append(session_id)
        return begun

    def position(self, session_id: str) -> int:
        """From 1; 0 for one that does not wait."""
        return list(self.queue).index(session_id) + 1 if session_id in self.queue else 0

    def _room(self, demand: float) -> bool:
        if not self.admitted:
            return self.sessions > 0
        streams, all_demand = len(self.admitted) + 1, sum(self.admitted.values()) + demand
        return streams <= self.sessions and self.cost(streams) * all_demand < 1

    def _judged(self, streams: int) -> bool:
        return len(self._costs.get(streams, ())) >= TRIED

    def _worth(self, most: int) -> int:
        """The most streams of a pass that, like all smaller numbers, was found worth it."""
        streams = 1
        while streams < most and self._judged(streams + 1):
            if median(self._costs[streams + 1]) > WORTH * median(self._costs[1] or [0.0]):
                break
            streams += 1
        return streams
