"""The gateway in front of real vLLM: clients that know nothing of it, and bytes as they were."""

import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import llmd_sched
import pytest
from vllm_engine import Installation, VllmEngine

CLIENT = Path(__file__).parent / "openai_client.py"
JOIN_S = 60.0


@pytest.fixture
def gateway(
    vllm_pair: tuple[VllmEngine, VllmEngine], vllm_installation: Installation
) -> Iterator[llmd_sched.Gateway]:
    config = {
        "tokenizers": {"tiny-llama": str(vllm_installation.models / "tiny-llama")},
        "listen": "127.0.0.1:0",
        "endpoints": [{"url": engine.url} for engine in vllm_pair],
        "router": {"block_size": 32},
    }
    with llmd_sched.Gateway(config) as gateway:
        deadline = time.monotonic() + JOIN_S
        while len(gateway.endpoints()) < len(vllm_pair):
            assert time.monotonic() < deadline, gateway.endpoints()
            time.sleep(0.05)
        yield gateway


def run(installation: Installation, *command: str) -> str:
    python = installation.environment / "bin"
    done = subprocess.run(
        [str(python / command[0]), *command[1:]], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-2000:]
    return done.stdout


def test_the_openai_client_sees_no_difference(
    gateway: llmd_sched.Gateway,
    vllm_pair: tuple[VllmEngine, VllmEngine],
    vllm_installation: Installation,
) -> None:
    said = run(vllm_installation, "python", str(CLIENT), vllm_pair[0].url, gateway.url)
    direct, through = json.loads(said.splitlines()[-1])
    assert through == direct
    assert through["pieces"] == through["whole"][0]
    assert (through["tokens"], through["talk_tokens"], through["refused"]) == (12, 12, 404)


def test_vllms_own_benchmark_runs_through_it(
    gateway: llmd_sched.Gateway,
    vllm_pair: tuple[VllmEngine, VllmEngine],
    vllm_installation: Installation,
) -> None:
    before = [engine.metrics().total("vllm:request_success_total") for engine in vllm_pair]
    said = run(
        vllm_installation,
        "vllm",
        *("bench", "serve", "--backend", "openai", "--base-url", gateway.url),
        *("--model", "tiny-llama", "--tokenizer", str(vllm_installation.models / "tiny-llama")),
        *("--dataset-name", "random", "--random-input-len", "64", "--random-output-len", "8"),
        *("--num-prompts", "12", "--max-concurrency", "4"),
    )
    found = re.search(r"Successful requests:\s+(\d+)", said)
    assert found is not None, said
    assert found[1] == "12", said
    after = [engine.metrics().total("vllm:request_success_total") for engine in vllm_pair]
    assert sum(after) - sum(before) >= 12


def chat(gateway: llmd_sched.Gateway, content: str) -> tuple[dict[str, str], int]:
    """The head of the answer to a chat, and the tokens of its prompt."""
    body = {
        "model": "tiny-llama",
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 2,
        "temperature": 0,
    }
    headers = {"content-type": "application/json", "x-llmd-explain": "1"}
    url = f"{gateway.url}/v1/chat/completions"
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=120) as response:
        return dict(response.headers), json.load(response)["usage"]["prompt_tokens"]


def test_a_chat_goes_where_its_tokens_are_and_as_many_are_found(
    gateway: llmd_sched.Gateway, vllm_pair: tuple[VllmEngine, VllmEngine]
) -> None:
    engines = {engine.url: engine for engine in vllm_pair}
    content = "A gateway that knows the tokens of a chat. " * 20
    first, _ = chat(gateway, content)
    engine = engines[first["x-llmd-endpoint"]]
    deadline = time.monotonic() + JOIN_S
    # Until what the engine told of the first is known here; each is served by the same engine.
    while True:
        before = engine.prefix_cache_hits()
        head, prompt_tokens = chat(gateway, content)
        assert head["x-llmd-endpoint"] == engine.url
        matched = int(head["x-llmd-matched-tokens"])
        found = engine.prefix_cache_hits() - before
        # vLLM computes the last token of a prompt in any case.
        assert found == (prompt_tokens - 1) // 32 * 32
        if head["x-llmd-match-source"] == "exact":
            assert found == min(matched, (prompt_tokens - 1) // 32 * 32)
            return
        assert time.monotonic() < deadline, head
