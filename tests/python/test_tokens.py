"""Token ids come in many forms, and all forms of the same ids are the same prompt."""

from __future__ import annotations

import sys
from array import array
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmd_sched import PromptError, block_keys

TOKEN_ID = st.integers(0, 2**32 - 1)
PROMPT = st.lists(TOKEN_ID, min_size=1, max_size=70)
SMALL_PROMPT = st.lists(st.integers(0, 127), min_size=1, max_size=70)
BLOCK = 4


class Tensor:
    """What numpy calls an array-like: a tensor of some framework."""

    def __init__(self, ids: list[int]) -> None:
        self.ids = ids

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray[Any, Any]:
        return np.array(self.ids, dtype=dtype or np.int64)


class PlainSequence:
    """A sequence of somebody's own."""

    def __init__(self, ids: list[int]) -> None:
        self.ids = ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> int:
        return self.ids[index]


def swapped(kind: str) -> str:
    return ("<" if sys.byteorder == "big" else ">") + kind


WIDE_FORMS: dict[str, Callable[[list[int]], Any]] = {
    "numpy uint32": lambda ids: np.array(ids, np.uint32),
    "numpy int64": lambda ids: np.array(ids, np.int64),
    "numpy uint64": lambda ids: np.array(ids, np.uint64),
    "numpy byte-swapped uint32": lambda ids: np.array(ids, swapped("u4")),
    "numpy byte-swapped uint64": lambda ids: np.array(ids, swapped("u8")),
    "numpy byte-swapped int64": lambda ids: np.array(ids, swapped("i8")),
    "numpy strided uint32": lambda ids: np.repeat(np.array(ids, np.uint32), 3)[::3],
    "numpy reversed int64": lambda ids: np.array(ids[::-1], np.int64)[::-1],
    "numpy read-only": lambda ids: np.frombuffer(np.array(ids, np.uint32).tobytes(), np.uint32),
    "numpy misaligned": lambda ids: np.frombuffer(
        b"x" + np.array(ids, "<u4").tobytes(), "<u4", offset=1
    ),
    "array of unsigned int": lambda ids: array("I", ids),
    "array of long": lambda ids: array("q", ids),
    "memoryview": lambda ids: memoryview(array("I", ids)),
    "memoryview of bytes": lambda ids: memoryview(np.array(ids, "<u4").tobytes()),
    "bytes": lambda ids: np.array(ids, "<u4").tobytes(),
    "bytearray": lambda ids: bytearray(np.array(ids, "<u4").tobytes()),
    "list": lambda ids: ids,
    "tuple": tuple,
    "list of numpy integers": lambda ids: [np.uint32(i) for i in ids],
    "deque": deque,
    "tensor": Tensor,
    "sequence": PlainSequence,
}
NARROW_FORMS: dict[str, Callable[[list[int]], Any]] = {
    "numpy int32": lambda ids: np.array(ids, np.int32),
    "numpy int16": lambda ids: np.array(ids, np.int16),
    "numpy uint8": lambda ids: np.array(ids, np.uint8),
    "array of short": lambda ids: array("h", ids),
}


@pytest.mark.parametrize("form", WIDE_FORMS)
@given(ids=PROMPT)
def test_every_form_is_the_same_prompt(form: str, ids: list[int]) -> None:
    keys = block_keys(WIDE_FORMS[form](ids), block_size=BLOCK)
    assert keys.tolist() == block_keys(ids, block_size=BLOCK).tolist()
    assert len(keys) == len(ids) // BLOCK


@pytest.mark.parametrize("form", NARROW_FORMS)
@given(ids=SMALL_PROMPT)
def test_every_narrow_form_is_the_same_prompt(form: str, ids: list[int]) -> None:
    keys = block_keys(NARROW_FORMS[form](ids), block_size=BLOCK)
    assert keys.tolist() == block_keys(ids, block_size=BLOCK).tolist()


def test_a_range_is_a_prompt() -> None:
    expected = block_keys(list(range(64)), block_size=BLOCK)
    assert block_keys(range(64), block_size=BLOCK).tolist() == expected.tolist()


