"""vLLM's own block hashes, as captured from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llmd_sched import PromptError, vllm_block_hashes

GOLDENS = Path(__file__).parents[1] / "goldens" / "vllm" / "hash_vectors.json"
CAPTURED = json.loads(GOLDENS.read_text())
TOKENS: list[int] = CAPTURED["tokens"]
# Prompts of embeddings have no tokens to pass from Python.
VECTORS = [it for it in CAPTURED["vectors"] if it["extra"] != "prompt_embeds"]


def options_of(vector: dict[str, Any]) -> dict[str, Any]:
    """The arguments that lead to a vector's extra keys."""
    options: dict[str, Any] = {}
    block_size = vector["block_size"]
    last_block: dict[tuple[str, int], int] = {}
    for block, keys in enumerate(vector["extra_keys"]):
        for tag, *values in keys or []:
            if tag == "lora":
                options["lora"] = tuple(values)
            elif tag == "cache_salt":
                options["cache_salt"] = values[0]
            else:
                identifier, offset = values
                last_block[identifier, block * block_size + offset] = block
    starts = [start for _, start in last_block]
    options["multimodal"] = [
        (
            identifier,
            start,
            min([(block + 1) * block_size, *(it for it in starts if it > start)]) - start,
        )
        for (identifier, start), block in last_block.items()
    ]
    return options


@pytest.mark.parametrize("vector", VECTORS, ids=lambda it: f"{it['algo']}-{it['extra']}")
def test_hashes_are_vllms_own(vector: dict[str, Any]) -> None:
    hashes = vllm_block_hashes(
        np.array(TOKENS, np.uint32),
        block_size=vector["block_size"],
        algorithm=vector["algo"],
        seed=vector["seed"],
        **options_of(vector),
    )
    assert [it.hex() for it in hashes] == vector["hashes"]


def test_without_a_seed_sha256_has_vllms_fixed_one_and_xxhash_has_none() -> None:
    fixed = vllm_block_hashes(TOKENS, algorithm="sha256_cbor", seed="vllm-none-hash")
    assert vllm_block_hashes(TOKENS, algorithm="sha256_cbor") == fixed
    with pytest.raises(PromptError, match="draws its seed for xxhash at random"):
        vllm_block_hashes(TOKENS, algorithm="xxhash")


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(PromptError, match='unknown hash algorithm "md5": use sha256'):
        vllm_block_hashes(TOKENS, algorithm="md5")  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="block_size 0 is out of range"):
        vllm_block_hashes(TOKENS, block_size=0)
    with pytest.raises(PromptError, match="multimodal"):
        vllm_block_hashes(TOKENS, multimodal=[("image", 90, 100)])
