"""What telling each other costs routers: `make bench-telling`.

CPU time, by messages of 8 and of 1,024 endpoints: to make one, to take one in, and both ends of one
that goes over a socket, each of which wakes two threads. And a call of a Ray actor, which is the
other way to tell: at its caller and in the actor. Prints a line BENCH {json} last.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

from llmd_sched import Router

MESSAGES = 300
INTERVAL_MS = 10.0


def router(name: str, endpoints: int) -> Router:
    made = Router({"fleet": {"router": name, "max_endpoints": endpoints}})
    for number in range(endpoints):
        made.add_endpoint(f"http://10.0.{number // 256}.{number % 256}:8000")
    return made


def busy(name: str, endpoints: int) -> Router:
    """One that has a request on each endpoint."""
    made = router(name, endpoints)
    for endpoint in made.endpoints():
        made.route(range(1_000), allowed=[endpoint])
    return made


def cpu_us(count: int, call: Callable[[], Any]) -> float:
    """CPU time of a call in this process, microseconds."""
    before_s = time.process_time()
    for _ in range(count):
        call()
    return (time.process_time() - before_s) * 1e6 / count


def both_ends_us(endpoints: int) -> float:
    """CPU time of a message over a socket: what booking and ending costs beside it is taken off."""
    told, other = busy("told", endpoints), router("other", endpoints)

    def work() -> float:
        """CPU seconds of so many intervals, in each of which something changes."""
        before_s = time.process_time()
        for _ in range(MESSAGES):
            decision = told.route(range(64))
            time.sleep(2 * INTERVAL_MS / 1e3)
            told.finish(decision)
        return time.process_time() - before_s

    alone_s = work()
    other.hear_peers([told.tell_peers("tcp://127.0.0.1:0", interval_ms=INTERVAL_MS)])
    while other.stats()["peers"]["heard"] == 0:
        time.sleep(0.01)
    before = told.stats()["peers"]["told"]
    together_s = work()
    messages = told.stats()["peers"]["told"] - before
    for it in (told, other):
        it.close()
    return (together_s - alone_s) * 1e6 / messages


def actor_call_us() -> dict[str, float]:
    """CPU time of a call of an actor."""
    import ray

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)

    class Actor:
        def meet(self, _message: bytes) -> None:
            """Takes a message."""

        def cpu_s(self) -> float:
            """Of its process so far."""
            return time.process_time()

    actor = ray.remote(num_cpus=0)(Actor).remote()
    message = bytes(600)
    ray.get(actor.meet.remote(message))
    before_s = ray.get(actor.cpu_s.remote())
    caller_us = cpu_us(1_000, lambda: ray.get(actor.meet.remote(message)))
    callee_us = (ray.get(actor.cpu_s.remote()) - before_s) * 1e6 / 1_000
    ray.shutdown()
    return {"actor_caller_us": caller_us, "actor_us": callee_us}


def main() -> None:
    """Measures, and prints."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    figures: dict[str, float] = {}
    for endpoints in (8, 1_024):
        told, other = busy("told", endpoints), router("other", endpoints)
        message = told.own_totals()
        count = 40_000 // endpoints
        figures |= {
            f"make_us_{endpoints}": cpu_us(count, told.own_totals),
            f"take_us_{endpoints}": cpu_us(count, lambda: other.peer_totals(told.own_totals())),  # noqa: B023
            f"bytes_{endpoints}": len(message),
            f"both_ends_us_{endpoints}": both_ends_us(endpoints),
        }
        # A message that was taken in is old: each is made anew.
        figures[f"take_us_{endpoints}"] -= figures[f"make_us_{endpoints}"]
    figures |= actor_call_us()
    for name, value in figures.items():
        print(f"{name:22} {value:8.1f}")
    print("BENCH", json.dumps({name: round(value, 1) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
