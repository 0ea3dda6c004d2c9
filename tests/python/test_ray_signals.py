"""Replicas of a real Ray Serve that tell the router of their engines."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest
from llmd_sched.ray import EngineSignals
from ray_brains import brain_of, until

EXAMPLE = Path(__file__).parents[2] / "examples" / "ray_embedded.py"

pytestmark = pytest.mark.timeout(240)
BLOCK_SIZE = 16
KV_BLOCKS = 256
STATS_PERIOD_S = 0.2


def deploy(serve: Any, name: str, *, replicas: int = 2, told: dict[str, Any]) -> Any:
    from ray.serve.config import RequestRouterConfig

    # In here, so that it travels by value: workers do not import the tests.
    class Replica(EngineSignals):
        """An embedded engine in a process of its own, behind a replica."""

        def __init__(self) -> None:
            import json
            import subprocess
            import sys

            command = [sys.executable, "-m", "llmd_sched", "engine", "--port", "0", "--model", "m"]
            command += ["--kv-blocks", str(KV_BLOCKS), "--block-size", str(BLOCK_SIZE)]
            command += ["--speed", "50"]
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            self.url = json.loads(self.process.stdout.readline())["url"]
            self.tell_engine(self.url, **told)

        def __del__(self) -> None:
            self.process.kill()

        def get(self, path: str, body: Any = None) -> bytes:
            import json
            import urllib.request

            data = None if body is None else json.dumps(body).encode()
            request = urllib.request.Request(
                self.url + path, data, {"content-type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=60) as answer:
                read: bytes = answer.read()
                return read

        def __call__(self, request: dict[str, Any]) -> str:
            self.get("/v1/completions", {"model": "m", **request})
            return serve.get_replica_context().replica_id.to_full_id_str()

        def reset(self, _request: Any) -> str:
            """Empties the cache; the engine tells with its next step, as vLLM does."""
            self.get("/reset_prefix_cache", {})
            self.get("/v1/completions", {"model": "m", "prompt": [7], "max_tokens": 1})
            return serve.get_replica_context().replica_id.to_full_id_str()

        def page(self, _request: Any) -> tuple[str, str]:
            return (
                serve.get_replica_context().replica_id.to_full_id_str(),
                self.get("/metrics").decode(),
            )

    deployment = serve.deployment(
        Replica,
        name=name,
        num_replicas=replicas,
        max_ongoing_requests=100,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=0,
        request_router_config=RequestRouterConfig(
            request_router_class="llmd_sched.ray:LlmdRouter",
            request_router_kwargs={"block_size": BLOCK_SIZE},
            request_routing_stats_period_s=STATS_PERIOD_S,
        ),
    )
    return serve.run(deployment.bind(), name=name, route_prefix=None)


def pages(handle: Any, replicas: int) -> dict[str, str]:
    """The metrics page of every replica's engine."""
    found: dict[str, str] = {}
    while len(found) < replicas:
        name, page = handle.page.remote(None).result()
        found[name] = page
    return found


def hits(handle: Any) -> dict[str, float]:
    """Prompt tokens that every replica's engine found in its cache, by the engine's own count."""
    series = "vllm:prefix_cache_hits_total"
    found = {}
    for name, page in pages(handle, 2).items():
        (line,) = [it for it in page.splitlines() if it.startswith((series + " ", series + "{"))]
        found[name] = float(line.rsplit(" ", 1)[1])
    return found


def prompt_of(group: int, turn: int) -> list[int]:
    """650 tokens that a group shares, and 64 more with each turn."""
    return [10_000 * (group + 1) + at for at in range(650 + 64 * turn)]


