"""What requests meet: engines, routers, and how late those learn.

Only shapes and defaults are here; what cannot be is refused where it is played.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from llmd_sched._core import Workload


@dataclass(frozen=True)
class Engine:
    """One replica.

    - ``profile``: model and GPU whose step times it takes, such as ``"qwen3-32b_h100_tp2"``; or six
      numbers ``a`` to ``f`` in milliseconds, of which ``prefill_ms = a + b*new + c*new*(cached +
      new/2)`` and ``decode_ms = d + e*batch + f*context_tokens``.
    - ``kv_tokens``: tokens that its KV cache holds; needed with six numbers, else the profile's.
    - ``host_tier``: host memory behind the KV cache, as a multiple of it.
    - ``step_jitter``: steps last a random factor longer, of mean 1, whose logarithm has this
      standard deviation.
    - ``max_batch_tokens``, ``max_sequences``: most tokens in a step, most requests that run.
    """

    profile: str | Sequence[float] = "qwen3-32b_h100_tp2"
    kv_tokens: int | None = None
    host_tier: float = 0.0
    step_jitter: float = 0.0
    max_batch_tokens: int = 8192
    max_sequences: int = 256

    def document(self) -> dict[str, Any]:
        """Plain values, as the native module reads them."""
        plain = asdict(self)
        if not isinstance(self.profile, str):
            plain["profile"] = "custom:" + ",".join(repr(float(it)) for it in self.profile)
        return plain


@dataclass(frozen=True)
class Slo:
    """Objectives of each request.

    Its first token comes within ``ttft_ms``, or within ``isolated_factor`` times what its prefill
    takes alone on an idle engine, whichever is longer; its tokens after that take ``tpot_ms`` each.
    """

    ttft_ms: float = 1000.0
    tpot_ms: float = 60.0
    isolated_factor: float = 1.5


@dataclass(frozen=True)
class Outage:
    """Engine number ``engine`` is gone from ``fails_ms`` on, with its cache and all it was doing.

    It is back, with an empty cache, at ``returns_ms``; None is never. One that fails at 0 is not
    there from the start.
    """

    engine: int
    fails_ms: float = 0.0
    returns_ms: float | None = None


@dataclass(frozen=True)
class OpenLoop:
    """Each request at its time, whatever became of those before.

    - ``requests_per_s``: mean rate that the trace is stretched to; None plays it as it was taken.
    - ``jitter_ms``: each comes up to so much later, uniformly, before it is stretched.
    """

    requests_per_s: float | None = None
    jitter_ms: float = 0.0


@dataclass(frozen=True)
class ClosedLoop:
    """So many sessions at a time, each waiting for its answers.

    - ``horizon_s``: no turn is sent later.
    - ``think_cap_s``: pauses are cut to this.
    - ``replace_after_s``: a session that ended is replaced by the next so much later.
    - ``session_cap``: of the sessions, a proxy before the routers lets in so many at a time, and
      the others wait there, first come first served; None lets in all.
    """

    sessions: int = 32
    horizon_s: float = 3600.0
    think_cap_s: float = 60.0
    replace_after_s: float = 1.0
    session_cap: int | None = None


@dataclass(frozen=True)
class World:
    """A fleet, its routers, and how late they learn.

    - ``replicas``: how many engines like ``engine``; or each :class:`Engine` of a mixed fleet.
    - ``arrivals``: :class:`OpenLoop` or :class:`ClosedLoop`, as the workload's times are; None is
      the one that fits, with its defaults.
    - ``routers``: routers that share nothing but the engines' events; requests go round.
    - ``outages``: engines that die, come back, or join later; ``outage_notice_ms``: how long a
      router does not know; ``retry_ms``: how long a client waits before it asks again.
    - ``shared_cache``: every engine finds what any of them computed, at no cost, and routers know
      it: a bound that no routing passes.
    - ``kv_lag_ms``: how late KV events reach a router.
    - ``metrics_interval_ms``, ``metrics_lag_ms``: how often metrics are sampled (0 is never), and
      how late a sample arrives; ``pages_at_step_end``: what a step did to the counters of the
      prefix cache is told when it ends, as vLLM does.
    - ``first_tokens_told``: routers hear of first tokens and of the lengths of answers, and not
      only that a request is over, as those of Ray Serve do; see ``fleet.first_tokens``.
    - ``ends``: what routers know of the ends of requests: ``"told"`` of each; ``"untold"``, so that
      leases end what is booked; or ``"guessed"``, untold and guessed by the router, as an ingress
      router of Ray Serve does.
    - ``exchange_interval_ms``: how often routers tell each other their load; 0 is never.
    - ``profiles_known``: whether routers know the engines' step times from the start.
    - ``hold_ms``: how long a request may be held; 0 holds none.
    - ``warmup_share``: share of the requests that are played first and not counted.
    - ``seed``: of jitter, of the order of sessions and of the routers' random choices.
    - ``usd_per_replica_hour``: what a replica costs, for the price of a token.

    >>> from llmd_sched.sim import Engine, World
    >>> World(replicas=[Engine("llama-70b_h100_tp4"), Engine("llama-70b_h200_tp2")]).replicas[1]
    ... # doctest: +ELLIPSIS
    Engine(profile='llama-70b_h200_tp2', ...)
    """

    replicas: int | Sequence[Engine] = 8
    engine: Engine = field(default_factory=Engine)
    arrivals: OpenLoop | ClosedLoop | None = None
    slo: Slo = field(default_factory=Slo)
    routers: int = 1
    outages: Sequence[Outage] = ()
    outage_notice_ms: float = 1000.0
    retry_ms: float = 100.0
    shared_cache: bool = False
    kv_lag_ms: float = 10.0
    metrics_interval_ms: float = 50.0
    metrics_lag_ms: float = 0.0
    pages_at_step_end: bool = False
    first_tokens_told: bool = True
    ends: Literal["told", "untold", "guessed"] = "told"
    exchange_interval_ms: float = 0.0
    profiles_known: bool = True
    hold_ms: int = 0
    warmup_share: float = 0.1
    seed: int = 0
    usd_per_replica_hour: float = 0.0

    def engines(self) -> list[Engine]:
        """Every engine of the fleet."""
        if isinstance(self.replicas, int):
            return [self.engine] * self.replicas
        return list(self.replicas)

    def at_rate(self, requests_per_s: float | None, *, jitter_ms: float = 0.0) -> World:
        """The same with requests that come at this mean rate.

        >>> from llmd_sched.sim import World
        >>> World().at_rate(4.0).arrivals
        OpenLoop(requests_per_s=4.0, jitter_ms=0.0)
        """
        return replace(self, arrivals=OpenLoop(requests_per_s, jitter_ms))

    def document(self, workload: Workload) -> dict[str, Any]:
        """Plain values, as the native module reads them."""
        arrivals = self.arrivals or (ClosedLoop() if workload.closed_loop else OpenLoop())
        kind = "closed" if isinstance(arrivals, ClosedLoop) else "open"
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        del plain["replicas"], plain["engine"]
        return {
            **plain,
            "engines": [engine.document() for engine in self.engines()],
            "arrivals": {"loop": kind, **asdict(arrivals)},
            "outages": [asdict(outage) for outage in self.outages],
            "slo": asdict(self.slo),
        }
