"""The native module: the reference of everything that ``llmd_sched`` exports from it.

The docstrings here are the ones that ``help()`` shows; they are compiled in from this file.
"""

from asyncio import Future
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from os import PathLike
from types import TracebackType
from typing import Any, Literal, final

import numpy as np
import numpy.typing as npt
from typing_extensions import Self, Unpack

from llmd_sched._types import (
    Capacity,
    ConfigSource,
    EndpointRef,
    HashAlgorithm,
    HeaderOptions,
    HealthName,
    MatchSourceName,
    PromptOptions,
    RequestOptions,
    RoleName,
    Scorer,
    Tokens,
    Topology,
)

__version__: str

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
        tokens: Tokens | PromptKeys | None = None,
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

    def route_async(
        self,
        tokens: Tokens | PromptKeys | None = None,
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
        tokens: Tokens | PromptKeys | None = None,
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
        prompts: Sequence[Tokens | PromptKeys] | Tokens,
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
        tokens: Tokens | PromptKeys | None = None,
        *,
        text: str | None = None,
        **options: Unpack[PromptOptions],
    ) -> Matches:
        """How much of a prompt each endpoint holds, as columns; books nothing.

        Raises :class:`PromptError`.
        """

    def explain(
        self,
        tokens: Tokens | PromptKeys | None = None,
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
        tokens: Tokens | PromptKeys | None = None,
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

@final
class Endpoint:
    """An endpoint of the fleet, and how it was when this object was made.

    Two are equal where they are the same tenant of the same slot at the same address, whatever
    their state. Ask :meth:`Router.endpoint` for the state now.
    """

    @property
    def id(self) -> str:
        """``"slot.generation"``: a slot is used again after its endpoint left, with the next
        generation."""

    @property
    def address(self) -> str:
        """Where requests go, as it was given."""

    @property
    def dp_rank(self) -> int:
        """Data-parallel rank behind that address."""

    @property
    def model(self) -> str:
        """Model that it serves; empty where it was not said."""

    @property
    def role(self) -> RoleName:
        """Which phases of a request it serves."""

    @property
    def loras(self) -> tuple[str, ...]:
        """LoRA adapters that it can serve without loading."""

    @property
    def topology(self) -> Topology:
        """Where it stands."""

    @property
    def capacity(self) -> Capacity:
        """What it can hold, learned or given; 0 is unknown."""

    @property
    def labels(self) -> dict[str, str]:
        """Free labels."""

    @property
    def kv_source(self) -> Literal["events", "approximate"]:
        """Whether what it holds is known from its events or estimated from our decisions."""

    @property
    def health(self) -> HealthName:
        """Whether it may be given new requests."""

    @property
    def inflight_requests(self) -> int:
        """Requests that this router sent and that have not finished."""

    @property
    def pending_prefill_tokens(self) -> int:
        """Uncached prompt tokens that this router sent and whose first token has not come."""

    @property
    def active_decode_tokens(self) -> int:
        """Context tokens of this router's requests that are being decoded."""

    @property
    def waiting_requests(self) -> float | None:
        """Requests in the engine's queue, as it last reported; None where it never did."""

    @property
    def running_requests(self) -> float | None:
        """Requests running, as it last reported; None where it never did."""

    @property
    def kv_usage(self) -> float | None:
        """Share of its KV cache in use, 0 to 1, as it last reported; None where it never did."""

    @property
    def gpu_utilization(self) -> float | None:
        """Share of time its GPU was busy, 0 to 1, by whatever process; None where unreported."""

    @property
    def latency_drift(self) -> float | None:
        """Its latency over what it was, while that has departed for good; None where it has not.

        1.5 is half as slow again: a throttled GPU, a neighbour, another build. The alarm ends by
        itself once latency is what it was; ``docs/predict.md`` has the test.
        """

    @property
    def held_blocks(self) -> int:
        """KV blocks that it is known or believed to hold."""

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain Python values."""

    @staticmethod
    def from_json(row: Mapping[str, Any]) -> Endpoint:
        """From what :meth:`to_dict` gave, perhaps in another process."""

    def __eq__(self, other: object, /) -> bool: ...
    def __hash__(self) -> int: ...

@final
class Decision:
    """Where a request goes, and why.

    In a ``with`` statement it finishes at the end of the block, and is cancelled where the block
    is left by an exception:

    >>> from llmd_sched import Router
    >>> router = Router()
    >>> endpoint = router.add_endpoint("http://10.0.0.1:8000")
    >>> with router.route([1, 2, 3]) as decision:
    ...     router.endpoint(endpoint).inflight_requests
    1
    >>> router.endpoint(endpoint).inflight_requests
    0
    """

    @property
    def ticket(self) -> int:
        """Number of the request within this router."""

    @property
    def reservation(self) -> int:
        """Number of the load booked for it within this router."""

    @property
    def endpoint(self) -> Endpoint:
        """Who answers the client, as of the first time that this is read."""

    @property
    def endpoint_id(self) -> str:
        """Its :attr:`Endpoint.id`."""

    @property
    def address(self) -> str:
        """Its address: where to send the request."""

    @property
    def dp_rank(self) -> int:
        """Its data-parallel rank."""

    @property
    def headers(self) -> dict[str, str]:
        """HTTP headers that the request needs, ``X-data-parallel-rank`` as vLLM reads it."""

    @property
    def legs(self) -> tuple[Leg, ...]:
        """What is to be done, in order."""

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt; for text an estimate."""

    @property
    def matched_tokens(self) -> int:
        """Prompt tokens whose KV the endpoint is believed to hold; a multiple of the block size.

        vLLM always computes the last prompt token, so its own counter of hits is lower by one
        block where this is the whole prompt.
        """

    @property
    def match_source(self) -> MatchSourceName:
        """What that belief rests on."""

    @property
    def predicted_ttft_ms(self) -> float | None:
        """Mean time to first token, milliseconds; None while there is no model of it."""

    @property
    def predicted_tpot_ms(self) -> float | None:
        """Mean time per output token, milliseconds; None while there is no model of it."""

    @property
    def predicted_ttft_p90_ms(self) -> float | None:
        """Time to first token that nine of ten such requests do not pass, milliseconds."""

    @property
    def predicted_tpot_p50_ms(self) -> float | None:
        """Time per output token that half of such requests do not pass, milliseconds.

        Lower than the mean: few prefills interrupt most answers, and many interrupt a few.
        """

    @property
    def predicted_tpot_p90_ms(self) -> float | None:
        """Time per output token that nine of ten such requests do not pass, milliseconds."""

    @property
    def explanation(self) -> Explanation:
        """What each filter removed and what each scorer gave."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
    def __aenter__(self) -> Future[Self]: ...
    def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> Future[None]: ...

@final
class PromptKeys:
    """The block keys of a prompt that grows, as a conversation does from turn to turn.

    Each turn hashes only the tokens that are new; those that are there are neither kept nor
    compared. :meth:`Router.prompt_keys` makes one, and it goes wherever that router takes a
    prompt; ``model``, ``lora``, ``cache_salt`` and ``multimodal`` are then its own.

    >>> from llmd_sched import Router
    >>> router = Router()
    >>> _ = router.add_endpoint("http://10.0.0.1:8000", model="llama")
    >>> prompt = router.prompt_keys(range(100), model="llama")
    >>> router.finish(router.route(prompt, session_id="s1"))
    True
    >>> prompt.extend(range(100, 164))  # the answer, and what the user said next
    >>> decision = router.route(prompt, session_id="s1")
    >>> decision.prompt_tokens, decision.matched_tokens
    (164, 96)

    Safe to share between threads; a turn of one conversation follows the one before all the same.
    """

    def extend(self, tokens: Tokens, *, multimodal: Sequence[tuple[str, int, int]] = ()) -> None:
        """Appends tokens, and the multimodal items that lie in them.

        Offsets of ``multimodal`` count from the start of the prompt. Raises :class:`PromptError`,
        and appends nothing then.
        """

    def truncate(self, length: int) -> int:
        """Cuts to whole blocks of at most ``length`` tokens, before an item that would be cut.

        Returns how long the prompt is now: append again from there, for a history that was
        edited.

        >>> from llmd_sched import Router
        >>> prompt = Router().prompt_keys(range(100))
        >>> prompt.truncate(70)
        64
        """

    @property
    def block_size(self) -> int:
        """Tokens a block."""

    @property
    def keys(self) -> npt.NDArray[np.uint64]:
        """A copy of the keys of the full blocks, as :func:`block_keys` gives them."""

    def __len__(self) -> int: ...

@final
class Leg:
    """One step of serving a request."""

    @property
    def phase(self) -> Literal["aggregated", "encode", "prefill", "decode"]:
        """What is done."""

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """By whom: one endpoint, or all of a gang."""

@final
class Explanation:
    """What each filter removed and what each scorer gave; a table in a notebook.

    >>> from llmd_sched import Router
    >>> router = Router()
    >>> _ = router.add_endpoint("http://10.0.0.1:8000")
    >>> explanation = router.explain([1, 2, 3])
    >>> explanation.totals.shape == (len(explanation.candidates),)
    True

    What is expected of the request where it was picked to go, as in :class:`Decision`:

    >>> router = Router({"predict": {"prior_profile": "qwen3-32b_h100_tp2"}})
    >>> _ = router.add_endpoint("http://10.0.0.1:8000")
    >>> explanation = router.explain(range(1000))
    >>> round(explanation.predicted_ttft_ms, 2)  # 3.52 + 0.05025 * 1000 + 1.6e-6 * 1000**2 / 2
    54.57
    >>> explanation.predicted_ttft_ms < explanation.predicted_ttft_p90_ms
    True
    """

    @property
    def profile(self) -> str:
        """Name of the profile."""

    @property
    def chosen(self) -> Endpoint | None:
        """Who was picked; None where nobody could be."""

    @property
    def rejection(self) -> str | None:
        """Why nobody could be picked."""

    @property
    def filters(self) -> tuple[FilterStep, ...]:
        """Filters in the order in which they ran."""

    @property
    def candidates(self) -> tuple[Endpoint, ...]:
        """Who was scored, in slot order."""

    @property
    def scores(self) -> dict[str, npt.NDArray[np.float64]]:
        """A column of scores in [0, 1] for each scorer, one a candidate."""

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each scorer in the sum."""

    @property
    def totals(self) -> npt.NDArray[np.float64]:
        """Weighted sum for each candidate."""

    @property
    def matched_tokens(self) -> npt.NDArray[np.uint32]:
        """Matched tokens for each candidate."""

    @property
    def picker(self) -> str:
        """Name of the picker."""

    @property
    def fallback(self) -> str | None:
        """Why the profile was not followed, where it was not (a scorer failed, say)."""

    @property
    def predicted_ttft_ms(self) -> float | None:
        """:attr:`Decision.predicted_ttft_ms` of :attr:`chosen`; None where there is neither."""

    @property
    def predicted_ttft_p90_ms(self) -> float | None:
        """:attr:`Decision.predicted_ttft_p90_ms` of it."""

    @property
    def predicted_tpot_ms(self) -> float | None:
        """:attr:`Decision.predicted_tpot_ms` of it."""

    @property
    def predicted_tpot_p50_ms(self) -> float | None:
        """:attr:`Decision.predicted_tpot_p50_ms` of it."""

    @property
    def predicted_tpot_p90_ms(self) -> float | None:
        """:attr:`Decision.predicted_tpot_p90_ms` of it."""

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain Python values."""

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Explanation:
        """From what :meth:`to_dict` gave, perhaps in another process."""

    def _repr_html_(self) -> str: ...

@final
class FilterStep:
    """One filter's work."""

    @property
    def name(self) -> str:
        """Name of the filter."""

    @property
    def removed(self) -> tuple[Endpoint, ...]:
        """Whom it removed."""

    @property
    def skipped(self) -> bool:
        """Whether it would have removed everybody, and was therefore skipped."""

@final
class Matches:
    """How much of one prompt each endpoint holds: columns, one row an endpoint, in slot order."""

    @property
    def query_blocks(self) -> int:
        """Full blocks of the prompt."""

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Whose rows these are."""

    @property
    def matched_blocks(self) -> npt.NDArray[np.uint32]:
        """Longest run of blocks from the first that the endpoint holds on any tier."""

    @property
    def matched_tokens(self) -> npt.NDArray[np.uint32]:
        """The same in tokens."""

    @property
    def lower_tier_blocks(self) -> npt.NDArray[np.uint32]:
        """How many of them are below GPU memory: shape (endpoints, 3), CPU, storage, remote."""

    @property
    def sources(self) -> tuple[MatchSourceName, ...]:
        """What each row rests on."""

    def __len__(self) -> int: ...

@final
class Features:
    """What scorers see: one row a candidate, one column a signal.

    ``features["kv_usage"]`` is a ``float64`` array over the candidates, NaN where a signal is
    unknown or stale; ``features.columns`` names them all.
    """

    @property
    def version(self) -> int:
        """Of the state that was read; :meth:`Router.commit` notices where it has changed."""

    @property
    def candidates(self) -> tuple[Endpoint, ...]:
        """Whom to score, in slot order, after the filters."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""

    @property
    def model(self) -> str:
        """Model asked for."""

    @property
    def lora(self) -> str | None:
        """LoRA adapter asked for."""

    @property
    def session_id(self) -> str | None:
        """Conversation that the request belongs to."""

    @property
    def priority(self) -> int:
        """Priority of the request."""

    def __getitem__(self, column: str, /) -> npt.NDArray[np.float64]: ...
    def __len__(self) -> int: ...

@final
class KvPosition:
    """How far an engine's KV events have been followed."""

    @property
    def sequence(self) -> int | None:
        """Number of the last batch in the index; None before the first."""

    @property
    def connected(self) -> bool:
        """Whether the subscription stands."""

    @property
    def settled(self) -> bool:
        """Whether, besides, all that came is in the index, and no gap is being filled."""

    @property
    def batches(self) -> int:
        """Batches put into the index."""

    @property
    def gaps(self) -> int:
        """Times that numbers were missing."""

    @property
    def replays(self) -> int:
        """Times that the missing batches were fetched from the replay socket."""

    @property
    def restarts(self) -> int:
        """Times that the engine was found to have started anew."""

    @property
    def losses(self) -> int:
        """Times that what it holds had to be forgotten for another reason than a restart."""

    @property
    def bad_messages(self) -> int:
        """Messages that could not be read, and were dropped."""

    @property
    def last_error(self) -> str | None:
        """Why the last connection or replay ended."""

    def __eq__(self, other: object, /) -> bool: ...

@final
class ReplayReport:
    """What running a decision log again gave."""

    @property
    def inputs(self) -> int:
        """Inputs in the log."""

    @property
    def decisions(self) -> int:
        """Decisions among what they led to."""

    @property
    def mismatches(self) -> int:
        """Entries whose outcome differs in any bit."""

    @property
    def identical(self) -> bool:
        """Whether there are decisions to compare, none differs, and no entry is missing."""

    @property
    def lost(self) -> int:
        """Entries that the writer could not keep up with; a replay past one means nothing."""

    @property
    def complete(self) -> bool:
        """Whether the log ended in order; one of a router that was never closed is cut off."""

    @property
    def first_mismatch(self) -> int | None:
        """Number of the first entry that differs, from 0."""

@final
class Workload:
    """Who asks for what, and when: requests in sessions, and the keys of their blocks.

    One element a request, session after session:

    - ``at_ms``: float64; arrival from the beginning, or, where ``closed_loop``, the pause between
      the end of the session's request before and this one.
    - ``prompt_tokens``, ``output_tokens``: lengths, each at least 1.
    - ``keys``: 64-bit keys of each prompt's full blocks, in order; equal keys are equal prefixes
      (:func:`llmd_sched.block_keys` makes them of tokens). A sequence of arrays, one a request; or
      one flat array with ``key_offsets``, where each request's keys begin, and the end. Keys past
      ``prompt_tokens // block_size`` are dropped.
    - ``session_offsets``: where each session's requests begin, and the end; by default every
      request is a session of its own.
    - ``block_size``: tokens that a key stands for; simulated engines have blocks of that size.

    Immutable, compares by value, and pickles as its arrays. Raises :class:`WorkloadError`, naming
    the argument and the row.

    >>> from llmd_sched.sim import Workload
    >>> Workload([0.0, 50.0], [40, 40], [8, 8], keys=[[1, 2], [1, 3]], block_size=16)
    Workload(2 requests in 2 sessions, block_size=16)
    """

    def __new__(
        cls,
        at_ms: npt.ArrayLike,
        prompt_tokens: npt.ArrayLike,
        output_tokens: npt.ArrayLike,
        keys: npt.ArrayLike | Sequence[npt.ArrayLike],
        key_offsets: npt.ArrayLike | None = None,
        *,
        session_offsets: npt.ArrayLike | None = None,
        block_size: int = 16,
        closed_loop: bool = False,
    ) -> Self: ...
    @staticmethod
    def from_mooncake(source: str | PathLike[str] | bytes) -> Workload:
        """A trace in Mooncake's format, the path of one or its bytes: an open loop.

        A line is ``{"timestamp": ms, "input_length": n, "output_length": n, "hash_ids": [..]}``,
        with a number for each block of 512 tokens. Raises :class:`WorkloadError`, naming the line.

        >>> from llmd_sched.sim import Workload
        >>> line = b'{"timestamp": 0, "input_length": 900, "output_length": 5, "hash_ids": [7, 8]}'
        >>> Workload.from_mooncake(line)
        Workload(1 requests in 1 sessions, block_size=512)
        """

    @staticmethod
    def from_agent_sessions(source: str | PathLike[str] | bytes) -> Workload:
        """Sessions of coding agents in kv-cache-tester's format, a session a line: a closed loop.

        Raises :class:`WorkloadError`, naming the line.
        """

    @staticmethod
    def from_prompt_sessions(source: str | PathLike[str] | bytes) -> Workload:
        """Agent sessions in LMCache's format, whose block numbers mean the same in all sessions: a
        closed loop.

        Raises :class:`WorkloadError`, naming the line.
        """

    @staticmethod
    def from_decision_log(
        path: str | PathLike[str], *, assumed_output_tokens: int | None = None
    ) -> Workload:
        """What a router was asked, from the log that ``Router(record=...)`` wrote: an open loop.

        Requests that were refused, cancelled or unfinished at the log's end are in it too. How much
        they would have generated no log can tell: ``assumed_output_tokens``, by default the mean of
        the others; :attr:`log_gaps` counts them. Models, adapters, labels, priorities and
        objectives are not part of a workload: every simulated engine serves every request.

        Raises :class:`ReplayError` for a file that is not a log, :class:`WorkloadError` where there
        is nothing to simulate.
        """

    def with_tool_calls(self, *, seed: int = 1) -> Workload:
        """The same with one or two tool calls after each request: short inputs behind 24 long
        system prompts. Of open loops only; raises :class:`WorkloadError` for others.
        """

    @property
    def block_size(self) -> int:
        """Tokens that a key stands for."""

    @property
    def closed_loop(self) -> bool:
        """Whether ``at_ms`` are pauses between the turns of sessions."""

    @property
    def sessions(self) -> int:
        """How many sessions."""

    @property
    def log_gaps(self) -> dict[str, Any] | None:
        """Of a decision log, what it left open; None for other workloads, and once pickled.

        ``assumed_outputs``: requests whose end is not in it; ``estimated_prompts``: requests whose
        prompt was text; ``lost_entries``: turns that its writer could not keep up with;
        ``complete``: whether it ended in order.
        """

    @property
    def at_ms(self) -> npt.NDArray[np.float64]:
        """Arrivals, or pauses, a copy; likewise the other columns."""

    @property
    def prompt_tokens(self) -> npt.NDArray[np.uint32]:
        """Lengths of the prompts."""

    @property
    def output_tokens(self) -> npt.NDArray[np.uint32]:
        """Tokens that each request generates."""

    @property
    def keys(self) -> npt.NDArray[np.uint64]:
        """Keys of all requests' full blocks, one after the other."""

    @property
    def key_offsets(self) -> npt.NDArray[np.uint64]:
        """Where each request's keys begin, and the end."""

    @property
    def session_offsets(self) -> npt.NDArray[np.uint64]:
        """Where each session's requests begin, and the end."""

    def infinite_cache_hit_ratio(self) -> float:
        """Share of all prompt tokens that one cache without bounds, shared by all, would hold.

        >>> from llmd_sched.sim import Workload
        >>> Workload([0, 1], [40, 40], [8, 8], keys=[[1, 2], [1, 3]]).infinite_cache_hit_ratio()
        0.2
        """

    def __len__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __getnewargs_ex__(self) -> tuple[tuple[Any, ...], dict[str, Any]]: ...

def block_keys(
    tokens: Tokens,
    *,
    block_size: int = 16,
    **options: Unpack[PromptOptions],
) -> npt.NDArray[np.uint64]:
    """The router's own names of the full blocks of a prompt, chained and position-dependent.

    Raises :class:`PromptError`.

    >>> from llmd_sched import block_keys
    >>> keys = block_keys([1, 2, 3, 4, 5], block_size=2)
    >>> keys.dtype, len(keys)
    (dtype('uint64'), 2)
    """

def text_block_keys(
    text: str,
    *,
    block_size: int = 16,
    **options: Unpack[PromptOptions],
) -> npt.NDArray[np.uint64]:
    """Names of the full blocks of a prompt without tokens, cut by UTF-8 bytes.

    They are never equal to those of tokens. Raises :class:`PromptError`.
    """

def vllm_block_hashes(
    tokens: Tokens,
    *,
    block_size: int = 16,
    algorithm: HashAlgorithm = "sha256",
    seed: str | None = None,
    lora: tuple[str, str] | None = None,
    cache_salt: str | None = None,
    multimodal: Sequence[tuple[str, int, int]] = (),
) -> list[bytes]:
    """vLLM's own hashes of the full blocks of a prompt: 32 bytes for sha256, 16 for xxhash.

    ``seed`` is the engine's ``PYTHONHASHSEED``; without one, vLLM 0.32 uses a fixed seed for the
    sha256 family and a random one for the xxhash family. ``lora`` is (name, path).

    Raises :class:`PromptError`.
    """

def replay(path: str | PathLike[str]) -> ReplayReport:
    """Runs a recorded decision log through a new brain and compares every outcome, bit by bit.

    Raises :class:`ReplayError` for a file that is not a log, or of another version.
    """

def simulate(workload: Workload, world: Mapping[str, Any], config: ConfigSource) -> dict[str, Any]:
    """Plays a workload in a world, without the GIL: what :func:`llmd_sched.sim.run` calls.

    ``world`` is :meth:`llmd_sched.sim.World.document`, ``config`` what a :class:`Router` takes.
    Returns ``summary``, ``rows``, ``engines`` and ``ended_ms``. Raises :class:`ConfigError`.
    """

def builtin_policies() -> list[str]:
    """Names of the policies that need no configuration, ``default`` among them.

    >>> from llmd_sched.sim import builtin_policies
    >>> {"round-robin", "lmetric", "default"} <= set(builtin_policies())
    True
    """

def capacity_requests_per_s(workload: Workload, world: Mapping[str, Any]) -> float:
    """Requests a second that a world completes when all of a workload comes at once: what
    :func:`llmd_sched.sim.capacity` calls. Raises :class:`ConfigError`.
    """

def request_options(
    headers: Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]],
) -> HeaderOptions:
    """What a request's HTTP headers say about it, as options of :meth:`Router.route`.

    ``headers`` is a mapping or pairs of names and values, as ASGI gives them; names are of any
    case, other headers are passed over, and an empty value says nothing.

    - ``x-slo-ttft-ms``, ``x-slo-tpot-ms`` (llm-d's): ``ttft_slo_ms``, ``tpot_slo_ms``.
    - ``x-session-id`` (llm-d's, Ray Serve's): ``session_id``.
    - ``x-tenant``, or else ``x-gateway-inference-fairness-id``: ``tenant``.
    - ``x-priority``: ``priority``, an integer.
    - ``x-deadline-ms``: ``deadline_ms``, from 1 on.
    - ``x-max-hold-ms``: ``hold_ms``.
    - ``x-expected-output-tokens``: ``expected_output_tokens``, from 1 on.

    Raises :class:`PromptError`, naming the header, its value and what it may say.

    >>> from llmd_sched import request_options
    >>> request_options({"X-SLO-TTFT-ms": "250", "x-tenant": "a", "Accept": "*/*"})
    {'ttft_slo_ms': 250.0, 'tenant': 'a'}
    """

def explain_body(
    tokens: Tokens | None = None,
    *,
    text: str | None = None,
    **options: Unpack[RequestOptions],
) -> bytes:
    """The body of a ``POST /explain`` to a router's admin address."""

def run_cli(arguments: Sequence[str]) -> int:
    """Runs the command tree of ``llmd-sched`` and returns its exit status."""

def _before_fork() -> None: ...
def _after_fork(in_child: bool) -> None: ...
