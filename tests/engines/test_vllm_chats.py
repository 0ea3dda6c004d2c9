"""Chats routed by the tokens that this process makes of them, against what a real engine does.

The engine takes the chats themselves: it renders and tokenises them, says which ids it made, and
counts the tokens that it found in its prefix cache. Its template is one of those of the goldens,
with tools, thoughts and arguments.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llmd_sched
import pytest
from vllm_engine import EngineConfig, Installation, VllmEngine
from zmtp import settled_sequence

BLOCK = 32
CHATS = Path(__file__).resolve().parents[1] / "goldens" / "chats"
TEMPLATE = CHATS / "templates" / "tools_and_thought.jinja"
SYSTEM = "You answer briefly, and with the tools that you have. " * 12
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather <of> a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
SETTLE_S = 60.0


@pytest.fixture(scope="module")
def engine(
    vllm_installation: Installation, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VllmEngine]:
    config = EngineConfig(
        max_model_len=8192,
        extra_arguments=(
            "--chat-template",
            str(TEMPLATE),
            "--enable-prompt-tokens-details",
            "--enable-auto-tool-choice",
            "--tool-call-parser",
            "hermes",
        ),
    )
    log = tmp_path_factory.mktemp("vllm") / "chats.log"
    with VllmEngine(vllm_installation, config, log) as started:
        yield started


def settle(router: llmd_sched.Router, engine: VllmEngine) -> None:
    """Returns when the router has heard what the engine published."""
    last = settled_sequence(engine.replay_ports[0])
    deadline = time.monotonic() + SETTLE_S
    while router.kv_position(engine.url).sequence != (None if last < 0 else last):
        assert time.monotonic() < deadline, f"the router is not at {last}"
        time.sleep(0.01)


def ask(engine: VllmEngine, path: str, body: dict[str, Any]) -> dict[str, Any]:
    request = {"model": engine.config.model, "max_tokens": 12, "temperature": 0, **body}
    response = engine.request("POST", path, {**request, "return_token_ids": True})
    assert response.status == 200, response.body
    answer: dict[str, Any] = response.json()
    return answer


def cached_tokens(answer: dict[str, Any]) -> int:
    details = answer["usage"]["prompt_tokens_details"] or {}
    return int(details.get("cached_tokens") or 0)


def test_a_match_of_chats_is_what_the_engine_finds_in_its_cache(engine: VllmEngine) -> None:
    model = engine.installation.models / engine.config.model
    tokenizer = llmd_sched.Tokenizer(model, chat_template=TEMPLATE)
    router = llmd_sched.Router(block_size=BLOCK, seed=1)
    router.discover(engine.url)
    call = {"name": "weather", "arguments": json.dumps({"city": "Zürich", "days": [1, 2.5]})}
    talk: list[dict[str, Any]] = [{"role": "system", "content": SYSTEM}]
    found = []
    for turn in range(6):
        talk.append({"role": "user", "content": f"Question {turn}: 東京 <s> 🙂\n\n  why? " * 8})
        body = {"messages": talk, "tools": [TOOL]} if turn >= 3 else {"messages": talk}
        tokens = tokenizer.encode_body(json.dumps(body).encode())
        settle(router, engine)
        decision = router.route(tokens)
        answer = ask(engine, "/v1/chat/completions", body)
        router.first_token(decision)
        router.finish(decision, answer["usage"]["completion_tokens"])
        assert tokens.tolist() == answer["prompt_token_ids"]
        reused = min(decision.matched_tokens, (len(tokens) - 1) // BLOCK * BLOCK)
        assert reused == cached_tokens(answer)
        found.append(reused)
        said = answer["choices"][0]["message"]["content"] or ""
        talk.append({"role": "assistant", "content": said})
        if turn == 3:
            talk[-1]["tool_calls"] = [{"id": "call_1", "type": "function", "function": call}]
            talk.append({"role": "tool", "tool_call_id": "call_1", "content": "rain"})
    # From the second turn on the system prompt at least: tools, when they come, stand behind it.
    assert found[0] == 0
    assert all(tokens > len(SYSTEM) // 8 for tokens in found[1:])
    counters = tokenizer.counters()
    assert (counters["encoded"], counters["not_exact"]) == (6, 0)
    assert counters["known_bytes"] > counters["text_bytes"] / 3


@pytest.mark.parametrize("text", ["Once upon a time <s> there\n\nwas  ", "東京 🙂 e\u0301"])
def test_completions_have_the_engines_own_ids(engine: VllmEngine, text: str) -> None:
    tokenizer = llmd_sched.Tokenizer(engine.installation.models / engine.config.model)
    answer = ask(engine, "/v1/completions", {"prompt": text})
    assert tokenizer.encode(text).tolist() == answer["choices"][0]["prompt_token_ids"]
