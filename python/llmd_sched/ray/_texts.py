"""Prompts that come as text, as the engines' own tokens: before a pick, which then goes by those.

What is known of a text costs the event loop some microseconds for each KB. What is not known is
tokenised there only where it is short; a long one goes to a thread, which holds no GIL, and its
request waits while others are routed.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from llmd_sched._core import Tokenizer
from llmd_sched._errors import ConfigError

logger = logging.getLogger("llmd_sched.ray")

# Some 1.5 ms of work; a thread costs 0.1 ms more, and up to 5 ms until it has the GIL back.
MOST_UNKNOWN_BYTES = 8_192
# Of one process. Cold prompts wait for each other in there rather than for the cores of engines.
THREADS = 2

# Where the tokens are kept: in what Ray keeps for the routing of a request, from one attempt to the
# next. None: they are not known.
ATTRIBUTE = "llmd_sched_tokens"

NO_TEXTS: dict[str, float] = {
    "encoded": 0,
    "not_exact": 0,
    "text_bytes": 0,
    "known_bytes": 0,
    "tokens": 0,
    "tokenize_us": 0.0,
    "cache_bytes": 0,
    "elsewhere": 0,
    "failed": 0,
}
"""The counters of a router without a tokenizer."""


class Texts:
    """The tokenizer of one deployment's router. Raises :class:`ConfigError` where there is none."""

    def __init__(self, path: str) -> None:
        try:
            self.tokenizer = Tokenizer(path)
        except OSError as absent:
            raise ConfigError(
                f"tokenizer: {absent}; every node that routes needs the folder"
            ) from absent
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="llmd-tokenize")
        self._elsewhere = 0
        self._failed = 0

    async def prepare(self, pending: Any) -> None:
        """Leaves the tokens of a request's prompt with what Ray keeps of it. Raises nothing."""
        context = pending.routing_context
        if hasattr(context, ATTRIBUTE):
            return
        tokens = None
        try:
            encode = self.tokenizer._encode_call
            tokens, unknown_bytes = encode(pending.args, pending.kwargs, MOST_UNKNOWN_BYTES)
            if unknown_bytes > MOST_UNKNOWN_BYTES:
                self._elsewhere += 1
                tokens, _ = await asyncio.get_running_loop().run_in_executor(
                    self._threads, encode, pending.args, pending.kwargs
                )
        except Exception as failed:
            if not self._failed:
                logger.warning(
                    "a prompt is routed by its text: %s: %s", type(failed).__name__, failed
                )
            self._failed += 1
        setattr(context, ATTRIBUTE, tokens)

    def counters(self) -> dict[str, float]:
        """Of the tokenizer, and prompts that a thread made tokens of, or that failed."""
        own = {"elsewhere": self._elsewhere, "failed": self._failed}
        return {**self.tokenizer.counters(), **own}

    def close(self) -> None:
        """Ends the threads."""
        self._threads.shutdown(wait=False)


def tokens_of(pending: Any) -> Any:
    """The tokens that were left with a request; None where they are not known."""
    return getattr(pending.routing_context, ATTRIBUTE, None)
