"""The brain in applications of ``ray.serve.llm``, by the name of their builder alone.

.. code-block:: yaml

    applications:
    - import_path: llmd_sched.ray.llm:build_openai_app  # was ray.serve.llm:build_openai_app
      args:
        llm_configs: [...]
        llmd_sched: {policy: default}  # keywords of llmd_sched.ray.Settings, may be left out

With ``RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING=1`` HAProxy asks an
:class:`~llmd_sched.ray.ingress.IngressRouter` in place of Ray's ``LLMRouter``.

Every builder raises :class:`llmd_sched.ConfigError` where a model has another request router, or
bodies do not reach the ingress router; :class:`llmd_sched.MissingDependencyError` without
``ray[llm]``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from llmd_sched._errors import ConfigError, MissingDependencyError
from llmd_sched.ray._settings import Settings

logger = logging.getLogger("llmd_sched.ray")

ROUTER = "llmd_sched.ray:LlmdRouter"
# Ray brings signals that often; its own default is 10 s.
STATS_PERIOD_S = 1.0
# Of a builder's arguments, those that are ours.
SETTINGS_KEY = "llmd_sched"


def build_openai_app(builder_config: Any) -> Any:
    """As ``ray.serve.llm.build_openai_app``: models are served by
    :class:`~llmd_sched.ray.llm_server.LlmdServer`, unless they name a ``server_cls``.
    """
    theirs, settings = parted(builder_config)
    ray_llm = imported()
    asked = ray_llm.LLMServingArgs.model_validate(theirs)
    for model in asked.llm_configs:
        serve_with_brain(model)
        route_with_brain(model, settings)
    return with_ingress(ray_llm.build_openai_app(asked), asked.llm_configs)


def build_dp_openai_app(builder_config: Any) -> Any:
    """As ``ray.serve.llm.build_dp_openai_app``. Ray makes a replica of each data-parallel rank, and
    the brain picks among those. Their servers are Ray's, which tell of no KV events: what a rank
    holds is estimated.
    """
    theirs, settings = parted(builder_config)
    ray_llm = imported()
    from ray.llm._internal.serve.serving_patterns.data_parallel.builder import DPOpenAiServingArgs

    asked = DPOpenAiServingArgs.model_validate(theirs)
    route_servers_of_ray(asked.llm_config, settings)
    return with_ingress(ray_llm.build_dp_openai_app(asked), [asked.llm_config])


def build_pd_openai_app(pd_serving_args: Any) -> Any:
    """As ``ray.serve.llm.build_pd_openai_app``. The brain picks the decode replica where requests
    come in, and that one's brain the prefill replica: each leg by itself, and not yet the pair.
    Servers are Ray's, as in :func:`build_dp_openai_app`.
    """
    theirs, settings = parted(pd_serving_args)
    ray_llm = imported()
    from ray.llm._internal.serve.serving_patterns.prefill_decode.builder import PDServingArgs

    asked = PDServingArgs.model_validate(theirs)
    for model in (asked.prefill_config, asked.decode_config):
        route_servers_of_ray(model, settings)
    return with_ingress(ray_llm.build_pd_openai_app(asked), [asked.decode_config])


def parted(given: Any) -> tuple[Any, dict[str, Any]]:
    """A builder's arguments: Ray's, and ours."""
    if not isinstance(given, Mapping):
        return given, {}
    settings = given.get(SETTINGS_KEY) or {}
    if not isinstance(settings, Mapping):
        raise ConfigError(f"{SETTINGS_KEY}: {settings!r} is not a mapping of router keywords")
    Settings.of(settings)
    theirs = {name: value for name, value in given.items() if name != SETTINGS_KEY}
    return theirs, dict(settings)


def imported() -> Any:
    """``ray.serve.llm``."""
    try:
        import ray.serve.llm as ray_llm

        return ray_llm
    except ImportError as absent:
        raise MissingDependencyError(
            f"llmd_sched.ray.llm needs Ray Serve LLM 2.60 ({absent}): pip install 'ray[llm]>=2.60'"
        ) from absent


def with_ingress(app: Any, models: list[Any]) -> Any:
    """The application, with our ingress router where it has one of Ray's."""
    from ray.llm._internal.serve.constants import RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING
    from ray.serve._private.constants import RAY_SERVE_INGRESS_REQUEST_ROUTER_FORWARD_BODY

    if not RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING:
        return app
    if not RAY_SERVE_INGRESS_REQUEST_ROUTER_FORWARD_BODY:
        raise ConfigError(
            "RAY_SERVE_INGRESS_REQUEST_ROUTER_FORWARD_BODY is not 1: set it where Serve starts: "
            "no prompt reaches the ingress router otherwise, and it can only share out load"
        )
    from llmd_sched.ray.ingress import ingress_router

    (model,) = models
    has_adapters = model.lora_config is not None
    router = ingress_router(
        app, name="LLMRouter", base_model_id=model.model_id if has_adapters else None
    )
    return app._with_ingress_request_router(router)


def serve_with_brain(model: Any) -> None:
    """Makes replicas of an ``LLMConfig`` tell what their vLLM holds."""
    from ray.llm._internal.serve.core.server.llm_server import LLMServer

    from llmd_sched.ray._signals import EngineSignals
    from llmd_sched.ray.llm_server import LlmdServer

    if model.server_cls in (None, LLMServer):
        model.server_cls = LlmdServer
    elif not issubclass(model.server_cls, EngineSignals):
        logger.warning(
            "what replicas of model %s hold is estimated: its server_cls %s tells nothing; derive "
            "it from llmd_sched.ray.llm_server.LlmdServer",
            model.model_id,
            model.server_cls.__name__,
        )


def route_servers_of_ray(model: Any, settings: Mapping[str, Any]) -> None:
    """As :func:`route_with_brain`, where Ray names the class of the servers itself."""
    if model.server_cls is not None:
        raise ConfigError(
            f"model {model.model_id} has the server_cls {model.server_cls.__name__}, which Ray "
            "does not use for prefill, decode and data-parallel servers: leave it out"
        )
    route_with_brain(model, settings)


def route_with_brain(model: Any, settings: Mapping[str, Any]) -> None:
    """Makes the brain the request router of an ``LLMConfig``."""
    from ray.serve.config import RequestRouterConfig

    configured = model.deployment_config.get("request_router_config")
    if configured is None:
        model.deployment_config["request_router_config"] = router_config(model, settings)
        return
    if not isinstance(configured, RequestRouterConfig):
        configured = RequestRouterConfig.model_validate(configured)
    if not str(configured.request_router_class).startswith("llmd_sched.ray"):
        raise ConfigError(
            f"model {model.model_id} has the request router {configured.request_router_class!r}: "
            f"name {ROUTER!r} in its request_router_config, or leave that out"
        )
    if settings:
        raise ConfigError(
            f"model {model.model_id} has its own request_router_config: give its keywords there"
        )


def router_config(model: Any, settings: Mapping[str, Any]) -> Any:
    """The brain as ``request_router_config`` of an ``LLMConfig``."""
    from ray.serve.config import RequestRouterConfig

    # Tokens a block, as the engine will have it where nobody says: vLLM's default on GPUs.
    block_size = int(model.engine_kwargs.get("block_size") or 16)
    return RequestRouterConfig(
        request_router_class=ROUTER,
        request_router_kwargs={"block_size": block_size, **settings},
        request_routing_stats_period_s=STATS_PERIOD_S,
    )
