"""vLLM's stat logger plugin: how an engine is, after each of its steps, for whoever follows."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from typing import Any, ClassVar

from llmd_sched._errors import MissingDependencyError
from llmd_sched._types import Signals
from llmd_sched.vllm._borrowed import borrowed, settings_of

[_StatLoggerBase] = borrowed("vllm.v1.metrics.loggers", "StatLoggerBase")

logger = logging.getLogger("llmd_sched.vllm")

Follower = Callable[[int, Signals], None]

_followers: dict[str, list[Follower]] = {}


def follow(vllm_config: Any, follower: Follower) -> Callable[[], None]:
    """Calls ``follower(rank, signals)`` after each step of an engine of this process.

    Returns what ends it. The follower is called in the engine's event loop: it must not wait.
    """
    name = vllm_config.instance_id
    _followers.setdefault(name, []).append(follower)

    def end() -> None:
        there = _followers.get(name, [])
        if follower in there:
            there.remove(follower)
        if not there:
            _followers.pop(name, None)

    return end


class StatLogger(_StatLoggerBase):  # type: ignore[misc, valid-type]
    """Tells followers in this process, and subscribers of ``signals``, how one rank is.

    Found by vLLM through the entry point ``vllm.stat_logger_plugins``. With
    ``--additional-config '{"llmd_sched": {"signals": "tcp://*:5600"}}'`` it publishes over ZeroMQ
    what :class:`llmd_sched.vllm.SignalFeed` takes in; that needs pyzmq, which vLLM brings.
    """

    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
        self._config = vllm_config
        self._rank = engine_index
        self._queries_tokens = 0
        self._hits_tokens = 0
        self._is_broken = False
        address = settings_of(vllm_config).get("signals")
        self._publisher = None if address is None else _Publisher.at(address)

    def record(
        self,
        scheduler_stats: Any,
        iteration_stats: Any,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
    ) -> None:
        """What vLLM calls after a step; without statistics of the scheduler there is no news.

        Nothing is raised: vLLM's output loop would end with it, and every request.
        """
        if scheduler_stats is None or self._is_broken:
            return
        try:
            self._tell(scheduler_stats)
        except Exception:
            self._is_broken = True
            logger.exception("signals of rank %d end here", self._rank)

    def _tell(self, stats: Any) -> None:
        # These count one step's.
        lookups = stats.prefix_cache_stats
        self._queries_tokens += lookups.queries
        self._hits_tokens += lookups.hits
        followers = _followers.get(self._config.instance_id, ())
        if not followers and self._publisher is None:
            return
        signals = self._signals(stats)
        for follower in list(followers):
            follower(self._rank, signals)
        if self._publisher is not None:
            self._publisher.send(self._rank, signals)

    def _signals(self, stats: Any) -> Signals:
        signals: Signals = {
            "waiting_requests": float(stats.num_waiting_reqs + stats.num_skipped_waiting_reqs),
            "running_requests": float(stats.num_running_reqs),
            "kv_usage": min(max(stats.kv_cache_usage, 0.0), 1.0),
            "prefix_cache_queries_tokens": float(self._queries_tokens),
            "prefix_cache_hits_tokens": float(self._hits_tokens),
        }
        cache = self._config.cache_config
        if cache.num_gpu_blocks:
            signals["kv_blocks"] = cache.num_gpu_blocks
            signals["block_size"] = cache.block_size
        if self._config.lora_config is not None:
            signals["running_loras"] = sorted(stats.running_lora_adapters)
            signals["waiting_loras"] = sorted(stats.waiting_lora_adapters)
        return signals

    def log_engine_initialized(self) -> None:
        """Nothing is to be said of it."""


class _Publisher:
    """One ZeroMQ socket an address: ranks of one process share it."""

    _there: ClassVar[dict[str, _Publisher]] = {}
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, address: str) -> None:
        try:
            import zmq
        except ImportError as absent:
            raise MissingDependencyError(
                f"signals are published with pyzmq ({absent}): pip install pyzmq"
            ) from absent
        self._again = zmq.Again
        self._no_wait = zmq.DONTWAIT
        self._socket: Any = zmq.Context.instance().socket(zmq.PUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.bind(address)

    @classmethod
    def at(cls, address: str) -> _Publisher:
        with cls._lock:
            if address not in cls._there:
                cls._there[address] = cls(address)
            return cls._there[address]

    def send(self, rank: int, signals: Signals) -> None:
        """Never waits: a subscriber that is slow misses what the next message says anew."""
        try:
            self._socket.send(json.dumps([rank, signals]).encode(), self._no_wait)
        except self._again:
            return
