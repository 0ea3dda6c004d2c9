"""Waiting for a place in a task that may be cancelled."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmd_sched._core import Decision, PromptKeys, Router
    from llmd_sched._types import Tokens

HOLD_MS = 60_000
"""How long a request waits where the caller does not say."""


async def acquire(
    router: Router,
    tokens: Tokens | PromptKeys | None,
    text: str | None,
    options: dict[str, Any],
) -> Decision:
    """:meth:`Router.acquire`. Nothing is asked for before it is awaited.

    A task can be cancelled after its request was let go and before it runs again: the future is
    done then, and nobody would report to its decision.
    """
    future = router.route_async(tokens, text=text, **{"hold_ms": HOLD_MS, **options})
    try:
        return await future
    except asyncio.CancelledError:
        if future.done() and not future.cancelled() and future.exception() is None:
            router.cancel(future.result())
        raise
