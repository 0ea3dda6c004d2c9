"""The store for arrays and tensors: their addresses, checked and held while they are used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmd_sched._core import KvStore
from llmd_sched._errors import ConfigError


@dataclass(frozen=True)
class Lease:
    """Blocks that stay in memory for a while: of which session's, until when, and how many.

    Ends by itself, so a process that dies keeps nothing for ever; :meth:`Store.unpin` ends it
    early.
    """

    hashes: tuple[bytes, ...]
    until: int
    blocks: int


class Store:
    """A node's store of KV blocks, attached.

    - ``name``: which store; all processes that open it give the same settings.
    - ``block_bytes``: longest block, of all layers together.
    - ``host_bytes``: shared memory for blocks, reserved at once.
    - ``disk_bytes``, ``disk_folder``: what leaves memory goes there, and survives a restart of the
      machine. A folder is one store's.
    - ``eviction``: ``"density"``, ``"lru"``, ``"s3fifo"`` or ``"gdsf"``.
    - ``fingerprint``: whatever makes equal tokens other bytes: model, revision, KV data type,
      layout, tensor-parallel rank and size.
    - ``salt``: a tenant's; stores of different salts find none of each other's blocks.

    Blocks are named by the engine's full block hashes (16 or 32 bytes), never by the 64 bits of
    them in KV events.
    """

    def __init__(
        self,
        name: str,
        *,
        block_bytes: int,
        host_bytes: int,
        disk_bytes: int = 0,
        disk_folder: str | PathLike[str] | None = None,
        eviction: str = "density",
        fingerprint: bytes = b"",
        salt: bytes = b"",
    ) -> None:
        self._core = KvStore(
            name,
            block_bytes=block_bytes,
            host_bytes=host_bytes,
            disk_bytes=disk_bytes,
            disk_folder=disk_folder,
            eviction=eviction,
            fingerprint=fingerprint,
            salt=salt,
        )

    def matched(self, hashes: Sequence[bytes]) -> int:
        """How many of these blocks, from the first, are there now. It counts as no use."""
        return self._core.matched(hashes)

    def get(
        self,
        hashes: Sequence[bytes],
        arrays: Any,
        rows: Sequence[int] | NDArray[np.integer] | None = None,
        *,
        parent: bytes | None = None,
        position: int = 0,
    ) -> NDArray[np.bool_]:
        """Copies blocks into ``arrays``, and says which were there.

        ``arrays`` is one array or tensor, or one a layer, each with a block a row (the first axis)
        and each row contiguous; ``rows`` are the blocks' rows, by default 0, 1, 2 and so on. Rows
        of blocks that were not there hold no particular bytes afterwards. A block that was lost,
        damaged or half written is not there; that is counted, and never raises.
        """
        addresses, piece_bytes = _pieces(arrays, rows, len(hashes), write=True)
        return self._core.get(hashes, addresses, piece_bytes, parent=parent, position=position)

    def put(
        self,
        hashes: Sequence[bytes],
        arrays: Any,
        rows: Sequence[int] | NDArray[np.integer] | None = None,
        *,
        parent: bytes | None = None,
        position: int = 0,
    ) -> int:
        """Copies blocks from ``arrays`` (see :meth:`get`); says how many were not there before.

        ``hashes`` are of blocks that follow one another in a prompt, the first of them the block
        ``parent``, ``position`` blocks from the prompt's first. A block goes before those that it
        follows.
        """
        addresses, piece_bytes = _pieces(arrays, rows, len(hashes), write=False)
        return self._core.put(hashes, addresses, piece_bytes, parent=parent, position=position)

    def pin(self, hashes: Sequence[bytes], lease_s: float) -> Lease:
        """Keeps a session's blocks in memory for ``lease_s``, half of the memory's at most."""
        until, blocks = self._core.pin(hashes, lease_s)
        return Lease(tuple(hashes), until, blocks)

    def unpin(self, lease: Lease) -> None:
        """Ends a lease early, but for blocks that somebody has leased for longer."""
        self._core.unpin(lease.hashes, lease.until)

    def counts(self) -> dict[str, dict[str, int]]:
        """What has happened in all processes together: counters of ``"host"`` and ``"disk"``."""
        return self._core.counts()

    @staticmethod
    def unlink(name: str) -> None:
        """Removes a store's name: who has it open keeps it, the next to open it makes a new one."""
        KvStore.unlink(name)


def _pieces(
    arrays: Any, rows: Sequence[int] | NDArray[np.integer] | None, blocks: int, *, write: bool
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Addresses of rows of arrays, one a block and array; and the bytes of a row of each."""
    layers = list(arrays) if isinstance(arrays, list | tuple) else [arrays]
    wanted = np.arange(blocks) if rows is None else np.asarray(rows, dtype=np.int64)
    if wanted.shape != (blocks,):
        raise ConfigError(
            f"rows has shape {wanted.shape}: give one row for each of {blocks} hashes"
        )
    if write and len(np.unique(wanted)) < blocks:
        raise ConfigError("rows has a row twice: give each block a row of its own")
    starts, strides, lengths = [], [], []
    for layer in layers:
        start, count, stride, length = _rows(layer, write=write)
        if blocks and (wanted.min() < 0 or wanted.max() >= count):
            raise ConfigError(
                f"rows go from {wanted.min()} to {wanted.max()}: "
                f"the array has rows 0 to {count - 1}"
            )
        starts.append(start)
        strides.append(stride)
        lengths.append(length)
    addresses = np.asarray(starts, np.int64) + wanted[:, None] * np.asarray(strides, np.int64)
    return addresses.ravel().astype(np.uint64), np.asarray(lengths, np.uint64)


def _rows(layer: Any, *, write: bool) -> tuple[int, int, int, int]:
    """Where an array's rows are: the first, how many, bytes from one to the next, bytes of one."""
    if isinstance(layer, np.ndarray):
        contiguous = layer.ndim > 0 and (len(layer) == 0 or layer[:1].flags.c_contiguous)
        if write and not layer.flags.writeable:
            raise ConfigError("the array is read-only: blocks are copied into it")
        start, stride = layer.__array_interface__["data"][0], layer.strides[0] if layer.ndim else 0
        length = layer.itemsize * int(np.prod(layer.shape[1:]))
        shape: Any = layer.shape
    elif hasattr(layer, "data_ptr"):
        if layer.device.type != "cpu":
            raise ConfigError(f"the tensor is on {layer.device}: copy it to the host first")
        contiguous = layer.dim() > 0 and layer[:1].is_contiguous()
        start, size = layer.data_ptr(), layer.element_size()
        stride = layer.stride(0) * size if layer.dim() else 0
        shape = tuple(layer.shape)
        length = size * int(np.prod(shape[1:]))
    else:
        raise ConfigError(
            f"blocks are in a {type(layer).__name__}: use numpy arrays or torch tensors"
        )
    if not contiguous:
        raise ConfigError(f"an array of shape {shape} has rows that are not contiguous: copy it")
    return start, shape[0], stride, length
