"""Where the routers of a deployment find each other: an actor that knows their addresses, and which
replicas are to get no requests.

What routers tell each other does not go through it, so it is asked once in half a minute by each,
and answers at once only when somebody came or left. A call of an actor costs a millisecond of CPU:
a hundred exchanges a second would cost a tenth of a core for each router.
"""

from __future__ import annotations

from typing import Any

NAME = "rendezvous"
NAMESPACE = "llmd_sched"

# How long a router waits for others to come or leave before it asks again.
PATIENCE_S = 30.0
# How long the address of one that asks no more is given to others. What it had in flight is
# forgotten long before: by `fleet.peer_ttl_ms`.
LEASE_S = 3 * PATIENCE_S


def rendezvous() -> Any:
    """The handle of the cluster's rendezvous; makes it where there is none. Waits for Ray.

    It ends with the process that made it; whoever asks next makes another.
    """
    import ray

    actor = ray.remote(num_cpus=0, max_concurrency=10_000)(directory_class())
    return actor.options(name=NAME, namespace=NAMESPACE, get_if_exists=True).remote()


def directory_class() -> type:
    """The actor's class. Made here, so that Ray takes it to the actor's process by value: on that
    node there may be no `llmd_sched`.
    """
    patience_s, lease_s = PATIENCE_S, LEASE_S

    class Directory:
        """Who routes which deployment, for as long as they ask."""

        def __init__(self) -> None:
            import asyncio
            import os
            import time

            self._asyncio = asyncio
            self._clock = time.monotonic
            # Versions of one actor mean nothing to the next.
            self._epoch = os.urandom(8).hex()
            self._versions: dict[str, int] = {}
            # By deployment and router: its address, and until when it is there.
            self._routers: dict[str, dict[str, tuple[str, float]]] = {}
            self._changed: dict[str, Any] = {}
            self._cordoned: dict[str, set[str]] = {}

        async def meet(
            self, deployment: str, router: str, address: str, cordoned: list[str], seen: str
        ) -> tuple[str, list[str], list[str]]:
            """Notes that a router is there, and returns a version, the addresses of all, and the
            replicas that are cordoned: as soon as they are not those of the version `seen`, or when
            patience ends. What the first one knows to be cordoned an actor before this was told.
            """
            self._cordoned.setdefault(deployment, set(cordoned))
            there = self._routers.setdefault(deployment, {})
            is_news = there.get(router, ("", 0.0))[0] != address
            there[router] = (address, self._clock() + lease_s)
            if self._forget_silent(there) or is_news:
                self._announce(deployment)
            if self._seen(deployment) == seen:
                changed = self._changed.setdefault(deployment, self._asyncio.Event())
                try:
                    await self._asyncio.wait_for(changed.wait(), patience_s)
                except self._asyncio.TimeoutError:
                    if self._forget_silent(there):
                        self._announce(deployment)
            addresses = sorted(address for address, _ in there.values() if address)
            return self._seen(deployment), addresses, sorted(self._cordoned[deployment])

        def cordon(self, deployment: str, replica: str, is_cordoned: bool) -> bool:
            """Whether there is anybody to tell it to."""
            if (cordoned := self._cordoned.get(deployment)) is None:
                return False
            (cordoned.add if is_cordoned else cordoned.discard)(replica)
            self._announce(deployment)
            return True

        def leave(self, deployment: str, router: str) -> None:
            """Forgets a router."""
            if self._routers.get(deployment, {}).pop(router, None) is not None:
                self._announce(deployment)

        def _seen(self, deployment: str) -> str:
            return f"{self._epoch}:{self._versions.get(deployment, 0)}"

        def _announce(self, deployment: str) -> None:
            self._versions[deployment] = self._versions.get(deployment, 0) + 1
            if (changed := self._changed.pop(deployment, None)) is not None:
                changed.set()

        def _forget_silent(self, there: dict[str, tuple[str, float]]) -> bool:
            now_s = self._clock()
            silent = [router for router, (_, until_s) in there.items() if until_s <= now_s]
            for router in silent:
                del there[router]
            return bool(silent)

    return Directory
