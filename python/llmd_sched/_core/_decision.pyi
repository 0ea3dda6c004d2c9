"""Where a request goes."""

from asyncio import Future
from types import TracebackType
from typing import Literal, final

from llmd_sched._core._endpoint import Endpoint
from llmd_sched._core._explanation import Explanation
from llmd_sched._types import MatchSourceName
from typing_extensions import Self

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
class Leg:
    """One step of serving a request."""

    @property
    def phase(self) -> Literal["aggregated", "encode", "prefill", "decode"]:
        """What is done."""

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """By whom: one endpoint, or all of a gang."""
