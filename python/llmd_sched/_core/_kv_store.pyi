"""The store of KV blocks, by addresses of memory."""

from collections.abc import Sequence
from os import PathLike
from typing import final

import numpy as np
from numpy.typing import NDArray

@final
class KvStore:
    """What is behind :class:`llmd_sched.kv.Store`, for memory that is known by its addresses.

    Opens the store called ``name``, which all processes of a node share, or makes it; they all give
    the same settings. Raises :class:`ConfigError` for settings that cannot be or are not those of
    the store, ``OSError`` for what the system refuses.
    """

    def __new__(
        cls,
        name: str,
        *,
        block_bytes: int,
        host_bytes: int,
        disk_bytes: int = 0,
        disk_folder: str | PathLike[str] | None = None,
        eviction: str = "density",
        fingerprint: bytes | None = None,
        salt: bytes | None = None,
    ) -> KvStore: ...
    def matched(self, hashes: Sequence[bytes]) -> int:
        """How many of these blocks, from the first, are there now."""

    def get(
        self,
        hashes: Sequence[bytes],
        addresses: NDArray[np.uint64],
        piece_bytes: NDArray[np.uint64],
        *,
        parent: bytes | None = None,
        position: int = 0,
    ) -> NDArray[np.bool_]:
        """Copies blocks to memory, and says which were there.

        ``addresses`` are those of the first block's pieces, then of the second's, and so on;
        ``piece_bytes`` is how long each of a block's pieces is. The memory must be there, and be
        nobody else's, until this returns; a wrong address ends the process. The pieces of a block
        that was not there hold no particular bytes. The GIL is free meanwhile.
        """

    def put(
        self,
        hashes: Sequence[bytes],
        addresses: NDArray[np.uint64],
        piece_bytes: NDArray[np.uint64],
        *,
        parent: bytes | None = None,
        position: int = 0,
    ) -> int:
        """Copies blocks from memory (see :meth:`get`), and says how many were not there before.

        They follow one another, the first of them the block ``parent``, ``position`` blocks from
        the prompt's first.
        """

    def pin(self, hashes: Sequence[bytes], lease_s: float) -> tuple[int, int]:
        """Keeps blocks in memory for so long; returns the lease and how many blocks it has."""

    def unpin(self, hashes: Sequence[bytes], lease: int) -> None:
        """Ends a lease early."""

    def counts(self) -> dict[str, dict[str, int]]:
        """What has happened, in all processes together: counters of ``"host"`` and ``"disk"``."""

    @staticmethod
    def unlink(name: str) -> None:
        """Removes a store's name: who has it open keeps it, the next to open it makes a new one."""
