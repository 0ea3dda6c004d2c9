"""Two replicas of a Ray Serve deployment, each with an engine whose KV events the router follows.

    pip install 'llmd-sched[ray]'
    python examples/ray_embedded.py

The engine is llmd-sched's embedded one: vLLM's HTTP API, KV events and prefix cache at the speed of
a GPU, without a GPU. For vLLM itself start `vllm serve` with `--kv-events-config` in `__init__`
instead: the rest stays.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.request
from typing import Any

import ray
from llmd_sched.ray import EngineSignals, counters
from ray import serve
from ray.serve.config import RequestRouterConfig

REPLICAS = 2
CONVERSATIONS = 4
TURNS = 5


@serve.deployment(
    num_replicas=REPLICAS,
    max_ongoing_requests=256,
    ray_actor_options={"num_cpus": 0},
    request_router_config=RequestRouterConfig(
        request_router_class="llmd_sched.ray:LlmdRouter",
        # The engines' own block size; what else there is: help(llmd_sched.ray.Settings).
        request_router_kwargs={"block_size": 16},
    ),
)
class Engine(EngineSignals):
    """An engine process of its own behind each replica."""

    def __init__(self) -> None:
        # Routers on other nodes reach its KV events at this address.
        host = ray.util.get_node_ip_address()
        command = [sys.executable, "-m", "llmd_sched", "engine", "--host", host, "--port", "0"]
        command += ["--model", "m", "--speed", "20"]
        for socket in ("events", "replay"):
            command += [f"--kv-{socket}-endpoint", f"tcp://{host}:0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = json.loads(self.process.stdout.readline())["url"]
        self.tell_engine(self.url)

    def __del__(self) -> None:
        self.process.kill()

    async def __call__(self, request: dict[str, Any]) -> dict[str, Any]:
        """An OpenAI completion; its prompt is token ids, by which routers know engines' blocks."""
        return await asyncio.to_thread(self.complete, request)

    def complete(self, request: dict[str, Any]) -> dict[str, Any]:
        """The engine's answer."""
        body = json.dumps({"model": "m", **request}).encode()
        headers = {"content-type": "application/json"}
        call = urllib.request.Request(f"{self.url}/v1/completions", body, headers)
        with urllib.request.urlopen(call, timeout=60) as answer:
            read: dict[str, Any] = json.load(answer)
            return read


def main() -> dict[str, Any]:
    """Plays conversations, each turn of which repeats all that came before."""
    handle = serve.run(Engine.bind(), name="embedded", route_prefix=None)
    found = asked = 0
    for turn in range(TURNS):
        prompts = [
            list(range(10_000 * c, 10_000 * c + 800 * (turn + 1))) for c in range(CONVERSATIONS)
        ]
        # One turn of every conversation at a time, which spreads them at first.
        answers = [handle.remote({"prompt": prompt, "max_tokens": 16}) for prompt in prompts]
        for prompt, answer in zip(prompts, answers, strict=True):
            usage = answer.result()["usage"]
            asked += len(prompt)
            found += usage["prompt_tokens_details"]["cached_tokens"]
    (router,) = [it for name, it in counters().items() if "embedded" in name]
    routed = router["router"]["requests"]
    print(f"prompt tokens asked      {asked:>8}")
    print(f"the router expected      {routed['matched_tokens']:>8} of them in the chosen caches")
    print(f"the engines found        {found:>8}")
    print(f"CPU time of a pick, us   {router['pick_cpu_us']:>8.0f}")
    serve.delete("embedded")
    return {"asked": asked, "found": found, **router}


if __name__ == "__main__":
    ray.init(ignore_reinit_error=True)
    serve.start(proxy_location="Disabled")
    main()