class Fleet:
    """A deployment whose router knows of every engine's news before the next request."""

    def __init__(self, handle: Any, name: str) -> None:
        self.handle = handle
        self.name = name
        # Tokens that the router knew the chosen engine to hold, in all.
        self.predicted: dict[str, int] = {}

    def held(self, tokens: list[int]) -> dict[str, tuple[int, str]]:
        """What of a prompt each replica's engine holds, and what that rests on."""
        matches = self.router.match(tokens)
        rows = zip(matches.endpoints, matches.matched_tokens, matches.sources, strict=True)
        return {it.address: (int(held), source) for it, held, source in rows}

    @property
    def router(self) -> Any:
        return brain_of(self.name).router

    def ask(self, tokens: list[int]) -> str:
        """Has a prompt answered, and returns by which replica."""
        before = self.held(tokens) if self.predicted else {}
        replica: str = self.handle.remote({"prompt": tokens, "max_tokens": 2}).result()
        self.predicted[replica] = self.predicted.get(replica, 0) + before.get(replica, (0, ""))[0]
        whole = (len(tokens) // BLOCK_SIZE * BLOCK_SIZE, "exact")
        until(lambda: self.held(tokens).get(replica) == whole)
        until(lambda: brain_of(self.name).counters()["booked"] == 0)
        return replica


def test_the_router_knows_to_the_token_what_replicas_hold(serve: Any) -> None:
    # Where the engines' pages are is not told, so that Ray has to bring what they say.
    handle = deploy(serve, "told", told={"metrics": None})
    fleet = Fleet(handle, "told")
    where: dict[int, set[str]] = {group: set() for group in range(4)}
    for turn in range(4):
        for group, replicas in where.items():
            replicas.add(fleet.ask(prompt_of(group, turn)))
    brain = brain_of("told")
    seen = brain.counters()
    assert (seen["fallbacks"], seen["bad_reports"], seen["last_error"]) == (0, 0, None)
    endpoints = brain.router.endpoints()
    assert [it.kv_source for it in endpoints] == ["events", "events"]
    assert all(it.capacity["kv_blocks"] == KV_BLOCKS for it in endpoints)
    found = hits(handle)
    assert fleet.predicted == found
    # Ray goes elsewhere where a replica does not answer it within 100 ms, on a busy machine.
    if seen["moved"] == 0:
        assert [len(replicas) for replicas in where.values()] == [1] * 4
        assert sum(found.values()) == seen["router"]["requests"]["matched_tokens"]
        assert sum(found.values()) == 4 * (640 + 704 + 768)

    # What the engines' pages say comes with Ray's routing stats.
    until(lambda: all(it.running_requests is not None for it in brain.router.endpoints()))
    assert brain.counters()["reports"] >= 2

    # Engines that are reset hold nothing, and what does not fit any more was evicted.
    emptied: set[str] = set()
    while len(emptied) < 2:
        emptied.add(handle.reset.remote(None).result())
    for group in where:
        tokens = prompt_of(group, 3)
        until(lambda tokens=tokens: not any(held for held, _ in fleet.held(tokens).values()))
    for group in range(4, 20):
        fleet.ask(prompt_of(group, 0))
    assert brain.router.stats()["index"]["applied"]["removed_blocks"] > 0
    for group in reversed(range(4, 20)):
        fleet.ask(prompt_of(group, 0))
    assert fleet.predicted == hits(handle)
    assert brain.counters()["fallbacks"] == 0
    serve.delete("told")


def test_the_example_runs(serve: Any, capsys: pytest.CaptureFixture[str]) -> None:
    # As the main module, which Ray carries to its workers by value.
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    said = [line.split() for line in capsys.readouterr().out.splitlines()]
    (asked,) = [int(it[-1]) for it in said if it[-2:-1] == ["asked"]]
    (found,) = [int(it[-1]) for it in said if it[-2:-1] == ["found"]]
    # Each of the four conversations repeats its 800, 1600, 2400 and 3200 tokens.
    assert (asked, found <= 32_000) == (48_000, True)
    seen = brain_of("embedded").counters()
    assert seen["fallbacks"] == 0
    if seen["moved"] == 0:
        # What the router expected; a turn may be worth a prefill elsewhere.
        assert found == seen["router"]["requests"]["matched_tokens"] >= 24_000
