"""What a replica tells routers of its engine: once where it is followed, and from time to time how
it is.

A router that knows where an engine publishes its KV events knows exactly what it holds, and one
that knows its metrics page reads that itself. Where there is none to read, Ray brings how the
engine is with its routing stats.
"""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections.abc import Mapping
from typing import Any

from llmd_sched._core import describe_engine, read_metrics
from llmd_sched._errors import EngineError
from llmd_sched._types import Signals
from llmd_sched.ray._replicas import ENGINE_KEY, LOOKS_KEY, METADATA_KEY, TOLD

READ_TIMEOUT_S = 5.0
# Ray passes on what changed, and nothing of an engine that is idle again. So long after a change it
# is told that nothing has: routers that hear of no ends compare only what has had time to show.
AGAIN_S = 3.0


class EngineSignals:
    """Mixed into a deployment's class: its replicas tell of their engines.

    Call :meth:`tell_engine` in ``__init__``, once the engine is up; Ray calls the two ``record_``
    methods. Where the replica's engine has no metrics page that routers can read, override
    :meth:`engine_signals`. vLLM inside the replica:

    .. code-block:: python

        @serve.deployment(request_router_config=RequestRouterConfig(
            request_router_class="llmd_sched.ray:LlmdRouter",
            request_routing_stats_period_s=1,
        ))
        class Engine(EngineSignals):
            def __init__(self):
                self.engine = AsyncLLM.from_engine_args(...)  # with kv_events_config
                host = ray.util.get_node_ip_address()
                self.tell_engine(kv_events=f"tcp://{host}:5557", kv_replay=f"tcp://{host}:5657")

            async def engine_signals(self):
                return read_metrics(prometheus_client.generate_latest().decode())

    """

    _engine_url: str | None = None
    _engine_told: Mapping[str, Any] | None = None
    _metadata_taken = False
    _looks = 0
    _last_signals: Signals | None = None
    _changed_s = 0.0

    def tell_engine(self, url: str | None = None, **told: Any) -> None:
        """Says where the engine is followed, and what it can hold.

        ``url`` is that of an engine that is up, which is asked what it is
        (:func:`llmd_sched.describe_engine`); name a host that routers can reach. ``told`` are
        keywords of :meth:`llmd_sched.Router.add_endpoint` that win over what it says:
        ``kv_events``, ``kv_replay``, ``kv_topic``, ``kv_format``, ``metrics``, ``capacity``,
        ``labels`` (``engine-profile`` is one) and, where replicas of a deployment serve several,
        ``model``. With ``metrics=None`` routers do not read the
        engine's page: the replica does, when Ray asks it.

        Raises ``TypeError`` for another keyword, :class:`llmd_sched.EngineError` where the engine
        cannot be reached or has several data-parallel ranks.
        """
        if unknown := told.keys() - set(TOLD):
            raise TypeError(f"unknown {sorted(unknown)}: an engine is told by {', '.join(TOLD)}")
        said: dict[str, Any] = {}
        if url is not None:
            ranks = describe_engine(url)
            if len(ranks) != 1:
                raise EngineError(
                    f"engine {url} has {len(ranks)} data-parallel ranks: to Ray a replica is one "
                    "place, so make one replica for each rank"
                )
            # To a router without aliases, all replicas of a deployment serve the same.
            said = {name: ranks[0].get(name) for name in TOLD if name != "model"}
        said |= told
        self._engine_url = url
        self._engine_told = {name: value for name, value in said.items() if value is not None}

    async def engine_signals(self) -> Signals:
        """How the engine is now: what is on its metrics page, where routers do not read that."""
        if self._engine_url is None or "metrics" in (self._engine_told or {}):
            return {}
        return read_metrics(await asyncio.to_thread(read, f"{self._engine_url}/metrics"))

    def record_replica_metadata(self) -> dict[str, Any]:
        """Ray calls it once, when the replica is up."""
        if self._engine_told is None:
            raise RuntimeError(
                "EngineSignals: call tell_engine() in __init__, when the engine is up"
            )
        self._metadata_taken = True
        return {METADATA_KEY: dict(self._engine_told)}

    async def record_routing_stats(self) -> dict[str, Any]:
        """Ray calls it every ``request_routing_stats_period_s``."""
        signals = await self.engine_signals()
        stats: dict[str, Any] = {METADATA_KEY: signals}
        if signals:
            stats[LOOKS_KEY] = self._look_at(signals)
        # Ray 2.50 does not ask for metadata; those that do ask before this.
        if self._engine_told is not None and not self._metadata_taken:
            stats[ENGINE_KEY] = dict(self._engine_told)
        return stats

    def _look_at(self, signals: Signals) -> int:
        """Which look at the engine this is, of those that Ray is to pass on."""
        now_s = time.monotonic()
        if signals != self._last_signals:
            self._last_signals, self._changed_s = signals, now_s
        if now_s - self._changed_s < AGAIN_S:
            self._looks += 1
        return self._looks


def read(url: str) -> str:
    """A page."""
    with urllib.request.urlopen(url, timeout=READ_TIMEOUT_S) as answer:
        page: bytes = answer.read()
    return page.decode(errors="replace")
