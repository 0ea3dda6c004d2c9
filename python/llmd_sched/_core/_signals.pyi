"""What engines say of themselves, for a program that brings it to a router elsewhere."""

from typing import Any

from llmd_sched._types import Signals

def read_metrics(page: str, *, dp_rank: int | None = None) -> Signals:
    """The signals on an engine's metrics page, for :meth:`Router.report`.

    ``page`` is in Prometheus' text format, by the names of vLLM, SGLang or TensorRT-LLM; lines that
    make no sense are passed over. ``dp_rank`` takes the series of one data-parallel rank; without
    it those of all ranks are summed, and shares averaged. vLLM inside this process has no page of
    its own: ``prometheus_client.generate_latest().decode()`` writes one.

    >>> from llmd_sched import read_metrics
    >>> read_metrics('vllm:kv_cache_usage_perc{engine="0"} 0.25')
    {'kv_usage': 0.25}
    """

def describe_engine(url: str, *, timeout_s: float = 10.0) -> list[dict[str, Any]]:
    """What the engine at ``url`` is: keywords of :meth:`Router.add_endpoint`, one a rank.

    Asks what :meth:`Router.discover` asks, without a router: for a process beside the engine that
    tells a router elsewhere. ``*`` as the host of KV event addresses becomes that of ``url``, so
    name a host that the router can reach. What the engine does not say is left out.

    Raises :class:`EngineError` where it cannot be reached.
    """
