"""Drives a workload through a router and real HTTP, as so many clients."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import numpy as np

from llmd_sched import Decision, Router

from .workload import Session, Tokens, Turn, Workload

# Shorter than the engines keep an idle connection (uvicorn: 5 s): a longer one now and then sends a
# request down a connection that is being closed.
KEEPALIVE_S = 3.0
# A stream without a byte for this long is a failed request, not a reason to wait for ever.
STALL_TIMEOUT_S = 120.0


@dataclass
class Outcome:
    """What the clients saw."""

    ttft_s: list[float] = field(default_factory=list)
    requests_by_endpoint: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Driver:
    """Runs every session of a workload to its end."""

    router: Router
    model: str
    speed: float
    on_request_done: Callable[[Outcome], None]

    async def run(self, workload: Workload) -> Outcome:
        """Returns when the last answer has ended."""
        outcome = Outcome()
        timeout = aiohttp.ClientTimeout(total=None, sock_read=STALL_TIMEOUT_S)
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
            start = time.monotonic()
            await asyncio.gather(
                *(self._session(http, session, start, outcome) for session in workload.sessions)
            )
        return outcome

    async def _session(
        self, http: aiohttp.ClientSession, session: Session, start: float, outcome: Outcome
    ) -> None:
        await asyncio.sleep(max(0.0, start + session.start_s / self.speed - time.monotonic()))
        context = session.system
        for turn in session.turns:
            prompt = np.concatenate([context, turn.user])
            decision = await self.router.route_async(
                prompt, model=self.model, session_id=session.name, hold_ms=60_000
            )
            outcome.requests_by_endpoint[decision.address] += 1
            try:
                output = await self._ask(http, decision, prompt, turn, outcome)
            except (aiohttp.ClientError, asyncio.TimeoutError, ValueError) as error:
                self.router.cancel(decision)
                outcome.failures.append(f"{session.name}: {error!r}")
                return
            self.on_request_done(outcome)
            context = np.concatenate([prompt, output])
            await asyncio.sleep(turn.think_s / self.speed)

    async def _ask(
        self,
        http: aiohttp.ClientSession,
        decision: Decision,
        prompt: Tokens,
        turn: Turn,
        outcome: Outcome,
    ) -> Tokens:
        body = {
            "model": self.model,
            "prompt": prompt.tolist(),
            "max_tokens": turn.output_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "return_token_ids": True,
        }
        sent = time.monotonic()
        output: list[int] = []
        url = f"{decision.address}/v1/completions"
        async with http.post(url, json=body) as response:
            if response.status != 200:
                raise ValueError(f"{url} answered {response.status}: {await response.text()}")
            async for line in response.content:
                ids = _token_ids(line)
                if ids and not output:
                    outcome.ttft_s.append(time.monotonic() - sent)
                    self.router.first_token(decision)
                output += ids
        self.router.finish(decision, output_tokens=len(output))
        return np.asarray(output, dtype=np.uint32)


def _token_ids(line: bytes) -> list[int]:
    """The output token ids in one line of a server-sent event stream."""
    if not line.startswith(b"data: {"):
        return []
    chunk: dict[str, Any] = json.loads(line[6:])
    if "error" in chunk:
        raise ValueError(f"the engine broke off: {chunk['error']}")
    return [i for choice in chunk.get("choices", ()) for i in choice.get("token_ids") or ()]
