"""`ray.serve.llm` on two real vLLMs, for test_vllm_ray.py: prints one line of JSON.

    vllm_ray.py MODEL PORT

Runs in vLLM's environment, which has Ray. The application is that of examples/ray_llm.py.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))

import ray
import ray_llm
from llmd_sched.ray import counters
from ray import serve

BLOCK = 32
ENGINE = {
    "dtype": "bfloat16",
    "max_model_len": 1024,
    "block_size": BLOCK,
    "enforce_eager": True,
    # Two engines hold all conversations between them, and one does not.
    "num_gpu_blocks_override": 64,
    "max_num_seqs": 8,
}
# An engine and its replica count two CPUs, of which the machine may have fewer.
CPUS = 8


async def by_handle(handle: Any, prompt: list[int]) -> int:
    """As ray_llm.ask, by a handle in this process, whose router's counters are here."""
    from ray.llm._internal.serve.core.configs.openai_api_models import CompletionRequest

    request = CompletionRequest(model="model", prompt=prompt, max_tokens=4, stream=False)
    async for answer in handle.options(stream=True).completions.remote(request, None):
        return int(answer.usage.prompt_tokens_details.cached_tokens or 0)
    raise RuntimeError("no answer")


async def converse(handle: Any) -> dict[str, Any]:
    """The conversations of other prompts, one request after the other."""
    found = 0
    for turn in range(1, 4):
        for one in range(4):
            prompt = [5 + (89 * one + 17 * at) % 700 for at in range(3 * BLOCK * turn)]
            found += await by_handle(handle, prompt)
    # Ray says that a request is over after its answer has come.
    while (ours := own_counters())["booked"] > 0:
        await asyncio.sleep(0.01)
    return {"found": found, **ours}


def own_counters() -> dict[str, Any]:
    (ours,) = [it for name, it in counters().items() if "LlmdServer" in name]
    return ours


def main(model: str, port: int) -> dict[str, Any]:
    ray.init("local", num_cpus=CPUS, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"port": port})
    more = {"accelerator_config": {"kind": "cpu"}}
    serve.run(
        ray_llm.application(model, is_plain=False, engine=ENGINE, more=more),
        name="llm",
        route_prefix="/",
    )
    over_http = ray_llm.converse(f"http://127.0.0.1:{port}")
    handle = serve.get_deployment_handle("LlmdServer:model", "llm")
    answer = {"over_http": over_http, "by_handle": asyncio.run(converse(handle))}
    serve.shutdown()
    ray.shutdown()
    return answer


if __name__ == "__main__":
    model, port = sys.argv[1:]
    sys.stdout.write(f"\nANSWER {json.dumps(main(model, int(port)))}\n")
