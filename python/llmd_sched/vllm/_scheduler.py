"""vLLM's scheduler with another order of those who wait. What it does for each stays its own."""

from __future__ import annotations

import time
from typing import Any

from llmd_sched._errors import ConfigError
from llmd_sched.vllm._borrowed import borrowed, lacks, settings_of
from llmd_sched.vllm._queue import TurnRequestQueue

[_AsyncScheduler] = borrowed("vllm.v1.core.sched.async_scheduler", "AsyncScheduler")
[_Scheduler] = borrowed("vllm.v1.core.sched.scheduler", "Scheduler")


class _InTurns:
    """Mixed in before a scheduler of vLLM's: its waiting requests wait in turns."""

    # Whether the scheduler behind it runs a step ahead of the model.
    _is_async: bool
    waiting: TurnRequestQueue
    vllm_config: Any
    kv_cache_manager: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if bool(self.vllm_config.scheduler_config.async_scheduling) != self._is_async:
            name = "SyncTurnScheduler" if self._is_async else "TurnScheduler"
            raise ConfigError(
                f"async_scheduling is {not self._is_async} here: "
                f"use --scheduler-cls llmd_sched.vllm.{name}"
            )
        if not hasattr(self.kv_cache_manager, "get_computed_blocks"):
            raise lacks("get_computed_blocks", "the scheduler's kv_cache_manager")
        turns = settings_of(self.vllm_config).get("turns", {})
        self.waiting = TurnRequestQueue(turns, self._cached_tokens)

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        self.waiting.now_s = time.time()
        return super().schedule(*args, **kwargs)  # type: ignore[misc]  # vLLM's

    def _cached_tokens(self, request: Any) -> int:
        # In that mode the lookup itself publishes events.
        if getattr(request, "kv_cache_report_mode", None) == "full":
            return 0
        tokens: int = self.kv_cache_manager.get_computed_blocks(request)[1]
        return tokens


class TurnScheduler(_InTurns, _AsyncScheduler):  # type: ignore[misc, valid-type]
    """``--scheduler-cls llmd_sched.vllm.TurnScheduler``: who waits goes in turns.

    The order is that of ``flow.turns`` (``docs/flow.md``), which :class:`llmd_sched.TurnQueue` has:
    ``--additional-config '{"llmd_sched": {"turns": {"order": "deadline"}}}'``. A request says in
    ``SamplingParams.extra_args`` (``vllm_xargs`` over HTTP) what it asks for: ``tenant``,
    ``deadline_ms`` and ``ttft_slo_ms``, and in vLLM's own ``priority``, where less is more
    important. Nobody's outputs change: only when a request is let into the batch does.

    Raises :class:`llmd_sched.ConfigError` for settings that cannot be, and where async scheduling
    is off, which :class:`SyncTurnScheduler` is for.
    """

    _is_async = True


class SyncTurnScheduler(_InTurns, _Scheduler):  # type: ignore[misc, valid-type]
    """As :class:`TurnScheduler`, for engines without async scheduling."""

    _is_async = False
