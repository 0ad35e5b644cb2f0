"""What happens to which worker, and when: a function of the seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

KILL, STOP, RESTART, STUTTER = "kill", "stop", "restart", "stutter"
SLOW, ERROR, NONSENSE, TRUNCATED, FOREIGN, RESET = "slow", "error", "nonsense", "truncated", "foreign", "reset"
OF_PROCESSES = (KILL, STOP, RESTART, STUTTER)
"""Done to a worker's process: SIGKILL, and a new one after a while; SIGSTOP, and SIGCONT; SIGTERM, and a new one at
once; SIGSTOP and SIGCONT in turns."""
OF_PROXIES = (SLOW, ERROR, NONSENSE, TRUNCATED, FOREIGN, RESET)
"""Done by the proxy before a worker: it delays answers; answers 500; answers 200 with what is no message; cuts answers
off; passes on answers under another model's id; closes connections without an answer."""
BLACKOUT = "blackout"
"""All workers are stopped at once, so that no switch can be served."""

# Which of the events are blackouts.
_BLACKOUT_EVERY = 25
_BLACKOUT_S = 2.0
# How long after an event its worker is left alone, so that it can come back.
_REST_S = 3.0


@dataclass(frozen=True, order=True)
class Event:
    """Something of `kind` that happens to `worker` (-1: to all), `at` seconds from the start, for `lasts` seconds."""

    at: float
    worker: int
    kind: str
    lasts: float


def make(seed: int, start_s: float, end_s: float, workers: int, every_s: float) -> list[Event]:
    """Events from `start_s` to `end_s`, one about every `every_s` seconds, that leave one worker alone at any time but
    in a blackout. The last are over at `end_s`."""
    rng = random.Random(seed)
    events: list[Event] = []
    free_at = [start_s] * workers
    at = start_s
    # Each kind comes before any comes again, so that a short run has them all.
    kinds: list[str] = []
    while True:
        if len(events) % _BLACKOUT_EVERY == _BLACKOUT_EVERY - 1:
            event = Event(max(at, *free_at), -1, BLACKOUT, _BLACKOUT_S)
            touched = list(range(workers))
        else:
            free = [worker for worker in range(workers) if free_at[worker] <= at]
            if len(free) < 2:
                at = sorted(free_at)[1]
                continue
            kinds = kinds or rng.sample(OF_PROCESSES + OF_PROXIES, len(OF_PROCESSES + OF_PROXIES))
            event = Event(at, rng.choice(free), kinds.pop(), rng.uniform(1, 4))
            touched = [event.worker]
        if event.at + event.lasts > end_s:
            return events
        events.append(event)
        for worker in touched:
            free_at[worker] = event.at + event.lasts + _REST_S
        at = event.at + rng.uniform(0.5, 1.5) * every_s
