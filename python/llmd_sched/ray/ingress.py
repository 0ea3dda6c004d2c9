"""An ingress request router for Ray Serve: HAProxy asks it which replica gets a request, which then
goes straight there.

Ray builds one for its LLM applications, and :mod:`llmd_sched.ray.llm` puts this in its place; of
another application, whose ingress is ``app``:

.. code-block:: python

    from llmd_sched.ray.ingress import ingress_router

    app = Engine.bind()  # its request_router_class is "llmd_sched.ray:LlmdRouter"
    serve.run(app._with_ingress_request_router(ingress_router(app)))

Ray Serve has to be started with ``RAY_SERVE_ENABLE_HA_PROXY=1`` and
``RAY_SERVE_INGRESS_REQUEST_ROUTER_FORWARD_BODY=1`` in its environment: without the second, no
prompt comes here.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from llmd_sched._errors import ConfigError, MissingDependencyError
from llmd_sched.ray._asgi import Asgi, serve_here
from llmd_sched.ray._deployments import all_deployments
from llmd_sched.ray._ingress import Picker

try:
    from ray import serve
    from ray.serve._private.constants import SERVE_SESSION_ID
except ImportError as absent:
    raise MissingDependencyError(
        f"llmd_sched.ray.ingress needs Ray Serve 2.60 or newer ({absent}): "
        "pip install 'ray[serve]>=2.60'"
    ) from absent

REMEDY = (
    "give the deployment that the ingress router picks replicas of request_router_config="
    "RequestRouterConfig(request_router_class='llmd_sched.ray:LlmdRouter')"
)
# The controller says how a deployment is configured as soon as it is asked.
CONFIGURED_WITHIN_S = 10.0

# Ray asks the function that this names for middlewares of a replica's HTTP server.
MIDDLEWARES = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
# Of the processes that route: one event loop does all there is to do, so that no request waits for
# another thread, and a middleware answers before Ray makes a request of its own of it.
ENVIRONMENT = {
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    MIDDLEWARES: "llmd_sched.ray._asgi:middlewares",
}


def ingress_router(server: Any, *, base_model_id: str | None = None, **options: Any) -> Any:
    """The application to attach to ``server``'s, an application of ``ray.serve``.

    ``base_model_id``: where clients may ask for its adapters by ``base:adapter``. ``options`` are
    of ``serve.deployment``: without any, one replica on each node with a proxy, in processes
    where Ray neither logs nor counts the proxy's requests: :meth:`IngressRouter.counters` does.
    """
    from ray.serve.schema import LoggingConfig

    # Whoever has middlewares of their own keeps them.
    env_vars = {name: it for name, it in ENVIRONMENT.items() if not os.environ.get(name)}
    usual = {
        "name": "IngressRouter",
        # It must not be what holds requests back.
        "max_ongoing_requests": 1_000,
        "ray_actor_options": {"num_cpus": 0, "runtime_env": {"env_vars": env_vars}},
        "logging_config": LoggingConfig(enable_access_log=False),
    }
    deployment = serve.deployment(IngressRouter, **{**usual, **options})
    return deployment.bind(server=server, base_model_id=base_model_id)


@serve.ingress()
class IngressRouter:
    """Answers ``POST /internal/route`` with a replica, and ``GET /health``.

    Arguments are those of Ray's ``LLMRouter``, in whose place it can be deployed.

    A pick is one call into the router that the handle of ``server`` has in this process, which
    follows replicas and their engines: no hop to another thread, no request object, no FastAPI. A
    body that was cut off is routed by the part of its prompt that is there.

    Raises :class:`llmd_sched.ConfigError`, which fails the deployment, where ``server`` has another
    request router, or Ray wants tokens from here.
    """

    async def __init__(  # type: ignore[misc]  # Ray awaits it
        self, server: Any, llm_config: Any = None, base_model_id: str | None = None
    ) -> None:
        if llm_config is not None:
            raise ConfigError(f"the deployment has a KV-aware router of Ray's own: {REMEDY}")
        self._handle = server
        name = server.deployment_id.to_replica_actor_class_name()
        self._picker = Picker(name, session_header=SERVE_SESSION_ID, base_model=base_model_id)
        server._init()
        if (found := await configured_router(server)) is not None and not is_ours(found):
            raise ConfigError(
                f"{server.deployment_id} has the request router {found.__name__}, which cannot be "
                f"asked here: {REMEDY}"
            )

    async def __serve_build_asgi_app__(self) -> Any:
        """Ray calls it when the replica is made."""
        return serve_here(Asgi(self._picker))

    def counters(self) -> dict[str, Any]:
        """What this replica did, as a call of its handle: see :func:`llmd_sched.ray.counters`, with
        those of requests from the proxy under ``ingress``.
        """
        brain = all_deployments().get(self._picker.deployment)
        routers = {} if brain is None else brain.counters()
        return {**routers, "ingress": self._picker.counters()}


async def configured_router(handle: Any) -> type | None:
    """The class of the handle's request router; None where Ray does not say, or not in time."""
    loop = asyncio.get_running_loop()
    give_up_s = loop.time() + CONFIGURED_WITHIN_S
    router = getattr(handle._router, "_asyncio_router", None)
    while router is not None and loop.time() < give_up_s:
        found: type | None = getattr(router, "_request_router_class", None)
        if found is not None:
            return found
        await asyncio.sleep(0.02)
    return None


def is_ours(router: type) -> bool:
    """Whether a class is an ``LlmdRouter``, of which Ray, pickling by value, makes copies."""
    return any(
        it.__name__ == "LlmdRouter" and it.__module__.startswith("llmd_sched.ray")
        for it in router.__mro__
    )
