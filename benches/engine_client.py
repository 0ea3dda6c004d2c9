"""A client of a real engine that tells the router what it sees, as a gateway does."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass

import aiohttp
import numpy as np
import numpy.typing as npt
from llmd_sched import Router

Tokens = npt.NDArray[np.uint32]


@dataclass(frozen=True)
class Asked:
    """A request: its prompt, and how long its answer will be."""

    prompt: Tokens
    output_tokens: int


@dataclass(frozen=True)
class Answered:
    """What was expected of a request when it was placed, and what came, in milliseconds."""

    address: str
    uncached_tokens: int
    expected: dict[str, float | None]
    ttft_ms: float
    tpot_ms: float


class Client:
    """Asks engines over HTTP; the router says which of them."""

    def __init__(self, http: aiohttp.ClientSession, router: Router, model: str) -> None:
        self._http, self._router, self._model = http, router, model

    async def ask(self, asked: Asked, only: str | None = None) -> Answered:
        """Routes, sends, reads the stream, and tells of first token, progress and end."""
        decision = await self._router.route_async(
            asked.prompt, model=self._model, allowed=None if only is None else [only]
        )
        start = first = last = time.monotonic()
        tokens = 0
        body = {
            "model": self._model,
            "prompt": asked.prompt.tolist(),
            "max_tokens": asked.output_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "return_token_ids": True,
        }
        with decision:
            async with self._http.post(
                f"{decision.address}/v1/completions", json=body, headers=decision.headers
            ) as answer:
                answer.raise_for_status()
                async for line in answer.content:
                    if not (arrived := _tokens_in(line)):
                        continue
                    last = time.monotonic()
                    if tokens == 0:
                        first = last
                        self._router.first_token(decision)
                    tokens += arrived
                    self._router.progress(decision, tokens)
        if tokens != asked.output_tokens:
            raise RuntimeError(f"{decision.address} gave {tokens} of {asked.output_tokens} tokens")
        return Answered(
            address=decision.address,
            uncached_tokens=decision.prompt_tokens - decision.matched_tokens,
            expected={
                "ttft": decision.predicted_ttft_ms,
                "ttft_p90": decision.predicted_ttft_p90_ms,
                "tpot": decision.predicted_tpot_ms,
                "tpot_p50": decision.predicted_tpot_p50_ms,
                "tpot_p90": decision.predicted_tpot_p90_ms,
            },
            ttft_ms=(first - start) * 1e3,
            tpot_ms=(last - first) * 1e3 / max(tokens - 1, 1),
        )


def _tokens_in(line: bytes) -> int:
    """Output tokens in one line of a stream of server-sent events."""
    if not line.startswith(b"data: {"):
        return 0
    return sum(len(it.get("token_ids") or ()) for it in json.loads(line[6:]).get("choices", ()))
