"""Who may begin: as many sessions as the model was measured to keep up with, the others in a queue."""

from collections import deque
from statistics import median

MEASURED = 32  # chunks that tell what work costs


class QueueFull(ValueError):
    """There is not even room to wait."""


class Admission:
    """Sessions by id, each with its demand: units of work per second of video, at full quality.

    What a unit costs is the median over the latest chunks of all sessions. Another session begins while all of them
    together, it included, would take less than the whole of the time. One may always begin, and until a chunk was
    measured as many as there are places.
    """

    def __init__(self, sessions: int, waiting: int):
        self.sessions, self.places = sessions, waiting
        self.admitted: dict[str, float] = {}
        self.queue: dict[str, float] = {}  # in order
        self._costs: deque[float] = deque(maxlen=MEASURED)

    def measure(self, seconds: float, units: float) -> None:
        """A chunk took so long."""
        self._costs.append(seconds / units)

    @property
    def cost(self) -> float:
        """Seconds per unit of work; 0 as long as nothing is known."""
        return median(self._costs) if self._costs else 0.0

    @property
    def load(self) -> float:
        """Share of the time that the admitted sessions take."""
        return self.cost * sum(self.admitted.values())

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
        return len(self.admitted) < self.sessions and self.load + self.cost * demand < 1
