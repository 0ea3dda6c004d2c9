"""Blocks in and out of a worker's KV cache.

Both directions run on threads of their own, which give up the GIL. A load ends when vLLM is told
so; what was not there is told with it and computed. A save reads blocks that later steps may give
to others, so the next step waits for it: it has the time of sampling and of planning to itself,
and nothing has to be kept from being freed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

from llmd_sched._core import KvStore
from llmd_sched.vllm._connector.groups import Model
from llmd_sched.vllm._connector.layout import Layout
from llmd_sched.vllm._connector.planning import Plan
from llmd_sched.vllm._connector.runs import Run

logger = logging.getLogger("llmd_sched.vllm")


class Mover:
    """One worker's."""

    def __init__(
        self,
        model: Model,
        stores: Sequence[KvStore],
        caches: dict[str, Any],
        num_blocks: int,
        threads: int,
    ) -> None:
        self._stores = stores
        self._layouts = [Layout(group, caches, num_blocks) for group in model.groups]
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="llmd-kv")
        self._saves: list[Future[None]] = []
        # By request, block ids that could not be loaded.
        self._loads: dict[str, Future[set[int]]] = {}

    def wait_for_saves(self) -> None:
        """Returns when no block is read any more."""
        wait(self._saves)
        self._saves = []

    def start(self, plan: Plan) -> None:
        """Begins a step's loads."""
        for request, runs in plan.loads.items():
            self._loads[request] = self._pool.submit(self._load, runs)

    def save(self, plan: Plan) -> None:
        """Begins a step's saves."""
        self._saves += [self._pool.submit(self._save, run) for run in plan.saves]

    def loaded(self) -> tuple[set[str], set[int]]:
        """Requests whose loads are over, and the blocks that are not there."""
        done = {request for request, load in self._loads.items() if load.done()}
        missing: set[int] = set()
        for request in done:
            missing |= self._loads.pop(request).result()
        return done, missing

    def close(self) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _load(self, runs: Sequence[Run]) -> set[int]:
        missing: set[int] = set()
        for run in runs:
            layout = self._layouts[run.group]
            try:
                there = self._stores[run.group].get(
                    run.hashes,
                    layout.addresses(run.block_ids),
                    layout.piece_bytes,
                    parent=run.parent,
                    position=run.position,
                )
            except Exception:
                # The engine can do without: it computes.
                logger.exception("%d KV blocks cannot be loaded", len(run.hashes))
                missing.update(run.block_ids)
            else:
                blocks = zip(run.block_ids, there, strict=True)
                missing.update(block for block, is_there in blocks if not is_there)
        return missing

    def _save(self, run: Run) -> None:
        layout = self._layouts[run.group]
        try:
            self._stores[run.group].put(
                run.hashes,
                layout.addresses(run.block_ids),
                layout.piece_bytes,
                parent=run.parent,
                position=run.position,
            )
        except Exception:
            logger.exception("%d KV blocks cannot be saved", len(run.hashes))
