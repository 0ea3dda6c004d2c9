"""Who can be given a request, and where the stream of its KV events stands."""

from collections.abc import Mapping
from typing import Any, Literal, final

from llmd_sched._types import Capacity, HealthName, RoleName, Topology

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
