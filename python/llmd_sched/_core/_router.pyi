"""The router."""

from asyncio import Future
from collections.abc import Coroutine, Mapping, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, Literal, final

import numpy.typing as npt
from llmd_sched._core._decision import Decision
from llmd_sched._core._endpoint import Endpoint, KvPosition
from llmd_sched._core._explanation import Explanation, Features, Matches
from llmd_sched._core._prompt import PromptKeys
from llmd_sched._core._request_body import RequestBody
from llmd_sched._types import (
    Capacity,
    ConfigSource,
    EndpointRef,
    PromptOptions,
    RequestOptions,
    RoleName,
    Scorer,
    Signals,
    Tokens,
    Topology,
)
from typing_extensions import Self, Unpack

@final
class Router:
    """Knows who holds which KV block and how loaded everybody is, and picks an endpoint.

    ``config`` is a mapping or the path of a ``.toml``, ``.yaml``, ``.yml`` or ``.json`` file;
    :meth:`config` shows every key with its default. The keywords that are given override it:

    - ``block_size``: tokens a block, best the engines' own (default 16).
    - ``profile``: name of the scheduling profile that requests follow.
    - ``seed``: of the generator that breaks ties; equal seeds and inputs give equal decisions.
    - ``record``: path of a new file that gets the decision log; :func:`replay` reads it.
    - ``predictor``: path of a file that :meth:`save_predictor` wrote, taken up where it is there.

    Safe to share between threads and with asyncio. Neither importing nor making one starts a
    thread: the first request (its timer), subscription, scrape or admin server does. After a
    ``fork`` the child has the same endpoints, with fresh subscriptions and nothing in flight.

    Raises :class:`ConfigError` for a configuration that cannot be, naming the key.

    >>> from llmd_sched import Router
    >>> router = Router({"block_size": 32}, seed=7)
    >>> router.add_endpoint("http://10.0.0.1:8000", model="llama").id
    '0.1'
    >>> decision = router.route([1, 2, 3], model="llama")
    >>> decision.address
    'http://10.0.0.1:8000'
    >>> router.finish(decision)
    True
    """

    def __new__(
        cls,
        config: ConfigSource | None = None,
        *,
        block_size: int | None = None,
        profile: str | None = None,
        seed: int | None = None,
        record: str | PathLike[str] | None = None,
    ) -> Self: ...
    @property
    def block_size(self) -> int:
        """Tokens a block."""

    def config(self) -> dict[str, Any]:
        """The configuration in use, every key with its value.

        >>> from llmd_sched import Router
        >>> Router(block_size=64).config()["block_size"]
        64
        """

    # The fleet.

    def add_endpoint(
        self,
        address: str,
        *,
        model: str = "",
        dp_rank: int = 0,
        role: RoleName = "both",
        loras: Sequence[str] = (),
        topology: Topology | None = None,
        capacity: Capacity | None = None,
        labels: Mapping[str, str] | None = None,
        kv_events: str | None = None,
        kv_replay: str | None = None,
        kv_topic: str = "",
        kv_format: Literal["vllm", "sglang"] = "vllm",
        metrics: str | bool | None = None,
        gpu_metrics: str | None = None,
        gpu_labels: Mapping[str, str] | None = None,
    ) -> Endpoint:
        """Adds an endpoint: one (address, data-parallel rank) that can be given a request.

        - ``address``: where requests go, usually a base URL; :attr:`Decision.address` gives it
          back unchanged.
        - ``model``, ``loras``: what it serves; a request that names a model goes only there.
        - ``capacity``: what it can hold, where its metrics do not say.
        - ``kv_events``: ZeroMQ address at which the engine publishes its KV events for this rank,
          such as ``"tcp://10.0.0.1:5557"``. Without one, what it holds is estimated from the
          router's own decisions.
        - ``kv_replay``: ZeroMQ address of the engine's replay socket: with it, missed events are
          fetched again; without it, a gap makes the router forget what the engine holds.
        - ``kv_topic``: only messages whose topic starts so.
        - ``kv_format``: whose form its events have; the embedded engine speaks vLLM's.
        - ``metrics``: URL of its Prometheus page, or ``True`` for ``address + "/metrics"``.
        - ``gpu_metrics``: URL of an exporter's page about its GPUs (NVIDIA's DCGM exporter), and
          ``gpu_labels``, which of the GPUs there are its own, such as ``{"gpu": "0"}``.

        Raises :class:`EndpointError` for an (address, rank) that is in the fleet already, or a
        field that cannot be.

        >>> from llmd_sched import Router
        >>> router = Router()
        >>> router.add_endpoint("http://10.0.0.1:8000", dp_rank=1, labels={"pool": "a"})
        Endpoint('http://10.0.0.1:8000', dp_rank=1, id='0.1', health='ready')
        """

    def discover(
        self,
        url: str,
        *,
        role: RoleName = "both",
        topology: Topology | None = None,
        capacity: Capacity | None = None,
        labels: Mapping[str, str] | None = None,
        timeout_s: float = 10.0,
    ) -> list[Endpoint]:
        """Asks a live engine what it is, and adds an endpoint for each of its ranks.

        Reads ``/v1/models`` (model and LoRA names), ``/kv_event_sources`` (where it publishes KV
        events and replays them, one a rank) and ``/metrics``; subscribes and scrapes. An engine
        that has no ``/kv_event_sources`` gets one endpoint, whose residency is estimated.

        Raises :class:`EngineError` where it cannot be reached, :class:`EndpointError` as
        :meth:`add_endpoint` does; then none of its ranks is added.
        """

    def remove_endpoint(self, endpoint: EndpointRef) -> None:
        """Removes an endpoint, releases what is in flight on it, and unsubscribes.

        Raises :class:`UnknownEndpointError`.
        """

    def cordon(self, endpoint: EndpointRef) -> None:
        """Gives it no new requests until :meth:`uncordon`; what is in flight goes on.

        Raises :class:`UnknownEndpointError`.
        """

    def uncordon(self, endpoint: EndpointRef) -> None:
        """Gives it requests again after :meth:`cordon`, :meth:`drain` or a failed health check.

        Raises :class:`UnknownEndpointError`.
        """

    def drain(self, endpoint: EndpointRef) -> None:
        """Gives it no new requests, and removes it once nothing is in flight on it.

        Raises :class:`UnknownEndpointError`.
        """

    def set_reachable(self, endpoint: EndpointRef, reachable: bool) -> None:
        """Tells the result of a health check; an unreachable endpoint gets no new requests.

        Raises :class:`UnknownEndpointError`.
        """

    def endpoints(self) -> list[Endpoint]:
        """Who is in the fleet, and how they are, as of this call; in slot order."""

    def endpoint(self, endpoint: EndpointRef) -> Endpoint:
        """One endpoint, as of this call.

        Raises :class:`UnknownEndpointError`.
        """

    # A request.

    def route(
        self,
        tokens: Tokens | PromptKeys | RequestBody | None = None,
        *,
        text: str | None = None,
        **options: Unpack[RequestOptions],
    ) -> Decision:
        """Picks an endpoint for a prompt and books its load there.

        The prompt is either ``tokens`` (its token ids, or the :class:`PromptKeys` of a prompt that
        grows) or, where there are none, ``text``. What else may be said about the request is in
        :class:`RequestOptions`. The caller then sends the request to
        :attr:`Decision.address`, and reports :meth:`first_token`, :meth:`progress` and
        :meth:`finish` (or :meth:`cancel`), or uses the decision in a ``with`` statement.

        Where no endpoint can take it and ``hold_ms`` is given, waits that long without the GIL.

        Raises :class:`PromptError` for a prompt or an option that cannot be,
        :class:`UnknownEndpointError` for one of ``allowed``, :class:`NoEndpointError` where
        nobody can serve it.

        >>> import numpy as np
        >>> from llmd_sched import Router
        >>> router = Router()
        >>> _ = router.add_endpoint("http://10.0.0.1:8000")
        >>> decision = router.route(np.arange(4096, dtype=np.uint32), session_id="s1")
        >>> decision.matched_tokens, decision.match_source
        (0, 'none')
        """

    def _route_call(
        self,
        args: Sequence[Any],
        kwargs: dict[str, Any] | None,
        options: dict[str, Any],
        allowed: Sequence[EndpointRef] | None = None,
        tokens: Tokens | None = None,
    ) -> Decision:
        """As :meth:`route`, with the prompt and options that :func:`llmd_sched.ray.asked` finds in
        the call of a Ray Serve handle, over ``options``. Given ``tokens`` are its prompt.

        A call without a prompt counts as a request, and matches nothing.
        """

    def route_async(
        self,
        tokens: Tokens | PromptKeys | RequestBody | None = None,
        *,
        text: str | None = None,
        **options: Unpack[RequestOptions],
    ) -> Future[Decision]:
        """As :meth:`route`, for ``await``: waits in the running event loop while held.

        Where an endpoint can take the request now, the future is done already. Cancelling it
        withdraws the request. Raises as :meth:`route` does: at once for a mistake of the caller,
        from the ``await`` where a held request is turned away.
        """

    def acquire(
        self,
        tokens: Tokens | PromptKeys | RequestBody | None = None,
        *,
        text: str | None = None,
        **options: Unpack[RequestOptions],
    ) -> Coroutine[Any, Any, Decision]:
        """Waits for a place, up to 60 s where ``hold_ms`` is not given: ``await`` it.

        Requests that may wait are let go in the order that ``flow.turns`` says (see
        ``docs/flow.md``): by priority, tenants fairly, and only while an endpoint has room. Use the
        decision with ``async with``, or report to it as with any other. Cancelling the task that
        awaits it withdraws the request, at whatever moment; with a future of :meth:`route_async`
        there is one, between its result and the task's next step, at which the decision is lost.

        Raises :class:`NoEndpointError`, whose ``status`` says whether others are in the way (429,
        with ``retry_after_ms``) or nobody can serve it (503), and :class:`UnknownEndpointError`
        where its endpoint left before the task ran; otherwise as :meth:`route` does.

        >>> import asyncio
        >>> from llmd_sched import Router
        >>> router = Router()
        >>> _ = router.add_endpoint("http://10.0.0.1:8000")
        >>> async def main():
        ...     async with await router.acquire(range(64), tenant="a", priority=1) as decision:
        ...         return decision.address  # send the request there
        >>> asyncio.run(main())
        'http://10.0.0.1:8000'
        """

    def route_many(
        self,
        prompts: Sequence[Tokens | PromptKeys | RequestBody] | Tokens,
        offsets: npt.ArrayLike | None = None,
        **options: Unpack[RequestOptions],
    ) -> list[Decision]:
        """Routes many prompts with the same options, in order, in one call.

        ``prompts`` is a sequence of them or, with ``offsets``, the token ids of all, one prompt
        after the other: prompt ``i`` is ``prompts[offsets[i]:offsets[i + 1]]``, so ``n`` prompts
        have ``n + 1`` ascending offsets. Each is placed with the load of those before it booked.

        All or none: where one cannot be placed, those booked so far are cancelled, and the
        exception's message names its position. Raises :class:`PromptError` for offsets that
        cannot be, and otherwise as :meth:`route` does.

        >>> import numpy as np
        >>> from llmd_sched import Router
        >>> router = Router()
        >>> _ = router.add_endpoint("http://10.0.0.1:8000")
        >>> tokens = np.arange(300, dtype=np.uint32)
        >>> [decision.prompt_tokens for decision in router.route_many(tokens, [0, 100, 300])]
        [100, 200]
        """

    def prompt_keys(
        self,
        tokens: Tokens | None = None,
        **options: Unpack[PromptOptions],
    ) -> PromptKeys:
        """The keys of a prompt that will grow, for :meth:`route` and the others.

        Without ``model`` they are bound to the one that all endpoints serve now, if they serve
        one. Raises :class:`PromptError`.
        """

    def first_token(self, decision: Decision) -> bool:
        """Reports the first output token: the prefill is done. Renews the lease.

        Returns False where the reservation is over already (finished, cancelled, expired, or its
        endpoint left).
        """

    def progress(self, decision: Decision, output_tokens: int) -> bool:
        """Reports that the output has this many tokens in all. Renews the lease.

        Returns False where the reservation is over already.
        """

    def finish(self, decision: Decision, output_tokens: int | None = None) -> bool:
        """Reports the end, with this many output tokens in all, and releases the load.

        Without ``output_tokens``, the last :meth:`progress` counts. Returns False where the
        reservation was over already; calling it twice does no harm.
        """

    def cancel(self, decision: Decision) -> bool:
        """Reports that the client went away or the request failed, and releases the load.

        Returns False where the reservation was over already.
        """

    # Looking in.

    def match(
        self,
        tokens: Tokens | PromptKeys | RequestBody | None = None,
        *,
        text: str | None = None,
        **options: Unpack[PromptOptions],
    ) -> Matches:
        """How much of a prompt each endpoint holds, as columns; books nothing.

        Raises :class:`PromptError`.
        """

    def explain(
        self,
        tokens: Tokens | PromptKeys | RequestBody | None = None,
        *,
        text: str | None = None,
        **options: Unpack[RequestOptions],
    ) -> Explanation:
        """Where a request would go now, and why, without booking anything.

        Raises :class:`PromptError`, and :class:`UnknownEndpointError` for one of ``allowed``.

        >>> from llmd_sched import Router
        >>> router = Router()
        >>> _ = router.add_endpoint("http://10.0.0.1:8000")
        >>> router.explain([1, 2, 3]).chosen.address
        'http://10.0.0.1:8000'
        """

    def demand(self) -> dict[str, float]:
        """What this router has been asked for, in what engines pay for it: :meth:`SloScaler.read`.

        Counts since it was made: ``requests`` placed where step costs are known,
        ``unmodelled_requests`` elsewhere, ``rejected_requests``; ``prefill_ms`` and ``decode_ms``,
        their work in milliseconds of one engine (a decode without what a step costs whoever is in
        it), ``overlap_ms`` of prefill done in the place of decode steps, ``prefill_ms_squared``;
        ``tpot_floor``, sum of an empty step over the objective; ``ttft_bounded_requests`` and the
        ``wait_allowance_ms`` that they have beside their own prefill; ``missed_requests``,
        predicted to miss what an idle replica would have met. Now: ``backlog_ms`` of prefill
        placed, ``waiting_requests`` held, ``resident_tokens`` in flight, ``kv_tokens_per_replica``.

        >>> from llmd_sched import Router
        >>> router = Router()
        >>> labels = {"engine-profile": "qwen3-32b_h100_tp2"}
        >>> _ = router.add_endpoint("http://10.0.0.1:8000", labels=labels)
        >>> decision = router.route(list(range(8192)), expected_output_tokens=100)
        >>> demand = router.demand()
        >>> demand["requests"], round(demand["prefill_ms"], 1)
        (1.0, 468.9)
        """

    def stats(self) -> dict[str, Any]:
        """Counters since the start, nested by topic; the numbers behind the metrics page."""

    # Scorers written in Python.

    def add_scorer(self, name: str, scorer: Scorer, *, weight: float = 1.0) -> None:
        """Adds a Python callable to the scorers of the profile.

        ``scorer(features)`` gets a :class:`Features` over all candidates, and returns one score
        in [0, 1] for each. It runs outside every lock of the router. Where it raises, or returns
        something of another shape, the request is routed without it, ``scorer_failures`` in
        :meth:`stats` counts it, and :attr:`Explanation.fallback` says so. A score that is not a
        number counts as 0.

        A scorer of that name is replaced. ``weight`` is its weight in the sum; a profile that
        lists the name itself decides instead.

        Raises :class:`ConfigError` for a name that a built-in scorer has, or a weight that is not
        finite.

        >>> from llmd_sched import Router
        >>> router = Router()
        >>> a = router.add_endpoint("http://10.0.0.1:8000", labels={"cost": "3"})
        >>> b = router.add_endpoint("http://10.0.0.2:8000", labels={"cost": "1"})
        >>> def cheap(features):
        ...     return [1 / int(e.labels["cost"]) for e in features.candidates]
        >>> router.add_scorer("cheap", cheap, weight=10.0)
        >>> router.route([1, 2, 3]).address
        'http://10.0.0.2:8000'
        """

    def features(
        self,
        tokens: Tokens | PromptKeys | RequestBody | None = None,
        *,
        text: str | None = None,
        **options: Unpack[RequestOptions],
    ) -> Features:
        """What the scorers see for a request: one row a candidate, after the filters.

        Score them and hand the scores to :meth:`commit`. Raises as :meth:`route` does.
        """

    def commit(self, features: Features, scores: Mapping[str, npt.ArrayLike]) -> Decision:
        """Routes the request of ``features`` with these scores, one column a scorer name.

        Where the fleet changed since, the scores of endpoints that left are dropped, and
        endpoints that joined score 0. Raises :class:`ScoreError` for a column of another length
        than the candidates, :class:`NoEndpointError` as :meth:`route` does.
        """

    # What engines tell.

    def report(self, endpoint: EndpointRef, **signals: Unpack[Signals]) -> None:
        """Takes in what an engine says of itself, where the program brings it and not a metrics
        page that the router reads (``metrics`` of :meth:`add_endpoint`).

        Each signal counts for ``fleet.metrics_max_age_ms`` of the configuration (2 s) from now on,
        and is then unknown again; what is left out or None keeps its last value, which ages.

        Raises :class:`EndpointError` for a value that cannot be, naming it,
        :class:`UnknownEndpointError`, and :class:`RouterClosedError`.

        >>> from llmd_sched import Router
        >>> router = Router()
        >>> endpoint = router.add_endpoint("http://10.0.0.1:8000")
        >>> router.report(endpoint, waiting_requests=3, kv_usage=0.9)
        >>> router.endpoint(endpoint).kv_usage
        0.9
        """

    def kv_position(self, endpoint: EndpointRef) -> KvPosition:
        """How far the endpoint's KV events have been followed.

        Raises :class:`UnknownEndpointError`, and :class:`EndpointError` where the endpoint was
        added without ``kv_events``.
        """

    def wait_kv(
        self, endpoint: EndpointRef, sequence: int, *, timeout_s: float = 10.0
    ) -> KvPosition:
        """Waits, without the GIL, until the events up to ``sequence`` are in the index.

        Raises :class:`KvTimeoutError`, and as :meth:`kv_position` does.
        """

    def wait_kv_connected(self, endpoint: EndpointRef, *, timeout_s: float = 10.0) -> KvPosition:
        """Waits, without the GIL, until the subscription to the endpoint's events stands.

        Raises :class:`KvTimeoutError`, and as :meth:`kv_position` does.
        """

    # Several routers in front of the same engines.

    def tell_peers(self, listen: str, *, interval_ms: float = 10.0) -> str:
        """Tells other routers from now on what this one has in flight, and returns the address at
        which they follow it (:meth:`hear_peers`).

        ``listen`` is ``"tcp://host:port"``, with port 0 for any free one; the host has to be one
        at which the others reach this process. What changed is told once in ``interval_ms``
        milliseconds at most, and nothing while nothing is in flight here and no peer is at work.
        ``fleet.router`` of the configuration is the name by which peers know this router.
        ``stats()["peers"]`` counts. After a ``fork`` the child tells and hears nobody.

        Raises :class:`PeerError` for an address that cannot be listened at, a router without a
        name, and an interval that is not 1 ms to a third of ``fleet.peer_ttl_ms``;
        :class:`RouterClosedError`.

        >>> from llmd_sched import Router
        >>> a = Router({"fleet": {"router": "a"}})
        >>> b = Router({"fleet": {"router": "b"}})
        >>> addresses = [router.tell_peers("tcp://127.0.0.1:0") for router in (a, b)]
        >>> for router in (a, b):
        ...     router.hear_peers(addresses)
        >>> a.stats()["peers"]["followed"]
        1
        """

    def hear_peers(self, addresses: Sequence[str]) -> None:
        """Follows the routers that told these addresses (:meth:`tell_peers`), and no others any
        more; this router's own may be among them.

        Their load counts as :meth:`Endpoint.inflight_requests` and for every scorer, until they
        have been silent for ``fleet.peer_ttl_ms`` (3 s). Connections are made again for as long as
        an address is in the list. Raises :class:`PeerError` for one that cannot be, and
        :class:`RouterClosedError`.
        """

    def own_totals(self) -> bytes:
        """What this router has in flight, for :meth:`peer_totals` of the others: for routers that
        exchange messages in another way than :meth:`tell_peers` does.

        A message says all of it, so that a lost one is healed by the next; a later one replaces
        it, an earlier one that comes late is left out. Send several in the time of
        ``fleet.peer_ttl_ms``. Raises :class:`PeerError` for a router without a name.

        >>> from llmd_sched import Router
        >>> a = Router({"fleet": {"router": "a"}})
        >>> b = Router({"fleet": {"router": "b"}})
        >>> for router in (a, b):
        ...     _ = router.add_endpoint("http://10.0.0.1:8000")
        >>> decision = a.route([1, 2, 3])
        >>> b.peer_totals(a.own_totals())
        >>> b.endpoint("http://10.0.0.1:8000").inflight_requests
        1
        """

    def peer_totals(self, message: bytes) -> None:
        """Takes in what :meth:`own_totals` of another router returned.

        Endpoints that are not in this fleet are left out. Raises :class:`PeerError` for bytes that
        are no message, and for one router more than ``fleet.max_peers``.
        """

    # The index as a file.

    def save_index(self, path: str | PathLike[str]) -> dict[str, int]:
        """Saves what engines are known by their KV events to hold, for :meth:`load_index`.

        Returns how many ``endpoints`` were saved, how many ``blocks`` they hold, and how many
        endpoints were ``left_out``: those without KV events, whose believed blocks expire anyway,
        and those of hybrid models or with a block size other than the router's, which a router
        knows by replay alone. Each endpoint is saved between two of its messages, without the GIL;
        requests do not wait. The file appears whole or not at all; about 20 bytes a block.

        >>> import os, tempfile
        >>> from llmd_sched import Router
        >>> router = Router()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "index.llmd")
        ...     router.save_index(path) == router.load_index(path)
        True

        Raises ``OSError`` where the file cannot be written, and :class:`RouterClosedError`.
        """

    def load_index(self, path: str | PathLike[str]) -> dict[str, int]:
        """Makes known what :meth:`save_index` saved, of those endpoints that were added already.

        What an engine's events told before is forgotten, and its stream goes on from the message
        that the file has last: only what came since is replayed. Where the engine is another one by
        now, or its replay buffer has lost that message, it counts as restarted and what was loaded
        is void. Returns counts as :meth:`save_index` does; ``left_out`` are endpoints that are not
        in this fleet with that address, rank and model, and those that have KV events here and had
        none there.

        Raises :class:`SnapshotError` for a file that is damaged, or of another version or block
        size (endpoints before the damage are loaded), ``OSError``, and :class:`RouterClosedError`.
        """

    # The latency models as a file.

    def save_predictor(self, path: str | PathLike[str]) -> int:
        """Saves what the latency models have learned, and returns of how many endpoints.

        A router whose setting ``predictor`` names the file takes it up when it is made, each
        endpoint (by address, rank and model) when it is added; a file that is not there is none,
        so that one setting serves the first start and all later ones. The file is JSON, and
        appears whole or not at all.

        >>> import os, tempfile
        >>> from llmd_sched import Router
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = os.path.join(folder, "predictor.json")
        ...     with Router({"predictor": path}) as router:
        ...         _ = router.add_endpoint("http://10.0.0.1:8000")
        ...         router.save_predictor(path)
        ...     Router({"predictor": path}).endpoints()
        1
        []

        Raises ``OSError`` where the file cannot be written, and :class:`RouterClosedError`. Making
        a router raises :class:`SnapshotError` for a file that is damaged or of another version.
        """

    # The router itself.

    def serve_admin(self, port: int = 0, *, host: str = "127.0.0.1") -> str:
        """Serves :func:`attach` over HTTP and returns the URL; port 0 lets the system choose.

        Anybody who reaches the address can read the state of the fleet and ask for explanations;
        nothing can be changed through it. Raises ``OSError`` where the port is taken.
        """

    def close(self) -> None:
        """Ends subscriptions, scrapes, the admin server and the decision log; idempotent.

        Held requests are turned away. Afterwards routing, and changing the fleet, raises
        :class:`RouterClosedError`; looking in and reporting on earlier decisions still works.
        """

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
