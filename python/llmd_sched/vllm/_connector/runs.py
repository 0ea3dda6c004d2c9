"""Blocks of a prompt that follow one another."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Run:
    """Blocks of a group."""

    group: int
    hashes: list[bytes]
    block_ids: list[int]
    # The hash of the block before the first, if there is one, and how many there are.
    parent: bytes | None
    position: int
