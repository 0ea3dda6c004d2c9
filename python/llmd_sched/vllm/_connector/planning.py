"""What is loaded and saved: the connector beside vLLM's scheduler."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmd_sched._core import KvStore
from llmd_sched.vllm._connector.announcing import Announcer
from llmd_sched.vllm._connector.groups import Group, Model
from llmd_sched.vllm._connector.runs import Run

# vLLM's block that stands for one outside the window.
NULL_BLOCK = 0


@dataclass
class Plan:
    """What a step's worker is to do."""

    # By request.
    loads: dict[str, list[Run]] = field(default_factory=dict)
    saves: list[Run] = field(default_factory=list)


@dataclass
class _Tracked:
    """A request whose blocks are saved as they fill."""

    request: Any
    # Of each group, how many of its blocks have been offered to the store.
    offered: list[int]


class Planner:
    """Asks the store what it has, and keeps what requests have yet to save."""

    def __init__(
        self,
        model: Model,
        stores: Sequence[Sequence[KvStore]],
        announcer: Announcer | None = None,
    ) -> None:
        self._model = model
        # Where somebody wants KV events.
        self._announcer = announcer
        # Of each worker, and there of each group.
        self._stores = stores
        self._tracked: dict[str, _Tracked] = {}
        self._computed_tokens: dict[str, int] = {}
        self._loads: dict[str, list[Run]] = {}

    def matched_tokens(self, request: Any, computed_tokens: int) -> int:
        """Tokens beyond ``computed_tokens`` that every worker can load; the last token of a prompt
        has to be computed for its logits."""
        self._computed_tokens[request.request_id] = computed_tokens
        hash_tokens = self._model.hash_tokens
        hashed = request.block_hashes[: (request.num_tokens - 1) // hash_tokens]
        names = [group.hashes(hashed, hash_tokens) for group in self._model.groups]

        def has(group: Group, first: int, last: int) -> int:
            wanted = list(names[group.number][first:last])
            return min(stores[group.number].matched(wanted) for stores in self._stores)

        found = self._model.found(len(hashed) * hash_tokens, computed_tokens, has)
        return max(0, found - computed_tokens)

    def placed(self, request: Any, block_ids: Sequence[Sequence[int]], load_tokens: int) -> None:
        """vLLM has given a request its blocks, of which so many tokens are to be loaded."""
        name = request.request_id
        if name not in self._tracked:
            self._tracked[name] = _Tracked(request, [0] * len(self._model.groups))
        if load_tokens == 0:
            return
        computed = self._computed_tokens.pop(name, 0)
        tokens = computed + load_tokens
        self._loads[name] = [
            run
            for group, ids in zip(self._model.groups, block_ids, strict=True)
            for run in self._runs(
                group,
                request,
                ids,
                max(group.first_needed(tokens), computed // group.block_tokens),
                tokens // group.block_tokens,
            )
        ]

    def plan(self, scheduled: Any) -> Plan:
        """What the step does that vLLM has just planned."""
        plan = Plan(loads=self._loads)
        self._loads = {}
        for name, tokens in self._after(scheduled):
            tracked = self._tracked.get(name)
            if tracked is None:
                continue
            block_ids = scheduled.kv_connector_block_state.get_block_ids(name)
            for group, ids in zip(self._model.groups, block_ids or (), strict=False):
                names = group.hashes(tracked.request.block_hashes, self._model.hash_tokens)
                full = min(tokens // group.block_tokens, len(names), len(ids))
                offered = tracked.offered[group.number]
                if full > offered:
                    plan.saves += self._saving(group, tracked.request, ids, offered, full)
                    tracked.offered[group.number] = full
        return plan

    def finished(self, name: str) -> None:
        """A request is over."""
        self._tracked.pop(name, None)
        self._computed_tokens.pop(name, None)
        self._loads.pop(name, None)

    def events(self) -> list[Any]:
        """KV events of the store since the last call."""
        return [] if self._announcer is None else self._announcer.events()

    def _saving(
        self, group: Group, request: Any, ids: Sequence[int], first: int, last: int
    ) -> list[Run]:
        runs = self._runs(group, request, ids, first, last)
        if self._announcer is not None:
            for run in runs:
                self._announcer.saving(run, request)
        return runs

    @staticmethod
    def _after(scheduled: Any) -> Iterable[tuple[str, int]]:
        """Requests of a step, and the tokens of each that are computed when it ends."""
        counts = scheduled.num_scheduled_tokens
        for new in scheduled.scheduled_new_reqs:
            yield new.req_id, new.num_computed_tokens + counts[new.req_id]
        cached = scheduled.scheduled_cached_reqs
        for name, computed in zip(cached.req_ids, cached.num_computed_tokens, strict=True):
            yield name, computed + counts[name]

    def _runs(
        self, group: Group, request: Any, ids: Sequence[int], first: int, last: int
    ) -> list[Run]:
        """Blocks ``first`` to ``last`` of a request, without those that it does not keep."""
        names = group.hashes(request.block_hashes, self._model.hash_tokens)
        runs: list[Run] = []
        for at in range(first, last):
            if ids[at] == NULL_BLOCK:
                continue
            if not (runs and runs[-1].position + len(runs[-1].hashes) == at):
                parent = bytes(names[at - 1]) if at > 0 else None
                runs.append(Run(group.number, [], [], parent, at))
            runs[-1].hashes.append(bytes(names[at]))
            runs[-1].block_ids.append(ids[at])
        return runs
