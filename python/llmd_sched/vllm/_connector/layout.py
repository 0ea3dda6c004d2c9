"""Where in a worker's memory the bytes of a block are."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from llmd_sched._errors import ConfigError
from llmd_sched.vllm._connector.groups import Group


class Layout:
    """The pieces of a group's blocks, of block ``b`` each at its ``start + b * stride``."""

    def __init__(self, group: Group, caches: dict[str, Any], num_blocks: int) -> None:
        pieces: list[tuple[int, int, int]] = []
        for layer in group.layers:
            pieces += _pieces(layer, caches[layer], num_blocks)
        pieces = _joined(pieces)
        self._starts = np.array([start for start, _, _ in pieces], np.uint64)
        self._strides = np.array([stride for _, stride, _ in pieces], np.uint64)
        self.piece_bytes = np.array([length for _, _, length in pieces], np.uint64)
        if self.piece_bytes.sum() > group.block_bytes:
            raise ConfigError(
                f"a block of {group.layers[0]!r} and its like has {self.piece_bytes.sum()} bytes, "
                f"not {group.block_bytes}: LlmdConnector does not know this layout"
            )

    def addresses(self, block_ids: Sequence[int]) -> npt.NDArray[np.uint64]:
        """Those of the first block's pieces, then of the second's, and so on."""
        blocks = np.asarray(block_ids, np.uint64).reshape(-1, 1)
        return (self._starts + blocks * self._strides).ravel()


def _pieces(layer: str, cache: Any, num_blocks: int) -> list[tuple[int, int, int]]:
    """Start, stride and length of the runs of memory that a block has in one layer's cache,
    whatever the order of its dimensions.
    """
    shape, strides, item = tuple(cache.shape), cache.stride(), cache.element_size()
    along = next((at for at, length in enumerate(shape[:2]) if length == num_blocks), None)
    if along is None:
        raise ConfigError(
            f"the KV cache of {layer!r} has shape {shape}, without {num_blocks} blocks along its "
            "first two dimensions: LlmdConnector does not know this layout"
        )
    # From the innermost dimension outwards, as long as memory has no gaps.
    inner = sorted((at for at in range(len(shape)) if at != along), key=lambda at: strides[at])
    dense, outer = 1, []
    for at in inner:
        if strides[at] == dense:
            dense *= shape[at]
        elif shape[at] > 1:
            outer.append(at)
    runs = product(*(range(shape[at]) for at in outer))
    return [
        (
            cache.data_ptr()
            + item * sum(i * strides[at] for i, at in zip(run, outer, strict=True)),
            strides[along] * item,
            dense * item,
        )
        for run in runs
    ]


def _joined(pieces: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Fewer, longer pieces, where one begins at the end of another."""
    joined: list[tuple[int, int, int]] = []
    for start, stride, length in pieces:
        if joined:
            before, its_stride, its_length = joined[-1]
            if before + its_length == start and its_stride == stride:
                joined[-1] = (before, stride, its_length + length)
                continue
        joined.append((start, stride, length))
    return joined
