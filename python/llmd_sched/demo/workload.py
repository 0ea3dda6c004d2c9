"""What the clients ask: chat sessions over shared system prompts, or a Mooncake-format trace.

Prompts are token ids, so that a turn's prompt is exactly the previous prompt, the engine's own
output tokens and the new user tokens, whatever the engine's tokenizer does to text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Tokens = npt.NDArray[np.uint32]

# Ordinary ids of a small vocabulary: no special tokens, valid for the tiny test models too.
FIRST_TOKEN_ID = 10
VOCABULARY = 900
MOONCAKE_BLOCK_TOKENS = 512


def tokens_of(seed: tuple[int, ...], count: int) -> Tokens:
    """``count`` token ids that depend on ``seed`` alone."""
    generator = np.random.default_rng(seed)
    return generator.integers(FIRST_TOKEN_ID, FIRST_TOKEN_ID + VOCABULARY, count, dtype=np.uint32)


@dataclass(frozen=True)
class Turn:
    """One request of a session."""

    user: Tokens
    output_tokens: int
    think_s: float


@dataclass(frozen=True)
class Session:
    """A conversation: ``system`` and the turns that follow it, each after the previous answer."""

    name: str
    system: Tokens
    start_s: float
    turns: list[Turn] = field(default_factory=list)


@dataclass(frozen=True)
class Workload:
    """Sessions, and how many KV tokens they fill when nothing is ever evicted."""

    sessions: list[Session]
    working_set_tokens: int

    @property
    def requests(self) -> int:
        """Requests in all."""
        return sum(len(session.turns) for session in self.sessions)


@dataclass(frozen=True)
class ChatShape:
    """Sizes of the chat workload, in tokens and seconds."""

    sessions: int = 64
    turns: int = 6
    system_prompts: int = 8
    system_tokens: int = 2048
    user_tokens: int = 480
    output_tokens: int = 48
    think_s: float = 1.5
    seed: int = 0


def chat(shape: ChatShape) -> Workload:
    """Chat sessions; system prompts are dealt at random, so that no modulus favours a policy."""
    generator = np.random.default_rng(shape.seed)
    sessions = []
    for number in range(shape.sessions):
        prompt = int(generator.integers(shape.system_prompts))
        turns = [
            Turn(
                user=tokens_of((shape.seed, 2, number, turn), int(length)),
                output_tokens=shape.output_tokens,
                think_s=float(generator.exponential(shape.think_s)),
            )
            for turn, length in enumerate(
                generator.integers(shape.user_tokens // 2, shape.user_tokens * 3 // 2, shape.turns)
            )
        ]
        sessions.append(
            Session(
                name=f"session-{number}",
                system=tokens_of((shape.seed, 1, prompt), shape.system_tokens),
                start_s=float(generator.uniform(0, 2 * shape.think_s)),
                turns=turns,
            )
        )
    own = sum(len(turn.user) + turn.output_tokens for s in sessions for turn in s.turns)
    return Workload(sessions, shape.system_prompts * shape.system_tokens + own)


def mooncake(path: Path, *, limit: int, jitter_s: float = 3.0, seed: int = 0) -> Workload:
    """The first ``limit`` rows of a Mooncake-format trace: one single-turn session a row.

    Each hash id stands for 512 tokens that depend on the id alone, so equal ids give equal
    blocks. Timestamps are quantised in the published traces and are spread over ``jitter_s``.
    """
    generator = np.random.default_rng(seed)
    sessions = []
    blocks: set[int] = set()
    for number, row in enumerate(_rows(path, limit)):
        ids = row["hash_ids"]
        blocks.update(ids)
        prompt = np.concatenate([tokens_of((seed, 3, i), MOONCAKE_BLOCK_TOKENS) for i in ids])
        sessions.append(
            Session(
                name=f"row-{number}",
                system=prompt[: max(1, int(row["input_length"]))],
                start_s=row["timestamp"] / 1e3 + float(generator.uniform(0, jitter_s)),
                turns=[Turn(np.empty(0, np.uint32), max(1, int(row["output_length"])), 0.0)],
            )
        )
    if not sessions:
        raise ValueError(f"{path} has no rows: expected JSON lines with timestamp, hash_ids, ...")
    return Workload(sessions, len(blocks) * MOONCAKE_BLOCK_TOKENS)


def _rows(path: Path, limit: int) -> Iterator[dict[str, Any]]:
    with path.open() as lines:
        for number, line in enumerate(lines):
            if number >= limit:
                return
            row = json.loads(line)
            missing = {"timestamp", "input_length", "output_length", "hash_ids"} - row.keys()
            if missing:
                raise ValueError(f"{path} line {number + 1} lacks {sorted(missing)}")
            yield row
