"""What the routers of a process count, among Ray's own metrics.

Ray adds where it was counted (node, worker), exports on every node what its processes have, and
puts ``ray_`` before the names and ``_total`` behind those of counts. Nothing of it is done in a
pick.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

# Seconds between two looks at the counters.
PERIOD_S = 10.0
DEPLOYMENT = "deployment"

# Metric -> where `counters()` has it, and what it says. Counts, which only grow:
COUNTS: dict[str, tuple[tuple[str, ...], str]] = {
    "llmd_picks": (("picks",), "Requests that were picked a place."),
    "llmd_repicks": (("repicks",), "Picks of requests that had been picked one before."),
    "llmd_moved": (("moved",), "Requests that Ray sent elsewhere than picked."),
    "llmd_fallbacks": (("fallbacks",), "Times that Ray chose because the router failed."),
    "llmd_reports": (("reports",), "Routing stats of replicas that were read."),
    "llmd_bad_reports": (("bad_reports",), "Things that replicas told and that made no sense."),
    "llmd_prompt_tokens": (
        ("router", "requests", "prompt_tokens"),
        "Prompt tokens of placed requests.",
    ),
    "llmd_matched_tokens": (
        ("router", "requests", "matched_tokens"),
        "Prompt tokens that were believed to be cached where they went.",
    ),
    "llmd_lost_with_replica": (
        ("router", "requests", "lost_with_endpoint"),
        "Requests in flight on replicas that were lost.",
    ),
    "llmd_expired_leases": (
        ("router", "requests", "expired_leases"),
        "Requests whose end Ray never told.",
    ),
    "llmd_tokenized_prompts": (("tokenizer", "encoded"), "Prompts that were text, as tokens."),
    "llmd_untokenized_prompts": (
        ("tokenizer", "not_exact"),
        "Prompts that were text and whose tokens are not known exactly.",
    ),
    "llmd_tokenized_bytes": (("tokenizer", "text_bytes"), "Bytes of texts made tokens."),
    "llmd_known_text_bytes": (
        ("tokenizer", "known_bytes"),
        "Bytes of texts whose tokens were in the cache.",
    ),
    "llmd_tokenize_us": (
        ("tokenizer", "tokenize_us"),
        "Time spent on texts whose tokens were not, microseconds.",
    ),
    "llmd_exchange_told": (("exchange", "told"), "Messages to other routers."),
    "llmd_exchange_heard": (("exchange", "heard"), "Messages of other routers."),
    "llmd_exchange_refused": (("exchange", "refused"), "Messages that could not be read."),
    "llmd_exchange_failures": (("exchange", "failures"), "Times that routers did not meet."),
}
# States:
STATES: dict[str, tuple[tuple[str, ...], str]] = {
    "llmd_booked": (("booked",), "Requests picked and not over."),
    "llmd_waiting": (("waiting",), "Requests picked that Ray has not sent yet."),
    "llmd_pick_cpu_us": (("pick_cpu_us",), "Mean CPU time of a pick, microseconds."),
    "llmd_text_cache_bytes": (("tokenizer", "cache_bytes"), "Memory of known texts."),
    "llmd_index_blocks": (("router", "index", "blocks"), "KV blocks known of all replicas."),
    "llmd_index_bytes": (("router", "index", "memory_bytes"), "Memory of the KV index."),
    "llmd_exchange_peers": (("exchange", "connected"), "Routers that are heard."),
    "llmd_cordoned_replicas": (("cordoned",), "Replicas that get no new requests."),
}
# By alias and model as well:
ALIASES = ("llmd_alias_requests", "Requests for an alias, by the model that they got.")

_lock = threading.Lock()
_made: dict[str, Any] = {}


class Metrics:
    """Those of one deployment's router."""

    def __init__(self, deployment: str) -> None:
        self._tags = {DEPLOYMENT: deployment}
        self._told: dict[str, float] = {}

    def tell(self, counters: Mapping[str, Any]) -> None:
        """Brings Ray's metrics up to :func:`llmd_sched.ray.counters` of the deployment."""
        for name, (path, said) in COUNTS.items():
            count = value_at(counters, path)
            if (more := count - self._told.get(name, 0.0)) > 0:
                metric("Counter", name, said).inc(more, tags=self._tags)
                self._told[name] = count
        for alias, models in counters["router"]["aliases"].items():
            for model, count in models.items():
                key = f"{ALIASES[0]} {alias} {model}"
                if (more := count - self._told.get(key, 0.0)) > 0:
                    tags = {**self._tags, "alias": alias, "model": model}
                    metric("Counter", *ALIASES, tags=tuple(tags)).inc(more, tags=tags)
                    self._told[key] = count
        for name, (path, said) in STATES.items():
            metric("Gauge", name, said).set(value_at(counters, path), tags=self._tags)


def value_at(counters: Mapping[str, Any], path: tuple[str, ...]) -> float:
    """A figure of nested counters."""
    found: Any = counters
    for name in path:
        found = found[name]
    return float(found)


def metric(kind: str, name: str, said: str, *, tags: tuple[str, ...] = (DEPLOYMENT,)) -> Any:
    """A metric of this process: one for all deployments."""
    from ray.util import metrics

    with _lock:
        if name not in _made:
            _made[name] = getattr(metrics, kind)(name, said, tags)
        return _made[name]


def exported_names() -> set[str]:
    """The names under which Prometheus finds them."""
    counts = {f"ray_{name}_total" for name in (*COUNTS, ALIASES[0])}
    return counts | {f"ray_{name}" for name in STATES}
