"""What the router expects of real engines: learned from what they did, finite, kept over a restart.

How right it is depends on what else the machine does, so it is measured (`make
bench-predict-vllm`), not asserted.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

from llmd_sched import Decision, Router
from vllm_engine import VllmEngine

BLOCK = 32
# As many as an endpoint has to show before what it has shown is believed.
LEARNED_FROM = 16
PROMPT = [7] * 300


def serve(router: Router, engine: VllmEngine, tokens: list[int], max_tokens: int) -> Decision:
    """Routes a request to the engine and tells the router what its stream shows."""
    decision = router.route(tokens, allowed=[engine.url])
    output_tokens = 0
    for data in engine.stream(tokens, max_tokens):
        if data == b"[DONE]":
            break
        arrived = sum(len(it["token_ids"] or ()) for it in json.loads(data)["choices"])
        if arrived and not output_tokens:
            router.first_token(decision)
        output_tokens += arrived
        router.progress(decision, output_tokens)
    assert output_tokens == max_tokens
    router.finish(decision)
    return decision


def predicted(router: Router, engine: VllmEngine) -> list[float | None]:
    """Of a prompt that nobody holds, at rest: what neither prefills nor the time change."""
    why = router.explain(PROMPT, allowed=[engine.url])
    return [why.predicted_ttft_ms, why.predicted_ttft_p90_ms]


def followed(router: Router, engine: VllmEngine) -> None:
    (endpoint,) = router.discover(engine.url)
    assert endpoint.kv_source == "events"


def test_predictions_of_a_real_engine_are_learned_and_kept(
    vllm_single: VllmEngine, tmp_path: Path
) -> None:
    path = tmp_path / "predictor.json"
    rng = random.Random(21)
    prompts = [[rng.randrange(8, 1000) for _ in range(rng.randrange(20, 400))] for _ in range(24)]
    with Router(block_size=BLOCK) as router:
        followed(router, vllm_single)
        assert predicted(router, vllm_single) == [None, None]
        decisions = [serve(router, vllm_single, tokens, 12) for tokens in prompts]

        means = [(it.predicted_ttft_ms, it.predicted_tpot_ms) for it in decisions]
        assert means[:LEARNED_FROM] == [(None, None)] * LEARNED_FROM
        for it in decisions[LEARNED_FROM:]:
            told = [
                *(it.predicted_ttft_ms, it.predicted_ttft_p90_ms),
                *(it.predicted_tpot_ms, it.predicted_tpot_p50_ms, it.predicted_tpot_p90_ms),
            ]
            assert all(value is not None and 0 < value < math.inf for value in told)
        assert router.save_predictor(path) == 1
        expected = predicted(router, vllm_single)

    with Router({"predictor": str(path)}, block_size=BLOCK) as router:
        followed(router, vllm_single)
        assert predicted(router, vllm_single) == expected
