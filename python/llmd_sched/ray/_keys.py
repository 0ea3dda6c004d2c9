"""Names for the requests that a router has under way.

What Ray calls a request's internal id is that of the request in whose course it was made: a replica
that calls a handle several times while it serves one request makes several of the same id.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

# Where the name of one whose id another has is kept: in what Ray keeps for the routing of it, from
# one attempt to the next.
ATTRIBUTE = "llmd_sched_key"


class RequestKeys:
    """One name for each request: its internal id, unless another under way has that."""

    def __init__(self) -> None:
        self._made = 0
        # By internal id, further requests that have it: mostly none at all.
        self.siblings: dict[str, dict[str, None]] = {}

    def of(self, pending: Any, bookings: Mapping[str, tuple[Any, Any, Any, Any]]) -> str:
        """The name of a ``PendingRequest``, the same at every attempt to route it while it is
        booked. Bookings end with the metadata of whom they are of.

        NOTE(perf): nearly all requests have an id of their own, and are done after two looks.
        """
        metadata = pending.metadata
        internal_id: str = metadata.internal_request_id
        booking = bookings.get(internal_id)
        is_free = booking is None or booking[3] is metadata
        if is_free and internal_id not in self.siblings:
            return internal_id
        context = pending.routing_context
        key: str | None = getattr(context, ATTRIBUTE, None)
        if key is None:
            if is_free:
                return internal_id
            self._made += 1
            key = f"{internal_id}#{self._made}"
            setattr(context, ATTRIBUTE, key)
        self.siblings.setdefault(internal_id, {})[key] = None
        return key

    def all_of(self, internal_id: str) -> tuple[str, ...]:
        """The names of all requests that have an internal id, the first one's first.

        Ray says where one of them ended, and not which it was: among those of the same replica the
        oldest counts as over, so that their number is right and their sizes may be swapped.
        """
        if internal_id not in self.siblings:
            return (internal_id,)
        return (internal_id, *self.siblings[internal_id])

    def forget(self, internal_id: str, key: str) -> None:
        """A request is over."""
        if (siblings := self.siblings.get(internal_id)) is not None:
            siblings.pop(key, None)
            if not siblings:
                del self.siblings[internal_id]

    def forget_all_but(self, under_way: Container[str]) -> None:
        """Only these requests are under way: of others Ray never told the end."""
        for internal_id, keys in list(self.siblings.items()):
            for key in [it for it in keys if it not in under_way]:
                self.forget(internal_id, key)
