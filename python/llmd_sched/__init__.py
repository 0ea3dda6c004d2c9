"""The scheduling brain of distributed LLM inference, in your process.

A :class:`Router` knows which engine holds which KV cache block and how loaded each one is, and
picks an endpoint for a prompt in microseconds:

>>> import llmd_sched
>>> router = llmd_sched.Router()
>>> _ = router.add_endpoint("http://10.0.0.1:8000")
>>> _ = router.add_endpoint("http://10.0.0.2:8000")
>>> with router.route(range(1000)) as first:  # send the request to first.address
...     router.first_token(first)
True
>>> second = router.route(range(1000))  # the same prompt goes where its KV blocks are
>>> second.address == first.address, second.matched_tokens
(True, 992)
"""

from llmd_sched._core import (
    Decision,
    Endpoint,
    Explanation,
    Features,
    FilterStep,
    Gateway,
    KvPosition,
    Leg,
    Matches,
    PromptKeys,
    ReplayReport,
    RequestBody,
    Router,
    SloScaler,
    Tokenizer,
    TurnQueue,
    __version__,
    block_keys,
    describe_engine,
    read_metrics,
    replay,
    request_options,
    text_block_keys,
    vllm_block_hashes,
)
from llmd_sched._errors import (
    ConfigError,
    EndpointError,
    EngineError,
    KvTimeoutError,
    LlmdError,
    MissingDependencyError,
    NoEndpointError,
    NotExactError,
    PeerError,
    PromptError,
    ReplayError,
    RouterClosedError,
    ScoreError,
    SnapshotError,
    UnknownEndpointError,
    WorkloadError,
)
from llmd_sched._remote import RemoteRouter, attach
from llmd_sched._serve import serve
from llmd_sched._types import (
    Capacity,
    ConfigSource,
    EndpointRef,
    HashAlgorithm,
    HeaderOptions,
    HealthName,
    MatchSourceName,
    PromptOptions,
    RequestOptions,
    RoleName,
    Scorer,
    Signals,
    Tokens,
    Topology,
)

__all__ = [
    "Capacity",
    "ConfigError",
    "ConfigSource",
    "Decision",
    "Endpoint",
    "EndpointError",
    "EndpointRef",
    "EngineError",
    "Explanation",
    "Features",
    "FilterStep",
    "Gateway",
    "HashAlgorithm",
    "HeaderOptions",
    "HealthName",
    "KvPosition",
    "KvTimeoutError",
    "Leg",
    "LlmdError",
    "MatchSourceName",
    "Matches",
    "MissingDependencyError",
    "NoEndpointError",
    "NotExactError",
    "PeerError",
    "PromptError",
    "PromptKeys",
    "PromptOptions",
    "RemoteRouter",
    "ReplayError",
    "ReplayReport",
    "RequestBody",
    "RequestOptions",
    "RoleName",
    "Router",
    "RouterClosedError",
    "ScoreError",
    "Scorer",
    "Signals",
    "SloScaler",
    "SnapshotError",
    "Tokenizer",
    "Tokens",
    "Topology",
    "TurnQueue",
    "UnknownEndpointError",
    "WorkloadError",
    "__version__",
    "attach",
    "block_keys",
    "describe_engine",
    "read_metrics",
    "replay",
    "request_options",
    "serve",
    "text_block_keys",
    "vllm_block_hashes",
]
