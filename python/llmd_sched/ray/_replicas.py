"""What a replica tells of itself, as the router's endpoint and its signals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmd_sched.ray._settings import Settings

# Under this key of its metadata a replica describes its engine; of its routing stats, how that is.
METADATA_KEY = "llmd_sched"
# Under this one of its routing stats it describes its engine where Ray takes no metadata.
ENGINE_KEY = "llmd_sched_engine"
# Under this one it counts its looks at the engine, while there is news of it.
LOOKS_KEY = "llmd_sched_looks"
# What Ray's own LLM replicas publish among their routing stats.
RAY_LLM_KEY = "kv_event_metadata"

KV_EVENTS = ("kv_events", "kv_replay", "kv_topic", "kv_format")
# Keywords of `Router.add_endpoint` that a replica may tell.
TOLD = (*KV_EVENTS, "metrics", "capacity", "labels", "model")


def endpoint_of(replica: Any, settings: Settings) -> dict[str, Any]:
    """Keywords of :meth:`llmd_sched.Router.add_endpoint`, without the address."""
    described = told_by(replica) or told_by_ray_llm(replica)
    if settings.kv_events == "off":
        described = {name: it for name, it in described.items() if name not in KV_EVENTS}
    topology = {
        "host": getattr(replica, "node_id", None),
        "zone": getattr(replica, "availability_zone", None),
    }
    if known := {key: value for key, value in topology.items() if value}:
        described["topology"] = known
    return described


def signals_of(replica: Any) -> tuple[Mapping[str, Any] | None, Any]:
    """Keywords of :meth:`llmd_sched.Router.report`, if it tells, and of which look they are."""
    stats = getattr(replica, "routing_stats", None) or {}
    own = stats.get(METADATA_KEY)
    return own if isinstance(own, Mapping) and own else None, stats.get(LOOKS_KEY)


def told_by(replica: Any) -> dict[str, Any]:
    """What a replica of :class:`llmd_sched.ray.EngineSignals` tells of its engine."""
    metadata = getattr(replica, "replica_metadata", None) or {}
    stats = getattr(replica, "routing_stats", None) or {}
    own = metadata.get(METADATA_KEY) or stats.get(ENGINE_KEY)
    if not isinstance(own, Mapping):
        return {}
    return {name: own[name] for name in TOLD if own.get(name)}


def told_by_ray_llm(replica: Any) -> dict[str, Any]:
    """What one of ``ray.serve.llm`` does."""
    stats = getattr(replica, "routing_stats", None) or {}
    own = stats.get(RAY_LLM_KEY)
    if not isinstance(own, Mapping) or not own.get("endpoint"):
        return {}
    told: dict[str, Any] = {"kv_events": own["endpoint"]}
    if own.get("replay_endpoint"):
        told["kv_replay"] = own["replay_endpoint"]
    limits = {"block_size": "block_size", "max_num_batched_tokens": "max_batch_tokens"}
    if capacity := {limits[name]: own[name] for name in limits if own.get(name)}:
        told["capacity"] = capacity
    return told
