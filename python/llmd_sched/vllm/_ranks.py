"""Data-parallel ranks of an ``AsyncLLM``, chosen by the brain."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

from llmd_sched._core import Decision, Router
from llmd_sched._errors import ConfigError, LlmdError
from llmd_sched._types import ConfigSource, RequestOptions, Signals
from llmd_sched.vllm._borrowed import borrowed
from llmd_sched.vllm._stats import follow

logger = logging.getLogger("llmd_sched.vllm")

[_RequestOutputKind] = borrowed("vllm.sampling_params", "RequestOutputKind")

# The ranks' address: requests do not leave the process.
ADDRESS = "vllm"


class RankRouter:
    """An ``AsyncLLM`` whose requests go to the rank that has their prefix, or has room.

    ``engine`` runs with internal load balancing (``data_parallel_size`` ranks behind one
    ``AsyncLLM``). What each rank holds is exact where KV events are on
    (``--kv-events-config``), and estimated otherwise; how loaded it is comes from the ranks' own
    statistics where vLLM has loaded :class:`llmd_sched.vllm.StatLogger`. ``hosts`` names where
    ranks on other nodes publish. ``config`` is the router's, ``labels`` are of every rank.

    Where the brain cannot decide, vLLM does, and ``fallbacks`` of :meth:`counters` counts it.
    Raises :class:`llmd_sched.ConfigError`.
    """

    def __init__(
        self,
        engine: Any,
        *,
        config: ConfigSource | None = None,
        labels: Mapping[str, str] | None = None,
        hosts: Mapping[int, str] | None = None,
    ) -> None:
        self.engine = engine
        self._fallbacks = 0
        own = engine.vllm_config
        cache, batches = own.cache_config, own.scheduler_config
        self.router = Router(config, block_size=cache.block_size)
        sources = engine.get_kv_event_sources()
        self._ranks = []
        for rank in range(own.parallel_config.data_parallel_size):
            source = sources.get(rank)
            host = (hosts or {}).get(rank, "127.0.0.1")
            capacity: dict[str, int] = {
                "block_size": cache.block_size,
                "max_running_requests": batches.max_num_seqs,
                "max_batch_tokens": batches.max_num_batched_tokens,
                "max_model_len": own.model_config.max_model_len,
            }
            if cache.num_gpu_blocks:
                capacity["kv_blocks"] = cache.num_gpu_blocks
            self._ranks.append(
                self.router.add_endpoint(
                    ADDRESS,
                    dp_rank=rank,
                    labels=labels,
                    capacity=capacity,  # type: ignore[arg-type]  # of these keys
                    kv_events=source and _reached(source.endpoint, host),
                    kv_replay=source
                    and source.replay_endpoint
                    and _reached(source.replay_endpoint, host),
                    kv_topic=source.topic if source else "",
                )
            )
        self._unfollow = follow(own, self._report)

    def _report(self, rank: int, signals: Signals) -> None:
        if rank < len(self._ranks):
            self.router.report(self._ranks[rank], **signals)

    def choose(self, prompt: Any, **options: Any) -> Decision:
        """The rank of a prompt, :attr:`llmd_sched.Decision.dp_rank`, with its load booked there.

        ``prompt`` is as :meth:`generate` takes it; ``options`` are
        :class:`llmd_sched.RequestOptions`. For those who call the engine themselves, and then tell
        ``router`` of the first token and the end. Raises as :meth:`llmd_sched.Router.route` does.
        """
        tokens, text = _prompt_of(prompt)
        return self.router.route(tokens, text=text, **_said(prompt, options))

    async def generate(
        self,
        prompt: Any,
        sampling_params: Any,
        request_id: str,
        *,
        options: RequestOptions | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[Any]:
        """As the engine's ``generate``, on the rank that the brain chooses.

        ``prompt`` best has its token ids (``{"prompt_token_ids": [...]}``): a prompt as text is
        only matched with others that came as text. ``options`` is what else is said of the
        request; other keywords are the engine's.
        """
        decision = await self._decide(prompt, sampling_params, dict(options or {}), kwargs)
        rank = None if decision is None else decision.dp_rank
        outputs = self.engine.generate(
            prompt, sampling_params, request_id, data_parallel_rank=rank, **kwargs
        )
        if decision is None:
            async for output in outputs:
                yield output
            return
        tells_new = sampling_params.output_kind == _RequestOutputKind.DELTA
        tokens = 0
        try:
            async for output in outputs:
                count = sum(len(choice.token_ids) for choice in output.outputs)
                if tokens == 0 and count > 0:
                    self.router.first_token(decision)
                tokens = tokens + count if tells_new else count
                yield output
            self.router.finish(decision, tokens)
        finally:
            # Of one that is over already it says so, and does nothing.
            self.router.cancel(decision)

    async def _decide(
        self, prompt: Any, sampling_params: Any, options: dict[str, Any], kwargs: dict[str, Any]
    ) -> Decision | None:
        options.setdefault("max_output_tokens", sampling_params.max_tokens)
        if (lora := kwargs.get("lora_request")) is not None:
            options.setdefault("lora", lora.lora_name)
        if (session_id := kwargs.get("session_id")) is not None:
            options.setdefault("session_id", session_id)
        try:
            tokens, text = _prompt_of(prompt)
            return await self.router.route_async(tokens, text=text, **_said(prompt, options))
        except (LlmdError, TypeError) as failed:
            self._fallbacks += 1
            if self._fallbacks == 1:
                logger.warning("vLLM chooses the rank, because of %s", failed)
            return None

    def counters(self) -> dict[str, Any]:
        """``fallbacks``, and the router's own under ``router``."""
        return {"fallbacks": self._fallbacks, "router": self.router.stats()}

    def close(self) -> None:
        """Ends the router; the engine goes on."""
        self._unfollow()
        self.router.close()


def _reached(endpoint: str, host: str) -> str:
    """Where to connect to what is bound at ``endpoint``."""
    return endpoint.replace("*", host).replace("0.0.0.0", host)


def _said(prompt: Any, options: dict[str, Any]) -> dict[str, Any]:
    """What is said of a request, with what its prompt says."""
    if isinstance(prompt, Mapping) and prompt.get("cache_salt"):
        options.setdefault("cache_salt", prompt["cache_salt"])
    return options


def _prompt_of(prompt: Any) -> tuple[Any, str | None]:
    if isinstance(prompt, str):
        return None, prompt
    if isinstance(prompt, Mapping):
        tokens, text = prompt.get("prompt_token_ids"), prompt.get("prompt")
    else:
        tokens, text = getattr(prompt, "prompt_token_ids", None), None
    if tokens is None and not isinstance(text, str):
        raise ConfigError(f"a prompt of type {type(prompt).__name__} has no prompt_token_ids")
    return tokens, text
