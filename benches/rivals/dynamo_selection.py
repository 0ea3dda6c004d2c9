"""Dynamo's ``SelectionService``: match, score and book, in the process that asks."""

from __future__ import annotations

import asyncio
import struct
import time
from typing import Any

import msgspec
import uvloop
import zmq
from dynamo._core import SelectionService
from prompts import Prompt
from timing import Cpu, Stopwatch

CALLS = 64
PATIENCE_S = 30.0


class SelectionRival:
    """64 workers, whose KV events come from publishers of ours: it knows no other way to learn."""

    def __init__(self, prompts: list[Prompt], workers: int, block_tokens: int) -> None:
        self._prompts = [prompt.tolist() for prompt in prompts]
        self._loop = uvloop.new_event_loop()  # As Dynamo runs it.
        self._context = zmq.Context()
        self._publishers = [self._publisher() for _ in range(workers)]
        self._service = SelectionService(indexer_threads=1)
        self._selected = 0
        self._loop.run_until_complete(self._fill(workers, block_tokens))

    def batch(self) -> Cpu:
        """Lists are made off the clock: the interface takes nothing else."""
        return self._loop.run_until_complete(self._batch())

    async def _batch(self) -> Cpu:
        stopwatch = Stopwatch()
        ids = []
        for number in range(CALLS):
            self._selected += 1
            ids.append(str(self._selected))
            request = self._request(number) | {"selection_id": ids[-1]}
            stopwatch.start()
            await self._service.select_and_reserve(request)
            stopwatch.stop()
            await self._service.free_reservation(ids[-1])
        return stopwatch.of(CALLS)

    def _request(self, number: int) -> dict[str, Any]:
        return {"model_name": "m", "token_ids": self._prompts[number % len(self._prompts)]}

    async def _fill(self, workers: int, block_tokens: int) -> None:
        for worker, (_, port) in enumerate(self._publishers):
            await self._service.upsert_worker(
                {
                    "worker_id": worker,
                    "model_name": "m",
                    "endpoint": f"http://10.0.0.{worker}:8000",
                    "kv_events_endpoint": f"tcp://127.0.0.1:{port}",
                    "block_size": block_tokens,
                    "total_kv_blocks": 131_072,
                    "max_num_batched_tokens": 8_192,
                }
            )
        stride = max(1, workers // len(self._prompts))
        for number in range(len(self._prompts)):
            await self._hold(number, number * stride % workers, block_tokens)

    async def _hold(self, number: int, worker: int, block_tokens: int) -> None:
        """Publishes until it is heard: a subscriber that has just connected misses messages."""
        prompt = self._prompts[number]
        blocks = len(prompt) // block_tokens
        names = range(1 + number * blocks, 1 + (number + 1) * blocks)
        event = ["BlockStored", list(names), None, prompt, block_tokens, None]
        publisher, _ = self._publishers[worker]
        deadline = time.monotonic() + PATIENCE_S
        for sequence in range(1_000_000):
            payload = msgspec.msgpack.encode([time.time(), [event], None])
            publisher.send_multipart([b"", struct.pack(">Q", sequence), payload])
            await asyncio.sleep(0.05)
            scores = await self._service.overlap_scores(self._request(number))
            held = {row["worker_id"]: row["device_blocks"] for row in scores["workers"]}
            if held.get(worker) == blocks:
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"worker {worker} is not known to hold prompt {number}: {held}")

    def _publisher(self) -> tuple[zmq.Socket[bytes], int]:
        publisher = self._context.socket(zmq.PUB)
        return publisher, publisher.bind_to_random_port("tcp://127.0.0.1")
