"""The class that Ray Serve makes one of for each process and deployment. It only hands over."""

from __future__ import annotations

from typing import Any

from llmd_sched._errors import MissingDependencyError

try:
    from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica
except ImportError as absent:
    raise MissingDependencyError(
        f"llmd_sched.ray needs Ray Serve 2.50 or newer ({absent}): pip install 'llmd-sched[ray]'"
    ) from absent


# Ray 2.50 tells of no end of a request.
TELLS_ENDS = hasattr(RequestRouter, "on_request_completed")


class LlmdRouter(RequestRouter):  # type: ignore[misc]  # Ray brings no types that hold
    """Sends each request where the brain says. Keywords: :class:`llmd_sched.ray.Settings`.

    Whatever goes wrong inside, Ray gets the candidates as it gave them, and
    :func:`llmd_sched.ray.counters` counts it: an exception here would hang the request for ever.
    """

    def initialize_state(self, **kwargs: Any) -> None:
        """Takes up ``request_router_kwargs``. Raises :class:`llmd_sched.ConfigError`."""
        from llmd_sched.ray._deployments import deployment_brain

        self._brain = deployment_brain(self._deployment_id.to_replica_actor_class_name(), kwargs)

    async def choose_replicas(
        self,
        candidate_replicas: list[RunningReplica],
        pending_request: PendingRequest | None = None,
    ) -> list[list[RunningReplica]]:
        """The best replica first, then all of them."""
        if self._brain.texts is not None and pending_request is not None:
            await self._brain.texts.prepare(pending_request)
        return self._brain.rank(candidate_replicas, pending_request, self.select_available_replicas)

    def _get_pending_request_matching_internal_request_id(
        self, request_metadata: Any = None
    ) -> PendingRequest | None:
        """Whom a replica was found for.

        Ray looks by the internal id, which all requests have that a replica makes while it serves
        one, and finds one of them: the others would wait for ever.
        """
        found = super()._get_pending_request_matching_internal_request_id(request_metadata)
        if request_metadata is None or (found is not None and found.metadata is request_metadata):
            return found
        for pending in self._pending_requests_to_fulfill:
            if pending.metadata is request_metadata and not pending.future.done():
                return pending
        return None

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Takes up who is there; Ray calls this whenever anything about a replica changed."""
        self._brain.sync(replicas)
        super().update_replicas(replicas)

    def on_replica_actor_died(self, replica_id: ReplicaID) -> None:
        """Forgets a replica and what was in flight on it; Ray may say so often, or never."""
        self._brain.died(replica_id)
        super().on_replica_actor_died(replica_id)

    def on_request_routed(
        self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any
    ) -> None:
        """Books the request where it runs: the replica has taken it."""
        self._brain.taken(pending_request, replica_id, result, follow=not TELLS_ENDS)
        super().on_request_routed(pending_request, replica_id, result)

    def on_request_completed(self, replica_id: ReplicaID, internal_request_id: str) -> None:
        """Releases what was booked for the request."""
        self._brain.completed(replica_id, internal_request_id)
