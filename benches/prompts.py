"""What the benches of the Python interface route: conversations over shared beginnings."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Prompt = npt.NDArray[np.uint32]


def conversations(tokens: int) -> list[Prompt]:
    """16 conversations over 4 shared beginnings: what an index of a chat service looks like."""
    rng = np.random.default_rng(1)
    half = tokens // 2
    shared = [rng.integers(0, 128_000, half, dtype=np.uint32) for _ in range(4)]
    return [
        np.concatenate([shared[i % 4], rng.integers(0, 128_000, half, dtype=np.uint32)])
        for i in range(16)
    ]


def as_text(prompt: Prompt) -> str:
    """A text of four characters a token, the usual rule of thumb, with equal prefixes."""
    return "".join(f"{token % 10_000:04}" for token in prompt.tolist())
