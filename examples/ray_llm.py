"""`ray.serve.llm` on vLLM, whose requests go to the replica that has their prefix cached.

    pip install 'llmd-sched[ray]' 'ray[llm]'
    python examples/ray_llm.py --model Qwen/Qwen3-0.6B
    python examples/ray_llm.py --model Qwen/Qwen3-0.6B --plain   # the same, with Ray's own router

`server_cls` is all that a Ray LLM application changes. Plays conversations over HTTP, each turn of
which repeats all that came before, and says how much of them the engines found in their caches.
"""

from __future__ import annotations

import argparse
import json
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ray
from ray import serve
from ray.serve.llm import LLMConfig, build_openai_app

REPLICAS = 2
CONVERSATIONS = 6
TURNS = 5
TURN_TOKENS = 96
ROUTED_BY_US = {"server_cls": "llmd_sched.ray.llm_server:LlmdServer"}


def application(model: str, *, is_plain: bool, engine: dict[str, Any], more: dict[str, Any]) -> Any:
    """The application."""
    config = LLMConfig(
        model_loading_config={"model_id": "model", "model_source": model},
        deployment_config={"num_replicas": REPLICAS},
        engine_kwargs={"enable_prompt_tokens_details": True, **engine},
        **({} if is_plain else ROUTED_BY_US),
        **more,
    )
    return build_openai_app({"llm_configs": [config]})


def ask(url: str, prompt: list[int]) -> int:
    """How many tokens of a prompt the engine found."""
    body = json.dumps({"model": "model", "prompt": prompt, "max_tokens": 4}).encode()
    call = urllib.request.Request(
        f"{url}/v1/completions", body, {"content-type": "application/json"}
    )
    with urllib.request.urlopen(call, timeout=120) as answer:
        usage = json.load(answer)["usage"]
    return int((usage["prompt_tokens_details"] or {}).get("cached_tokens") or 0)


def converse(url: str) -> dict[str, int]:
    """Plays the conversations, one turn of each at a time."""
    found = asked = 0
    with ThreadPoolExecutor(CONVERSATIONS) as clients:
        for turn in range(1, TURNS + 1):
            # Token ids: text would only be matched with text that came by the same router.
            prompts = [
                [3 + (97 * one + 31 * at) % 800 for at in range(TURN_TOKENS * turn)]
                for one in range(CONVERSATIONS)
            ]
            asked += sum(map(len, prompts))
            found += sum(clients.map(lambda prompt: ask(url, prompt), prompts))
    return {"asked": asked, "found": found}


def main() -> None:
    """Deploys, converses and prints."""
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--model", required=True, help="a model's name or folder")
    options.add_argument("--plain", action="store_true", help="Ray's own router")
    options.add_argument("--engine", type=json.loads, default={}, help="engine_kwargs, as JSON")
    options.add_argument("--config", type=json.loads, default={}, help="more of LLMConfig")
    options.add_argument("--port", type=int, default=8000)
    options.add_argument("--cpus", type=int, help="CPUs that Ray counts with, if not the machine's")
    given = options.parse_args()
    ray.init(num_cpus=given.cpus, log_to_driver=False)
    serve.start(http_options={"port": given.port})
    app = application(given.model, is_plain=given.plain, engine=given.engine, more=given.config)
    serve.run(app, name="llm", route_prefix="/")
    result = converse(f"http://127.0.0.1:{given.port}")
    print(f"prompt tokens asked {result['asked']}, found in caches {result['found']}")
    serve.shutdown()


if __name__ == "__main__":
    main()
