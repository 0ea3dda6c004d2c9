"""What a replica tells of itself, as the fields of an endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmd_sched.ray._settings import Settings

# Under this key of its metadata a replica describes its engine.
METADATA_KEY = "llmd_sched"
# What Ray's own LLM replicas publish among their routing stats.
RAY_LLM_KEY = "kv_event_metadata"


def endpoint_of(replica: Any, settings: Settings) -> dict[str, Any]:
    """Keywords of :meth:`llmd_sched.Router.add_endpoint`, without the address."""
    described: dict[str, Any] = {}
    topology = {
        "host": getattr(replica, "node_id", None),
        "zone": getattr(replica, "availability_zone", None),
    }
    if known := {key: value for key, value in topology.items() if value}:
        described["topology"] = known
    if settings.kv_events == "auto":
        described.update(kv_events_of(replica))
    return described


def kv_events_of(replica: Any) -> dict[str, str]:
    """Where a replica's engine publishes its KV events, if it tells."""
    metadata = getattr(replica, "replica_metadata", None) or {}
    own = metadata.get(METADATA_KEY)
    if isinstance(own, Mapping) and own.get("kv_events"):
        named = ("kv_events", "kv_replay", "kv_topic", "kv_format")
        return {name: own[name] for name in named if own.get(name)}
    stats = getattr(replica, "routing_stats", None) or {}
    ray_llm = stats.get(RAY_LLM_KEY)
    if isinstance(ray_llm, Mapping) and ray_llm.get("endpoint"):
        told = {"kv_events": ray_llm["endpoint"]}
        if ray_llm.get("replay_endpoint"):
            told["kv_replay"] = ray_llm["replay_endpoint"]
        return told
    return {}
