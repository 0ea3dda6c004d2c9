"""The gateway in front of real vLLM: clients that know nothing of it, and bytes as they were."""

import json
import re
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


def responses(url: str, *, stream: bool) -> bytes:
    """What is answered at ``/v1/responses``."""
    body = {
        "model": "tiny-llama",
        "input": "Where does it go?",
        "max_output_tokens": 12,
        "temperature": 0,
        "stream": stream,
    }
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/responses", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=120) as response:
        return bytes(response.read())


def events(stream: bytes) -> list[Any]:
    """The data of a stream's events, each of which has a name."""
    read = []
    for event in stream.decode().strip().split("\n\n"):
        name, data = event.split("\n")
        read.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {read[-1]['type']}"
    return read


def test_responses_pass_through_and_their_tokens_are_counted(
    gateway: llmd_sched.Gateway, vllm_pair: tuple[VllmEngine, VllmEngine]
) -> None:
    def counted() -> float:
        with urllib.request.urlopen(f"{gateway.url}/metrics", timeout=60) as page:
            (line,) = re.findall(rb"^llmd_gateway_output_tokens_total (\S+)$", page.read(), re.M)
        return float(line)

    direct, through = (
        json.loads(responses(url, stream=False)) for url in (vllm_pair[0].url, gateway.url)
    )
    said = direct["output"][0]["content"]
    assert through["output"][0]["content"] == said
    assert through["usage"]["output_tokens"] == counted() == 12
    streams = [events(responses(url, stream=True)) for url in (vllm_pair[0].url, gateway.url)]
    for stream in streams:
        deltas = [it["delta"] for it in stream if it["type"] == "response.output_text.delta"]
        assert "".join(deltas) == said[0]["text"]
        assert stream[-1]["type"] == "response.completed"
    assert {it["type"] for it in streams[0]} == {it["type"] for it in streams[1]}
    assert counted() == 24
