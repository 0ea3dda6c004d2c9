"""Dynamo's ``RadixTree``: matching alone, from token ids to the scores of the workers."""

from __future__ import annotations

import json

from dynamo._core import RadixTree, compute_block_hash_for_seq
from prompts import Prompt
from timing import Cpu, batch

CALLS = 128


class RadixTreeRival:
    def __init__(self, prompts: list[Prompt], block_tokens: int) -> None:
        self._prompts = [prompt.tolist() for prompt in prompts]
        self._block_tokens = block_tokens
        self._tree = RadixTree()
        for worker, prompt in enumerate(self._prompts):
            hashes = compute_block_hash_for_seq(prompt, block_tokens)
            first = 1 + worker * len(hashes)
            blocks = [
                {"block_hash": first + at, "tokens_hash": local} for at, local in enumerate(hashes)
            ]
            stored = {"stored": {"parent_hash": None, "blocks": blocks}}
            event = {"event_id": worker, "data": stored, "dp_rank": 0}
            self._tree.apply_event(4 * worker, json.dumps(event).encode())
        scores = self._match(0)
        assert max(scores.values()) == len(self._prompts[0]) // block_tokens, scores

    def batch(self) -> Cpu:
        """Lists are made off the clock: the interface takes nothing else."""
        return batch(CALLS, self._match)

    def _match(self, number: int) -> dict[int, int]:
        prompt = self._prompts[number % len(self._prompts)]
        hashes = compute_block_hash_for_seq(prompt, self._block_tokens)
        return self._tree.find_matches(hashes).scores
