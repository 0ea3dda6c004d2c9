"""KV events of the store: routers learn that a prompt can be loaded where its engine is.

A save may be refused, and what is stored may go for other blocks of whoever shares the store: only
what is found there is said to be, and what was said is looked at again from time to time.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmd_sched._core import KvStore
from llmd_sched.vllm._borrowed import borrowed
from llmd_sched.vllm._connector.groups import Group
from llmd_sched.vllm._connector.runs import Run

# Steps after which a save that is not found counts as refused.
MOST_LOOKS = 64
# Blocks that are looked at again in a step.
AGAIN = 16
# Blocks that are remembered as said; the oldest are taken back first.
MOST_SAID = 1 << 20


@dataclass
class _Saved:
    """Blocks on their way into the store, and the tokens in them."""

    run: Run
    tokens: list[int]
    looks: int = 0


class Announcer:
    """Of one engine."""

    def __init__(self, groups: Sequence[Group], stores: Sequence[Sequence[KvStore]]) -> None:
        [self._stored, self._removed, self._medium] = borrowed(
            "vllm.distributed.kv_events", "BlockStored", "BlockRemoved", "MEDIUM_CPU"
        )
        [self._as_event] = borrowed("vllm.v1.core.kv_cache_utils", "maybe_convert_block_hash")
        self._groups = groups
        # Of each worker, and there of each group.
        self._stores = stores
        self._saved: deque[_Saved] = deque()
        self._said: OrderedDict[tuple[int, bytes], None] = OrderedDict()

    def saving(self, run: Run, request: Any) -> None:
        """A run of blocks of a request is being saved.

        Blocks of a window are no prefix, and keys of prompts with more than tokens in them (an
        adapter, images, a salt) are vLLM's business: nothing is said of those.
        """
        group = self._groups[run.group]
        has_more = (
            request.lora_request or request.mm_features or request.cache_salt,
            getattr(request, "prompt_embeds", None) is not None,
        )
        if group.window_tokens is not None or any(has_more):
            return
        size = group.block_tokens
        first = run.position * size
        tokens = list(request.all_token_ids[first : first + len(run.hashes) * size])
        self._saved.append(_Saved(run, tokens))

    def events(self) -> list[Any]:
        """What has been stored, and what has gone, since the last call."""
        events = []
        for _ in range(len(self._saved)):
            saved = self._saved.popleft()
            there = self._there(saved.run.group, saved.run.hashes)
            saved.looks += 1
            if there == len(saved.run.hashes) or (there and saved.looks == MOST_LOOKS):
                events.append(self._say(saved, there))
            elif saved.looks < MOST_LOOKS:
                self._saved.append(saved)
        for _ in range(min(AGAIN, len(self._said))):
            (group, name), _ = self._said.popitem(last=False)
            if len(self._said) < MOST_SAID and self._there(group, [name]):
                self._said[group, name] = None
            else:
                events.append(self._removed([self._as_event(name)], self._medium, group))
        return events

    def _there(self, group: int, hashes: list[bytes]) -> int:
        return min(stores[group].matched(hashes) for stores in self._stores)

    def _say(self, saved: _Saved, blocks: int) -> Any:
        run, size = saved.run, self._groups[saved.run.group].block_tokens
        names = run.hashes[:blocks]
        self._said.update(dict.fromkeys((run.group, name) for name in names))
        return self._stored(
            block_hashes=[self._as_event(name) for name in names],
            parent_block_hash=None if run.parent is None else self._as_event(run.parent),
            token_ids=saved.tokens[: blocks * size],
            block_size=size,
            lora_id=None,
            medium=self._medium,
            lora_name=None,
            group_idx=run.group,
        )
