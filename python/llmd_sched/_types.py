"""Types of arguments: what a caller may pass, spelled out for type checkers."""

from __future__ import annotations

import os
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Union

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from llmd_sched._core import Endpoint, Features

Tokens = Union[
    "npt.NDArray[np.integer[Any]]", "array[int]", memoryview, bytes, bytearray, Sequence[int]
]
"""Token ids of one prompt, each 0 to 4294967295, one-dimensional.

A contiguous ``uint32`` numpy array is read in place, and so are ``bytes``, which are taken as
little-endian ``uint32``, and an ``array.array`` or ``memoryview`` of such items. Other integer
arrays are converted with a range check, and any other sequence is read element by element.
"""

EndpointRef = Union["Endpoint", str]
"""An :class:`~llmd_sched.Endpoint`, its ``id`` (such as ``"3.1"``), or its address where only one
rank has that address."""

Scorer = Callable[["Features"], npt.ArrayLike]
"""Called with the features of all candidates; returns one score in [0, 1] for each, in order."""

ConfigSource = Union[Mapping[str, Any], str, "os.PathLike[str]"]
"""A mapping, or the path of a ``.toml``, ``.yaml``, ``.yml`` or ``.json`` file."""

RoleName = Literal["both", "prefill", "decode", "encode"]
"""Which phases of a request an endpoint serves."""

HealthName = Literal["ready", "cordoned", "draining", "unreachable", "left"]
"""Whether an endpoint may be given new requests."""

MatchSourceName = Literal["none", "exact", "speculative", "approximate", "upperbound"]
"""What the belief in matched tokens rests on: the engine's events (``exact``), those and our own
recent decisions (``speculative``), our own decisions only (``approximate``), or events of only
some of a hybrid model's groups (``upperbound``)."""

HashAlgorithm = Literal["sha256", "sha256_cbor", "xxhash", "xxhash_cbor"]
"""vLLM's ``--prefix-caching-hash-algo``."""


class Topology(TypedDict, total=False):
    """Where an endpoint or a client stands; what is left out is unknown."""

    host: str
    rack: str
    zone: str
    region: str


class Capacity(TypedDict, total=False):
    """What an endpoint can hold; what is left out is learned from its metrics where they say."""

    kv_blocks: int
    block_size: int
    max_running_requests: int
    max_batch_tokens: int
    max_model_len: int
    max_loras: int


class Signals(TypedDict, total=False):
    """What an engine says of itself at one moment; what is left out or None was not said.

    - ``waiting_requests``, ``running_requests``: in its queue, and in its batch.
    - ``kv_usage``: share of its KV cache in use, 0 to 1.
    - ``gpu_utilization``: share of time its GPU was busy, 0 to 1.
    - ``kv_blocks``, ``block_size``: blocks of its KV cache, and tokens a block.
    - ``prefix_cache_queries_tokens``, ``prefix_cache_hits_tokens``: prompt tokens looked up in its
      prefix cache and found there, since its start; requests that other routers sent are estimated
      from these.
    - ``preemptions``: since its start.
    - ``running_loras``, ``waiting_loras``: names of adapters that run, and that requests wait for.
    - ``max_loras``: most adapters that fit at once.
    - ``process_start_time_s``: when its process started, seconds since the Unix epoch: another one
      is a restart, which voids what it was known to hold.
    """

    waiting_requests: float | None
    running_requests: float | None
    kv_usage: float | None
    gpu_utilization: float | None
    kv_blocks: int | None
    block_size: int | None
    prefix_cache_queries_tokens: float | None
    prefix_cache_hits_tokens: float | None
    preemptions: float | None
    running_loras: Sequence[str] | None
    waiting_loras: Sequence[str] | None
    max_loras: int | None
    process_start_time_s: float | None


class PromptOptions(TypedDict, total=False):
    """What, besides its tokens, decides whether two prompts share KV blocks.

    - ``model``: name that the endpoints were registered with; empty matches any.
    - ``lora``: name of the LoRA adapter.
    - ``cache_salt``: tenants with different salts never share blocks.
    - ``multimodal``: ``(identifier, offset_tokens, length_tokens)`` of each item, where
      ``identifier`` is the engine's hash of the content (vLLM: ``mm_hash``).
    """

    model: str
    lora: str | None
    cache_salt: str | None
    multimodal: Sequence[tuple[str, int, int]]


class RequestOptions(PromptOptions, total=False):
    """What a caller may say about a request, besides its prompt.

    - ``session_id``: conversation that it belongs to.
    - ``priority``: higher is more important; default 0, negative may be shed.
    - ``ttft_slo_ms``, ``tpot_slo_ms``: latency objectives.
    - ``max_output_tokens``: limit on the output, where the client gave one.
    - ``allowed``: only these endpoints.
    - ``required_labels``: only endpoints with these labels.
    - ``origin``: where the client or the data stands, for topology scoring.
    - ``hold_ms``: how long to wait where no endpoint can take it now; default 0, not at all.
    - ``tenant``: who pays for it: tenants share what there is fairly (see ``docs/flow.md``).
    - ``deadline_ms``: when its whole answer is due, counted from this call: it is held no longer.
    - ``expected_output_tokens``: how long its answer will be, where that is known; otherwise the
      mean of recent ones.
    - ``end_is_untold``: nobody will call :meth:`~llmd_sched.Router.finish`: the request counts as
      over when the latency model says so, or its engine's metrics page shows fewer than are booked.
    - ``first_token_is_untold``: nobody will call :meth:`~llmd_sched.Router.first_token`, as of an
      answer that comes all at once: its prefill counts as done when the latency model says so.
    """

    session_id: str | None
    priority: int
    ttft_slo_ms: float | None
    tpot_slo_ms: float | None
    max_output_tokens: int | None
    allowed: Sequence[EndpointRef] | None
    required_labels: Mapping[str, str]
    origin: Topology
    hold_ms: int
    tenant: str | None
    deadline_ms: int | None
    expected_output_tokens: int | None
    end_is_untold: bool
    first_token_is_untold: bool


class HeaderOptions(TypedDict, total=False):
    """The options of a request that its HTTP headers may give, see
    :func:`~llmd_sched.request_options`."""

    session_id: str
    priority: int
    ttft_slo_ms: float
    tpot_slo_ms: float
    hold_ms: int
    tenant: str
    deadline_ms: int
    expected_output_tokens: int
