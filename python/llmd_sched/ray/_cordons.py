"""Taking a replica out of use for a while, for all routers of its deployment."""

from __future__ import annotations

import time
from typing import Any

from llmd_sched._errors import MissingDependencyError, UnknownEndpointError
from llmd_sched.ray._rendezvous import NAME, NAMESPACE

ANSWER_S = 10.0
LOOK_S = 0.1


def cordon(replica: str) -> None:
    """Gives a replica no new requests until :func:`uncordon`; what it has goes on.

    ``replica`` is its full id, as ``Decision.address`` and
    ``serve.get_replica_context().replica_id.to_full_id_str()`` have it. Every process that routes
    its deployment learns it, at once and when it comes later, for as long as one of them is there.
    Where all replicas of a deployment are cordoned, none is. Call it from any process of the
    cluster.

    Raises ``ValueError`` for what is no replica's full id, and :class:`UnknownEndpointError` where
    no process routes its deployment, so that nobody could be told.
    """
    tell(replica, True)


def uncordon(replica: str) -> None:
    """Gives a replica requests again after :func:`cordon` or :func:`drain`; raises as they do."""
    tell(replica, False)


def drain(replica: str, *, timeout_s: float = 600.0) -> bool:
    """Cordons a replica and waits until nothing runs on it; it stays cordoned.

    Returns False where something still did after ``timeout_s`` seconds, True also where the replica
    is no more. Raises as :func:`cordon` does.
    """
    import ray
    from ray.exceptions import RayActorError

    cordon(replica)
    until_s = time.monotonic() + timeout_s
    try:
        actor = ray.get_actor(replica, namespace="serve")
        while ray.get(actor.get_num_ongoing_requests.remote(), timeout=ANSWER_S) > 0:
            if time.monotonic() >= until_s:
                return False
            time.sleep(LOOK_S)
    except (ValueError, RayActorError):
        pass
    return True


def tell(replica: str, is_cordoned: bool) -> None:
    """Tells the rendezvous, which tells the routers."""
    import ray

    deployment = deployment_of(replica)
    try:
        there = ray.get_actor(NAME, namespace=NAMESPACE)
    except ValueError:
        known: Any = False
    else:
        known = ray.get(there.cordon.remote(deployment, replica, is_cordoned), timeout=ANSWER_S)
    if not known:
        raise UnknownEndpointError(
            f"no process routes the deployment of replica {replica!r} with LlmdRouter: send it a "
            "request first"
        )


def deployment_of(replica: str) -> str:
    """The name under which a replica's deployment has its routers."""
    try:
        from ray.serve._private.common import ReplicaID
    except ImportError as absent:
        raise MissingDependencyError(
            f"llmd_sched.ray needs Ray Serve ({absent}): pip install 'llmd-sched[ray]'"
        ) from absent
    if not ReplicaID.is_full_id_str(replica):
        raise ValueError(
            f"{replica!r} is no replica: give its full id, as replica_id.to_full_id_str() has it"
        )
    name: str = ReplicaID.from_full_id_str(replica).deployment_id.to_replica_actor_class_name()
    return name