@given(ids=PROMPT, longer=PROMPT)
def test_a_prefix_has_the_keys_of_the_longer_prompt(ids: list[int], longer: list[int]) -> None:
    keys = block_keys(ids, block_size=BLOCK).tolist()
    assert block_keys(ids + longer, block_size=BLOCK).tolist()[: len(keys)] == keys


def test_the_scope_is_part_of_every_key() -> None:
    ids = list(range(64))
    scopes: list[dict[str, Any]] = [
        {},
        {"model": "m"},
        {"model": "m", "lora": "l"},
        {"cache_salt": "tenant"},
        {"multimodal": [("image", 0, 4)]},
    ]
    keys = [tuple(block_keys(ids, block_size=BLOCK, **scope).tolist()) for scope in scopes]
    assert len({key for prompt in keys for key in prompt}) == len(scopes) * 16


IDS = np.arange(8)
REFUSED: dict[str, tuple[Any, str]] = {
    "empty list": ([], "the prompt is empty: give at least one token id"),
    "empty array": (np.array([], np.uint32), "the prompt is empty"),
    "empty bytes": (b"", "the prompt is empty"),
    "negative in a list": ([1, -3], "token id -3 at position 1 is out of range"),
    "negative int64": (np.array([5, 1, -1]), "token id -1 at position 2 is out of range"),
    "negative int32": (np.array([-7], np.int32), "token id -7 at position 0 is out of range"),
    "past 32 bits in a list": ([1, 2**32], "token id 4294967296 at position 1 is out of range"),
    "past 64 bits in a list": ([2**70], "token id 1180591620717411303424 at position 0"),
    "past 32 bits": (np.array([1, 2**40]), "token id 1099511627776 at position 1"),
    "past 63 bits": (np.array([2**63 + 5], np.uint64), "token id 9223372036854775813 at position"),
    "float array": (np.zeros(3), "dtype float64: token ids are integers, convert them with"),
    "float in a list": ([1, 2.5], "token at position 1 is 2.5 (float): token ids are integers"),
    "array of double": (array("d", [1.0]), "dtype float64"),
    "bool array": (np.array([True]), "dtype bool"),
    "objects": (np.array([1, None]), "dtype object"),
    "none in a list": ([1, None], "token at position 1 is None"),
    "batch": (IDS.reshape(1, 8), "tokens has 2 dimensions (shape [1, 8]): pass one prompt"),
    "uint32 batch": (IDS.astype(np.uint32).reshape(2, 4), "tokens has 2 dimensions"),
    "scalar": (np.array(3), "tokens has 0 dimensions"),
    "lists": ([[1, 2], [3]], "token at position 0 is [1, 2] (list): pass one prompt at a time"),
    "text": ("hello", "tokens is a str: pass it as text="),
    "words": (["hello"], "token at position 0 is hello (str): pass a prompt without tokens as"),
    "odd bytes": (b"abcde", "tokens has 5 bytes, not a multiple of 4"),
    "none": (None, "tokens is of type NoneType"),
    "mapping": ({1: 2}, "tokens is of type dict"),
    "set": ({1, 2}, "tokens is of type set"),
    "number": (5, "tokens is of type int"),
    "generator": ((i for i in [1]), "tokens is of type generator"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_prompt_is_refused_with_a_remedy(case: str) -> None:
    tokens, message = REFUSED[case]
    with pytest.raises(PromptError) as refusal:
        block_keys(tokens)
    assert message in str(refusal.value)


@pytest.mark.parametrize("block_size", [0, 65_537])
def test_a_block_size_out_of_range_is_refused(block_size: int) -> None:
    with pytest.raises(PromptError, match=f"block_size {block_size} is out of range"):
        block_keys([1, 2], block_size=block_size)


def test_an_exception_of_a_sequence_comes_through() -> None:
    class Broken(PlainSequence):
        def __getitem__(self, index: int) -> int:
            raise RuntimeError("disk on fire")

    with pytest.raises(RuntimeError, match="disk on fire"):
        block_keys(Broken([1, 2]))
