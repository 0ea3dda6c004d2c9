"""The brain in applications of ``ray.serve.llm``, by the name of their builder alone.

.. code-block:: yaml

    applications:
    - import_path: llmd_sched.ray.llm:build_openai_app  # was ray.serve.llm:build_openai_app
      args:
        llm_configs: [...]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmd_sched._errors import ConfigError, MissingDependencyError

ROUTER = "llmd_sched.ray:LlmdRouter"


def build_openai_app(builder_config: Any, **router_kwargs: Any) -> Any:
    """As ``ray.serve.llm.build_openai_app``, with the brain for a request router.

    ``router_kwargs`` are those of :class:`llmd_sched.ray.Settings`, for models whose
    configuration has no ``request_router_config`` of its own. With
    ``RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING=1`` HAProxy asks an
    :class:`~llmd_sched.ray.ingress.IngressRouter` in place of Ray's ``LLMRouter``.

    Raises :class:`llmd_sched.ConfigError` where a model has another request router, or bodies do
    not reach the ingress router; :class:`llmd_sched.MissingDependencyError` without ``ray[llm]``.
    """
    try:
        from ray.llm._internal.serve.constants import RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING
        from ray.serve._private.constants import RAY_SERVE_INGRESS_REQUEST_ROUTER_FORWARD_BODY
        from ray.serve.llm import LLMServingArgs
        from ray.serve.llm import build_openai_app as build
    except ImportError as absent:
        raise MissingDependencyError(
            f"llmd_sched.ray.llm needs Ray Serve LLM 2.60 ({absent}): pip install 'ray[llm]>=2.60'"
        ) from absent
    asked = LLMServingArgs.model_validate(builder_config)
    for model in asked.llm_configs:
        route_with_brain(model, router_kwargs)
    app = build(asked)
    if not RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING:
        return app
    if not RAY_SERVE_INGRESS_REQUEST_ROUTER_FORWARD_BODY:
        raise ConfigError(
            "RAY_SERVE_INGRESS_REQUEST_ROUTER_FORWARD_BODY is not 1: set it where Serve starts: "
            "no prompt reaches the ingress router otherwise, and it can only share out load"
        )
    from llmd_sched.ray.ingress import ingress_router

    (model,) = asked.llm_configs
    has_adapters = model.lora_config is not None
    router = ingress_router(
        app, name="LLMRouter", base_model_id=model.model_id if has_adapters else None
    )
    return app._with_ingress_request_router(router)


def route_with_brain(model: Any, router_kwargs: Mapping[str, Any]) -> None:
    """Makes the brain the request router of an ``LLMConfig``."""
    from ray.serve.config import RequestRouterConfig

    configured = model.deployment_config.get("request_router_config")
    if configured is None:
        model.deployment_config["request_router_config"] = RequestRouterConfig(
            request_router_class=ROUTER, request_router_kwargs=dict(router_kwargs)
        )
        return
    if not isinstance(configured, RequestRouterConfig):
        configured = RequestRouterConfig.model_validate(configured)
    if not str(configured.request_router_class).startswith("llmd_sched.ray"):
        raise ConfigError(
            f"model {model.model_id} has the request router {configured.request_router_class!r}: "
            f"name {ROUTER!r} in its request_router_config, or leave that out"
        )
    if router_kwargs:
        raise ConfigError(
            f"model {model.model_id} has its own request_router_config: give its keywords there"
        )
