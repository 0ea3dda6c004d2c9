"""Ids against those of Hugging Face's own wheel, which vLLM uses: built with Oniguruma, where ours
has Rust's regular expressions.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import llmd_sched
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

tokenizers = pytest.importorskip("tokenizers")

LINES_APART = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL = ["<s>", "</s>", "<|im_start|>"]
CORPUS = sorted(Path(__file__).parent.glob("*.py"))
FAMILIES = ["llama3", "qwen3", "gpt2"]


@cache
def pair(family: str) -> tuple[Any, llmd_sched.Tokenizer]:
    """The same tokenizer in both."""
    import tempfile

    from tokenizers import (
        AddedToken,
        Regex,
        Tokenizer,
        models,
        normalizers,
        pre_tokenizers,
        trainers,
    )

    theirs = Tokenizer(models.BPE())
    if family == "gpt2":
        theirs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        pattern = LINES_APART if family == "llama3" else LINES_APART.replace("{1,3}", "")
        split = pre_tokenizers.Split(Regex(pattern), "isolated")
        plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        theirs.pre_tokenizer = pre_tokenizers.Sequence([split, plain])
    if family == "qwen3":
        theirs.normalizer = normalizers.NFC()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=2_000, initial_alphabet=alphabet, show_progress=False)
    theirs.train_from_iterator([path.read_text() for path in CORPUS], trainer)
    theirs.add_special_tokens([AddedToken(it, normalized=False) for it in SPECIAL])
    with tempfile.TemporaryDirectory() as folder:
        theirs.save(str(Path(folder) / "tokenizer.json"))
        return theirs, llmd_sched.Tokenizer(folder)


PARTS = st.one_of(
    st.sampled_from([*SPECIAL, "\n", "\r\n", "\nfn ", "  ", " ", "\t", "'s", "'LL", "123"]),
    st.sampled_from(["e\u0301", "\u212b", "\u1100\u1161", "\u2028", "\xa0"]),
    st.text(max_size=12),
    st.text(alphabet="abcXYZ \n.,/_-<>|", max_size=30),
)


@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=60, deadline=None)
@given(parts=st.lists(PARTS, max_size=60), times=st.integers(1, 8))
def test_ids_are_those_of_the_wheel(family: str, parts: list[str], times: int) -> None:
    theirs, ours = pair(family)
    text = "".join(parts) * times
    for _ in range(2):
        assert ours.encode(text).tolist() == theirs.encode(text).ids


@pytest.mark.parametrize("family", FAMILIES)
def test_every_letter_of_unicode_is_split_alike(family: str) -> None:
    """One in 97 of them, and all of the first 12,288."""
    theirs, ours = pair(family)
    points = [*range(0x3000), *range(0x3000, 0xD800, 97), *range(0xE000, 0x110000, 97)]
    unlike = []
    for start in range(0, len(points), 512):
        chunk = points[start : start + 512]
        text = "".join(f"a{chr(it)}b {chr(it)}1{chr(it)}.\n" for it in chunk)
        if ours.encode(text).tolist() != theirs.encode(text).ids:
            unlike += [it for it in chunk if differs(theirs, ours, chr(it))]
    assert not unlike, [hex(it) for it in unlike]


def differs(theirs: Any, ours: llmd_sched.Tokenizer, letter: str) -> bool:
    text = f"a{letter}b {letter}1{letter}.\n"
    return bool(ours.encode(text).tolist() != theirs.encode(text).ids)
