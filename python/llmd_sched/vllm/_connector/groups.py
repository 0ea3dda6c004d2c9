"""How a model's layers share block tables, and what of a prefix each group needs.

Layers of full attention need every block of a prefix; those of a sliding window only the blocks of
the last window, and vLLM keeps no others. A prefix is found where all groups have what they need.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llmd_sched._errors import ConfigError
from llmd_sched.vllm._borrowed import borrowed


@dataclass(frozen=True)
class Group:
    """Layers with one block table."""

    number: int
    layers: tuple[str, ...]
    block_tokens: int
    # Bytes of a block of it, all its layers together.
    block_bytes: int
    # Tokens that a token attends to; None for all before it.
    window_tokens: int | None

    def first_needed(self, tokens: int) -> int:
        """The first block that a prefix of so many tokens needs."""
        if self.window_tokens is None:
            return 0
        return max(0, tokens - self.window_tokens + 1) // self.block_tokens

    def hashes(self, of_prompt: Sequence[bytes], hash_tokens: int) -> Sequence[bytes]:
        """The names of its blocks. A hash covers all tokens up to its end, so that of a block is
        that of its last part, as vLLM has it."""
        parts = self.block_tokens // hash_tokens
        return of_prompt if parts == 1 else of_prompt[parts - 1 :: parts]


@dataclass(frozen=True)
class Model:
    """What blocks are made of."""

    groups: tuple[Group, ...]
    # Tokens of one of a request's hashes.
    hash_tokens: int
    # A prefix that is found is a multiple of it.
    unit_tokens: int

    @property
    def block_bytes(self) -> int:
        return max(group.block_bytes for group in self.groups)

    def found(
        self,
        tokens: int,
        computed_tokens: int,
        has: Callable[[Group, int, int], int],
    ) -> int:
        """The longest prefix of at most ``tokens`` that the store has for every group, beyond what
        the engine has itself; 0 if that is none.

        ``has(group, first, last)`` says how many blocks of a group there are in a row from one on.
        """
        tokens -= tokens % self.unit_tokens
        while tokens > computed_tokens:
            shortest = tokens
            for group in self.groups:
                size = group.block_tokens
                first = max(group.first_needed(tokens), computed_tokens // size)
                last = tokens // size
                there = has(group, first, last)
                if there == last - first:
                    continue
                if group.window_tokens is None:
                    shortest = min(shortest, (first + there) * size)
                else:
                    # One window short: the next prefix that could do is one unit shorter.
                    shortest = min(shortest, tokens - self.unit_tokens)
            if shortest == tokens:
                return tokens
            tokens = shortest - shortest % self.unit_tokens
        return 0


def model_of(kv_cache_config: Any) -> Model:
    """Reads vLLM's plan of its KV cache.

    Raises :class:`llmd_sched.ConfigError` for state that is no block of tokens, which cannot be
    found by a hash.
    """
    [full, window, uniform] = borrowed(
        "vllm.v1.kv_cache_interface",
        "FullAttentionSpec",
        "SlidingWindowSpec",
        "UniformTypeKVCacheSpecs",
    )
    groups = []
    for number, group in enumerate(kv_cache_config.kv_cache_groups):
        spec = group.kv_cache_spec
        inner = next(iter(spec.kv_cache_specs.values())) if isinstance(spec, uniform) else spec
        if not isinstance(inner, (full, window)):
            raise ConfigError(
                f"LlmdConnector keeps blocks of full and of sliding-window attention, and layer "
                f"{group.layer_names[0]!r} has {type(inner).__name__}: serve this model without it"
            )
        page_bytes = spec.page_size_bytes
        layers = tuple(group.layer_names)
        groups.append(
            Group(
                number=number,
                layers=layers,
                block_tokens=spec.block_size,
                block_bytes=page_bytes if isinstance(spec, uniform) else page_bytes * len(layers),
                window_tokens=inner.sliding_window if isinstance(inner, window) else None,
            )
        )
    sizes = [group.block_tokens for group in groups]
    hash_tokens = kv_cache_config.hash_block_size or math.gcd(*sizes)
    unit = kv_cache_config.cache_hit_alignment_tokens or math.lcm(*sizes)
    return Model(tuple(groups), hash_tokens, math.lcm(unit, *sizes))


def fingerprint(vllm_config: Any, model: Model, namespace: str, rank: int) -> bytes:
    """Whatever else than tokens the bytes of a worker's blocks depend on."""
    [version] = borrowed("vllm", "__version__")
    of_model, of_cache = vllm_config.model_config, vllm_config.cache_config
    parallel = vllm_config.parallel_config
    said = {
        "vllm": version,
        "namespace": namespace,
        "model": of_model.model,
        "revision": of_model.revision,
        "quantization": of_model.quantization,
        "dtype": str(of_model.dtype),
        "cache_dtype": str(of_cache.cache_dtype),
        "hash": of_cache.prefix_caching_hash_algo,
        # The seed of vLLM's first parent hash.
        "seed": os.environ.get("PYTHONHASHSEED"),
        "config": of_model.hf_config.to_dict(),
        "groups": [[it.layers, it.block_tokens, it.block_bytes] for it in model.groups],
        "rank": [rank, parallel.tensor_parallel_size],
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).digest()
