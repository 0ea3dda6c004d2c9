"""An engine restarts behind a replica that stays, while requests come.

Its cache is empty then, and its KV events begin anew: the router forgets what it knew of it, learns
what it has from then on, and keeps no reservation of what was lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from llmd_sched.ray import EngineSignals
from ray_load import (
    Load,
    LoadedCluster,
    assert_only_accepted_ones_failed,
    assert_settles,
    brain_of,
    until,
)

pytestmark = pytest.mark.timeout(150)
APP = "telling"
REPLICAS = 2
BLOCK_SIZE = 16
SHARED_TOKENS = 40 * BLOCK_SIZE
TURN_TOKENS = 2 * BLOCK_SIZE


@pytest.fixture(scope="module")
def handle(cluster: LoadedCluster) -> Iterator[Any]:
    """An application whose replicas have an embedded engine each, as a process that can die."""
    from ray.serve.config import RequestRouterConfig

    serve = cluster.serve

    # In here, so that it travels by value: workers do not import the tests.
    class Teller(EngineSignals):
        def __init__(self) -> None:
            import asyncio

            self.is_up = asyncio.Event()
            self.start(["--port", "0"])
            self.tell_engine(self.said["url"])

        def start(self, where: list[str]) -> None:
            import json
            import subprocess
            import sys

            command = [sys.executable, "-m", "llmd_sched", "engine", "--model", "m"]
            command += ["--block-size", str(BLOCK_SIZE), "--speed", "50", *where]
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            self.said = json.loads(self.process.stdout.readline())
            self.is_up.set()

        def __del__(self) -> None:
            self.process.kill()

        async def restart(self, _request: Any) -> str:
            """Kills the engine, and starts it where it was."""
            import asyncio

            (events,) = self.said["kv_events"]
            where = ["--port", str(self.said["port"])]
            where += ["--kv-events-endpoint", events["endpoint"]]
            where += ["--kv-replay-endpoint", events["replay_endpoint"]]
            self.is_up.clear()
            self.process.kill()
            self.process.wait()
            await asyncio.to_thread(self.start, where)
            return serve.get_replica_context().replica_id.to_full_id_str()

        async def __call__(self, request: dict[str, Any]) -> tuple[str, int]:
            """By which replica it was answered, and how much of it that one's engine had."""
            import asyncio

            await self.is_up.wait()
            found = await asyncio.to_thread(self.complete, request["prompt"])
            return serve.get_replica_context().replica_id.to_full_id_str(), found

        def complete(self, prompt: list[int]) -> int:
            import json
            import urllib.request

            body = json.dumps({"model": "m", "prompt": prompt, "max_tokens": 2}).encode()
            call = urllib.request.Request(
                self.said["url"] + "/v1/completions", body, {"content-type": "application/json"}
            )
            with urllib.request.urlopen(call, timeout=60) as answer:
                usage = json.load(answer)["usage"]
            return int(usage["prompt_tokens_details"]["cached_tokens"])

    deployment = serve.deployment(
        Teller,
        name="Teller",
        num_replicas=REPLICAS,
        max_ongoing_requests=100,
        ray_actor_options={"num_cpus": 0, "resources": {"engines": 1}},
        graceful_shutdown_timeout_s=0,
        request_router_config=RequestRouterConfig(
            request_router_class="llmd_sched.ray:LlmdRouter",
            request_router_kwargs={"block_size": BLOCK_SIZE},
        ),
    )
    yield serve.run(deployment.bind(), name=APP, route_prefix=None)
    serve.delete(APP)


def prompt_of(group: int, turn: int) -> dict[str, Any]:
    """Token ids that a group shares, more of them with each turn, and a block that is not full."""
    length = SHARED_TOKENS + TURN_TOKENS * turn + 1
    return {"prompt": [1_000 * (group + 1) + at for at in range(length)]}


def held(group: int) -> dict[str, tuple[int, str]]:
    """What of a group's first prompt each replica's engine has, and what that rests on."""
    matches = brain_of(APP).router.match(prompt_of(group, 0)["prompt"])
    rows = zip(matches.endpoints, matches.matched_tokens, matches.sources, strict=True)
    return {it.address: (int(tokens), source) for it, tokens, source in rows}


def restarts(replica: str) -> int:
    found: int = brain_of(APP).router.kv_position(replica).restarts
    return found


def test_an_engine_restarts_behind_its_replica_under_load(handle: Any) -> None:
    whole = (SHARED_TOKENS, "exact")
    # Prompts that nobody asks for while there is load, until both engines have some.
    quiet: dict[str, int] = {}
    for group in range(10, 40):
        replica, _ = handle.remote(prompt_of(group, 0)).result()
        quiet.setdefault(replica, group)
        until(lambda group=group, replica=replica: held(group).get(replica) == whole)
        if len(quiet) == REPLICAS:
            break
    assert len(quiet) == REPLICAS
    with Load(handle, prompt_of) as load:
        load.goes_on()
        victim = handle.restart.remote(prompt_of(9, 0)).result()
        until(lambda: held(quiet[victim])[victim][0] == 0)
        load.goes_on()
    # Those that its engine had; the others waited for it, or were sent elsewhere.
    assert_only_accepted_ones_failed(load)
    assert_settles(APP)
    # Of the other one nothing was forgotten.
    (other,) = quiet.keys() - {victim}
    assert (restarts(victim), restarts(other)) == (1, 0)
    assert held(quiet[other])[other] == whole

    # What comes now is known to the token again, as the engines themselves count it.
    served: dict[str, int] = {replica: 0 for replica in quiet}
    for group in range(40, 48):
        for turn in range(3):
            tokens = prompt_of(group, turn)["prompt"]
            known = {it.address: 0 for it in brain_of(APP).router.endpoints()}
            if turn:
                matches = brain_of(APP).router.match(tokens)
                rows = zip(matches.endpoints, matches.matched_tokens, strict=True)
                known |= {it.address: int(matched) for it, matched in rows}
            replica, found = handle.remote({"prompt": tokens}).result()
            assert found == known[replica], (group, turn, replica == victim)
            served[replica] += found
            now = (len(tokens) // BLOCK_SIZE * BLOCK_SIZE, "exact")
            until(lambda tokens=tokens, replica=replica, now=now: is_known(tokens, replica, now))
    assert served[victim] > 0
    assert_settles(APP)


def is_known(tokens: list[int], replica: str, now: tuple[int, str]) -> bool:
    matches = brain_of(APP).router.match(tokens)
    rows = zip(matches.endpoints, matches.matched_tokens, matches.sources, strict=True)
    return any((it.address, int(held), source) == (replica, *now) for it, held, source in rows)
