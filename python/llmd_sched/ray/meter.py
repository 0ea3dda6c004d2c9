"""What a replica is asked for, as ``record_autoscaling_stats`` tells it to Ray's controller."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmd_sched._core import Decision, Router
from llmd_sched._types import Capacity
from llmd_sched.ray._settings import Settings

# Before every figure of a meter: a replica may report others.
PREFIX = "llmd_"
REPLICA = "replica"


class ReplicaMeter:
    """Counts the work of one replica: a router whose only endpoint is the engine beside it.

    - ``profile``: step costs that its latency models start from, as the endpoint label
      ``engine-profile``: a name, or ``"custom:a,b,c,d,e,f"``; they learn from what is told here.
    - ``slo``: objectives of requests that bring none, ``{"ttft_ms": ..., "tpot_ms": ...}``.
    - ``kv_blocks``: blocks of its KV cache, without which KV strains nothing.
    - ``block_size``: tokens a block.

    Any thread may call it; no call waits. Raises :class:`ConfigError`.

    >>> from llmd_sched.ray.meter import ReplicaMeter
    >>> meter = ReplicaMeter("qwen3-32b_h100_tp2", slo={"ttft_ms": 1000}, kv_blocks=16812)
    >>> request = meter.begin(list(range(4096)), expected_output_tokens=200)
    >>> meter.first_token(request)
    >>> meter.finish(request, output_tokens=180)
    >>> stats = meter.stats()
    >>> stats["llmd_requests"], round(stats["llmd_prefill_ms"])
    (1.0, 223)
    """

    def __init__(
        self,
        profile: str,
        *,
        slo: Mapping[str, float] | None = None,
        kv_blocks: int | None = None,
        block_size: int = 16,
    ) -> None:
        settings = Settings.of({"slo": dict(slo or {}), "block_size": block_size})
        self._usual = settings.request_options()
        self._router = Router(block_size=block_size)
        capacity: Capacity = {"block_size": block_size}
        if kv_blocks is not None:
            capacity["kv_blocks"] = kv_blocks
        self._router.add_endpoint(REPLICA, labels={"engine-profile": profile}, capacity=capacity)

    def begin(self, tokens: Any = None, *, text: str | None = None, **options: Any) -> Decision:
        """A request comes: its prompt, and options as :meth:`llmd_sched.Router.route` has."""
        options = {**self._usual, **options}
        if text is not None:
            return self._router.route(text=text, **options)
        return self._router.route(tokens, **options)

    def first_token(self, request: Decision) -> None:
        """Its first token came."""
        self._router.first_token(request)

    def finish(self, request: Decision, *, output_tokens: int | None = None) -> None:
        """It is over, answered with so many tokens; again is harmless."""
        self._router.finish(request, output_tokens=output_tokens)

    def cancel(self, request: Decision) -> None:
        """Its client is gone, or it failed."""
        self._router.cancel(request)

    def stats(self) -> dict[str, float]:
        """What ``record_autoscaling_stats`` returns: :meth:`llmd_sched.Router.demand`."""
        return {PREFIX + name: float(value) for name, value in self._router.demand().items()}
