"""Block hashes from vLLM's own code, for every algorithm and every kind of extra key.

Runs in the engine's environment. Each request goes through the very bytes that carry it from vLLM's
API server to its engine core, because two of the algorithms hash a pickle, and a pickle depends on
which of its strings are one object: only a request that was decoded as the engine decodes it has
the engine's hashes.
"""

import itertools
import os
from typing import Any

import torch
from vllm.lora.request import LoRARequest
from vllm.multimodal.inputs import MultiModalFeatureSpec, PlaceholderRange
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import get_hash_fn_by_name
from vllm.v1.core import kv_cache_utils
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.request import Request
from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

ALGORITHMS = ("sha256", "sha256_cbor", "xxhash", "xxhash_cbor")
BLOCK_SIZES = (16, 32)
# None leaves PYTHONHASHSEED unset: the fixed default for sha256*, a random seed (no vector) for
# xxhash*.
SEEDS = (None, "0", "42")

# Token ids around every integer width of pickle and CBOR, then a plain run; 100 tokens leave a
# partial block.
TOKENS = [0, 1, 23, 24, 255, 256, 65535, 65536, 151935, 2**31 - 1] + [
    5 + (i * 7) % 900 for i in range(90)
]

LORA = {"lora_request": LoRARequest(lora_name="my-lora", lora_int_id=1, lora_path="/models/lora1")}
SALT = {"cache_salt": "tenant-A"}


def images(*placed: tuple[str, int, int]) -> dict[str, Any]:
    """Images by (identifier, offset, length), in tokens."""
    return {
        "mm_features": [
            MultiModalFeatureSpec(
                data=None,
                modality="image",
                identifier=identifier,
                mm_position=PlaceholderRange(offset, length),
            )
            for identifier, offset, length in placed
        ]
    }


ONE_IMAGE = images(("0123456789abcdef", 10, 40))
CASES: dict[str, dict[str, Any]] = {
    "none": {},
    "salt": SALT,
    "unicode_salt": {"cache_salt": "mandant-ä-租户-🦀"},
    "lora": LORA,
    "mm": ONE_IMAGE,
    "two_mm_in_a_block": images(("0123456789abcdef", 3, 5), ("fedcba9876543210", 9, 60)),
    "same_mm_twice_in_a_block": images(("0123456789abcdef", 2, 4), ("0123456789abcdef", 8, 4)),
    "mm+salt": ONE_IMAGE | SALT,
    "lora+salt": LORA | SALT,
    "lora+mm+salt": LORA | ONE_IMAGE | SALT,
    "prompt_embeds": {
        "prompt_embeds": torch.arange(len(TOKENS) * 2, dtype=torch.float32).reshape(len(TOKENS), 2),
        "prompt_is_token_ids": [True] * len(TOKENS),
    },
}


def as_the_engine_decodes(fields: dict[str, Any]) -> EngineCoreRequest:
    request = EngineCoreRequest(
        **{
            "request_id": "r",
            "prompt_token_ids": TOKENS,
            "mm_features": None,
            "sampling_params": SamplingParams(max_tokens=1),
            "pooling_params": None,
            "arrival_time": 0.0,
            "lora_request": None,
            "cache_salt": None,
            "data_parallel_rank": None,
            **fields,
        }
    )
    return MsgpackDecoder(EngineCoreRequest).decode(MsgpackEncoder().encode(request))


def vector(algorithm: str, seed: str | None, case: str, block_size: int) -> dict[str, Any]:
    hash_function = get_hash_fn_by_name(algorithm)
    os.environ.pop("PYTHONHASHSEED", None)
    if seed is not None:
        os.environ["PYTHONHASHSEED"] = seed
    kv_cache_utils.init_none_hash(hash_function)
    hasher = kv_cache_utils.get_request_block_hasher(block_size, hash_function)
    request = Request.from_engine_core_request(as_the_engine_decodes(CASES[case]), hasher)
    extra_keys, first_image = [], 0
    for start in range(0, len(request.block_hashes) * block_size, block_size):
        keys, first_image = kv_cache_utils.generate_block_hash_extra_keys(
            request, start, start + block_size, first_image
        )
        extra_keys.append(keys and [[_in_json(part) for part in key] for key in keys])
    return {
        "algo": algorithm,
        "seed": kv_cache_utils.get_none_hash_seed(),
        "extra": case,
        "block_size": block_size,
        "extra_keys": extra_keys,
        "none_hash": kv_cache_utils.NONE_HASH.hex(),
        "hashes": [block_hash.hex() for block_hash in request.block_hashes],
    }


def _in_json(part: str | int | bytes) -> str | int | dict[str, str]:
    return {"hex": part.hex()} if isinstance(part, bytes) else part


def vectors() -> dict[str, Any]:
    found = []
    for algorithm, seed, case, block_size in itertools.product(
        ALGORITHMS, SEEDS, CASES, BLOCK_SIZES
    ):
        if seed is None and algorithm.startswith("xxhash"):
            continue
        if seed == "42" and case != "none":
            continue  # the seed only enters the first parent: one case shows it
        found.append(vector(algorithm, seed, case, block_size))
    return {"tokens": TOKENS, "vectors": found}
