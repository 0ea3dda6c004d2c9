"""`ray.serve.llm`'s server whose replicas tell routers what their vLLM holds, and how it is."""

from __future__ import annotations

import logging
import socket
from typing import Any

from llmd_sched._errors import MissingDependencyError
from llmd_sched._types import Signals
from llmd_sched.ray._signals import EngineSignals
from llmd_sched.ray.llm import router_config

try:
    import ray
    from ray.llm._internal.serve.core.server.llm_server import LLMServer
except ImportError as absent:
    raise MissingDependencyError(
        f"llmd_sched.ray.llm_server is written for ray.serve.llm of Ray 2.60 ({absent}): "
        "pip install 'ray[llm]'"
    ) from absent

logger = logging.getLogger("llmd_sched.ray")


class LlmdServer(EngineSignals, LLMServer):  # type: ignore[misc]  # Ray brings no types that hold
    """``LLMConfig(server_cls="llmd_sched.ray.llm_server:LlmdServer", ...)``, and nothing else;
    :mod:`llmd_sched.ray.llm` names it itself.

    The deployment's requests are routed by :class:`llmd_sched.ray.LlmdRouter`, unless its
    ``request_router_config`` names another; its engines publish KV events, each on ports of its
    own, unless ``engine_kwargs`` has ``kv_events_config``; and its replicas tell routers where, and
    how the engine is.
    """

    _signals: Signals

    @classmethod
    def get_deployment_options(cls, llm_config: Any) -> dict[str, Any]:
        """What Ray deploys it with."""
        options: dict[str, Any] = super().get_deployment_options(llm_config)
        options.setdefault("request_router_config", router_config(llm_config, {}))
        return options

    async def start(self) -> None:
        """Starts the engine, and tells of it."""
        publish_kv_events(self._llm_config)
        await super().start()
        self._signals = {}
        client = getattr(self.engine, "_engine_client", None)
        sources = {} if client is None else client.get_kv_event_sources()
        if len(sources) > 1:
            logger.warning("%d ranks behind one replica: none is followed", len(sources))
        told: dict[str, Any] = {}
        if len(sources) == 1:
            (source,) = sources.values()
            host = ray.util.get_node_ip_address()
            told["kv_events"] = source.endpoint.replace("*", host)
            if source.replay_endpoint:
                told["kv_replay"] = source.replay_endpoint.replace("*", host)
        if client is not None:
            told["capacity"] = self._follow(client.vllm_config)
        self.tell_engine(**told)

    def _follow(self, config: Any) -> dict[str, int]:
        """Hears how the engine is from now on, and says what it can hold."""
        from llmd_sched.vllm._stats import follow

        def hear(_rank: int, signals: Signals) -> None:
            self._signals = signals

        follow(config, hear)
        cache, batches = config.cache_config, config.scheduler_config
        capacity = {
            "block_size": cache.block_size,
            "kv_blocks": cache.num_gpu_blocks,
            "max_running_requests": batches.max_num_seqs,
            "max_batch_tokens": batches.max_num_batched_tokens,
            "max_model_len": config.model_config.max_model_len,
        }
        return {name: value for name, value in capacity.items() if value}

    async def engine_signals(self) -> Signals:
        """How the engine was after its last step."""
        return self._signals

    async def record_routing_stats(self) -> dict[str, Any]:
        """Ray LLM's own, and ours."""
        theirs = await LLMServer.record_routing_stats(self)
        return {**theirs, **await EngineSignals.record_routing_stats(self)}


def publish_kv_events(llm_config: Any) -> None:
    """Has the engine publish KV events on ports that are free on this node."""
    given = dict(llm_config.engine_kwargs.get("kv_events_config") or {})
    if given.get("endpoint"):
        return
    events, replay = free_ports(2)
    llm_config.update_engine_kwargs(
        kv_events_config={
            "enable_kv_cache_events": True,
            "publisher": "zmq",
            **given,
            "endpoint": f"tcp://*:{events}",
            "replay_endpoint": f"tcp://*:{replay}",
        }
    )


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now. Where somebody else is quicker, Ray starts the replica anew."""
    held = [socket.socket() for _ in range(count)]
    try:
        for one in held:
            one.bind(("", 0))
        return [one.getsockname()[1] for one in held]
    finally:
        for one in held:
            one.close()
