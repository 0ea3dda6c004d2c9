"""A launch of every kernel: what it is given, and which arrays it fills."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
from cuda import Argument, Array, Grid

Launch = Callable[[str, Grid, int, list[Argument]], None]
TOKENS, COLUMNS, TOP_K, EXPERTS = 150, 384, 4, 40
CHUNK_SLOTS = 1024
INT, LONG = ctypes.c_int, ctypes.c_longlong


def random() -> np.random.Generator:
    return np.random.default_rng(7)


def float_bits(shape: tuple[int, ...], kind: str) -> Array:
    """Numbers of many magnitudes in a format, as their bits."""
    numbers = random().normal(size=shape) * 2.0 ** random().integers(-20, 8, size=shape)
    if kind == "f16":
        return numbers.astype(np.float16).view(np.uint16)
    single = numbers.astype(np.float32).view(np.uint32)
    return single if kind == "f32" else (single >> 16).astype(np.uint16)


def lay_out(launch: Launch) -> dict[str, Array]:
    slots = TOKENS * TOP_K * 4
    ids = random().integers(-1, EXPERTS, size=slots)
    chunks = -(-slots // CHUNK_SLOTS)
    begins = np.zeros(chunks * EXPERTS, np.int32)
    counts, offsets = np.zeros(EXPERTS, np.int32), np.zeros(EXPERTS + 1, np.int32)
    row_of_slot = np.zeros(slots, np.int32)
    launch("llmd_dispatch_count", (chunks, 1), 128, [ids, INT(slots), INT(EXPERTS), begins])
    given: list[Argument] = [begins, INT(chunks), INT(EXPERTS), counts, offsets]
    launch("llmd_dispatch_scan", (1, 1), 64, given)
    given = [ids, INT(slots), INT(EXPERTS), begins, row_of_slot]
    launch("llmd_dispatch_rank", (chunks, 1), 128, given)
    return {"counts": counts, "offsets": offsets, "row_of_slot": row_of_slot}


def rows_of_slots() -> tuple[Array, int]:
    """A row for each choice but some, in no order."""
    rows = np.full(TOKENS * TOP_K, -1, np.int32)
    kept = random().permutation(rows.size)[: rows.size * 7 // 8]
    rows[kept] = np.arange(kept.size, dtype=np.int32)
    return rows, int(kept.size)


def permute(launch: Launch) -> dict[str, Array]:
    row_of_slot, kept = rows_of_slots()
    tokens = float_bits((TOKENS, COLUMNS), "bf16")
    rows = np.zeros((kept, COLUMNS), np.uint16)
    given: list[Argument] = [tokens, row_of_slot, rows, INT(TOP_K), LONG(COLUMNS * 2)]
    launch("llmd_permute", (TOKENS, 1), 128, given)
    return {"rows": rows}


def combine(kind: str) -> Callable[[Launch], dict[str, Array]]:
    def run(launch: Launch) -> dict[str, Array]:
        row_of_slot, kept = rows_of_slots()
        rows = float_bits((kept, COLUMNS), kind)
        weights = random().random(TOKENS * TOP_K).astype(np.float32)
        tokens = np.zeros((TOKENS, COLUMNS), rows.dtype)
        given: list[Argument] = [rows, row_of_slot, weights, tokens, INT(TOP_K), INT(COLUMNS)]
        launch(f"llmd_combine_{kind}", (TOKENS, 1), 128, given)
        return {"tokens": tokens}

    return run


def fp8(kind: str) -> Callable[[Launch], dict[str, Array]]:
    def run(launch: Launch) -> dict[str, Array]:
        values = float_bits((TOKENS, COLUMNS), kind)
        codes = np.zeros(values.shape, np.uint8)
        scales = np.zeros((TOKENS, COLUMNS // 128), np.float32)
        back = np.zeros_like(values)
        shape = [INT(TOKENS), INT(COLUMNS)]
        launch(f"llmd_fp8_quantise_{kind}", (8, 1), 128, [values, codes, scales, *shape])
        launch(f"llmd_fp8_dequantise_{kind}", (8, 1), 128, [codes, scales, back, *shape])
        return {"codes": codes, "scales": scales, "back": back}

    return run


LAUNCHES: dict[str, Callable[[Launch], dict[str, Any]]] = {
    "layout": lay_out,
    "permute": permute,
    **{f"combine_{kind}": combine(kind) for kind in ("bf16", "f16", "f32")},
    **{f"fp8_{kind}": fp8(kind) for kind in ("bf16", "f16", "f32")},
}
