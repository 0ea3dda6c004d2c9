"""`llmd_sched.ray.llm` on two real vLLMs behind HAProxy, for test_vllm_inside.py: one line of JSON.

    vllm_ray_ingress.py MODEL

Runs in vLLM's environment, which has Ray and its HAProxy. The application is built as Ray builds it
from a configuration file.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "python"))

import haproxy_serve

os.environ |= haproxy_serve.environment(Path(tempfile.mkdtemp(prefix="haproxy-")))
os.environ["RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING"] = "1"

import ray
from ray import serve
from vllm_ray import BLOCK, CPUS, ENGINE

CONVERSATIONS = 6
TURNS = 4
TURN_TOKENS = 3 * BLOCK


# Longer than anything takes here, and short enough to end before the test's limit ends all.
GIVE_UP_S = 120.0


def until(holds: Callable[[], bool]) -> None:
    """Waits for what happens in its own time."""
    give_up_s = time.monotonic() + GIVE_UP_S
    while not holds():
        if time.monotonic() > give_up_s:
            raise TimeoutError("it did not happen")
        time.sleep(0.05)


def ask(port: int, prompt: list[int]) -> int:
    """How many tokens of a prompt the engine found."""
    body = json.dumps({"model": "model", "prompt": prompt, "max_tokens": 2}).encode()
    url = f"http://127.0.0.1:{port}/v1/completions"
    call = urllib.request.Request(url, body, {"content-type": "application/json"})
    with urllib.request.urlopen(call, timeout=120) as answer:
        usage = json.load(answer)["usage"]
    return int((usage["prompt_tokens_details"] or {}).get("cached_tokens") or 0)


def hits_by_replica() -> dict[str, float]:
    """Prompt tokens that each vLLM found in its cache, by its own count, as last told."""
    from llmd_sched.ray._deployments import all_deployments

    until(lambda: any(len(it.in_use()) == 2 for it in all_deployments().values()))
    (brain,) = all_deployments().values()
    told = {name: brain._signals[name][0] or {} for name in brain.in_use()}
    return {name: float(it.get("prefix_cache_hits_tokens", 0.0)) for name, it in told.items()}


def main(model: str) -> dict[str, Any]:
    from llmd_sched.ray import llm
    from ray.serve._private.api import call_user_app_builder_with_args_if_necessary

    ray.init("local", num_cpus=CPUS, include_dashboard=False, log_to_driver=False)
    (port,) = haproxy_serve.free_ports(1)
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    config = {
        "model_loading_config": {"model_id": "model", "model_source": model},
        "deployment_config": {"num_replicas": 2},
        "engine_kwargs": {"enable_prompt_tokens_details": True, **ENGINE},
        "accelerator_config": {"kind": "cpu"},
    }
    app = call_user_app_builder_with_args_if_necessary(
        llm.build_openai_app, {"llm_configs": [config], "llmd_sched": {"policy": "default"}}
    )
    serve.run(app, name="llm", route_prefix="/")
    router = serve.get_deployment_handle("LLMRouter", "llm")

    def counters() -> Any:
        return router.counters.remote().result()

    def routes() -> bool:
        # Until HAProxy knows of the router and of both replicas, it shares requests out itself.
        ask(port, [9, 9, 9])
        return haproxy_serve.servers_up() == 2 and int(counters()["ingress"]["routed"]) > 0

    def still_booked() -> int:
        seen = counters()["router"]["requests"]
        ended = ("finished", "cancelled", "guessed_ends", "expired_leases", "lost_with_endpoint")
        return int(seen["decisions"]) - sum(int(seen[name]) for name in ended)

    until(routes)
    # The handle of this process hears of replicas as that of the ingress router does.
    serve.get_deployment_handle("LlmdServer:model", "llm")._init()
    hits_before = hits_by_replica()
    before = counters()["router"]["requests"]["matched_tokens"]
    found = 0
    for turn in range(1, TURNS + 1):
        for one in range(CONVERSATIONS):
            prompt = [3 + (97 * one + 31 * at) % 800 for at in range(TURN_TOKENS * turn)]
            found += ask(port, prompt)
    expected = counters()["router"]["requests"]["matched_tokens"] - before
    try:
        until(lambda: still_booked() == 0)
        until(lambda: sum(hits_by_replica().values()) >= sum(hits_before.values()) + found)
    finally:
        seen = counters()
        sys.stderr.write(json.dumps(seen, indent=1))
    hits = hits_by_replica()
    answer = {
        "hits_by_replica": {name: it - hits_before[name] for name, it in hits.items()},
        "found": found,
        "expected": expected,
        "possible": CONVERSATIONS * sum(range(TURNS)) * TURN_TOKENS,
        "fallbacks": seen["fallbacks"],
        "failed": seen["ingress"]["failed"],
        "bad_reports": seen["bad_reports"],
    }
    serve.shutdown()
    ray.shutdown()
    return answer


if __name__ == "__main__":
    sys.stdout.write(f"\nANSWER {json.dumps(main(*sys.argv[1:]))}\n")
