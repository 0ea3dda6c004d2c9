"""The gateway in front of real vLLM: clients that know nothing of it, and bytes as they were."""

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import llmd_sched
import pytest
from vllm_engine import Installation, VllmEngine

CLIENT = Path(__file__).parent / "openai_client.py"
JOIN_S = 60.0


@pytest.fixture
def gateway(vllm_pair: tuple[VllmEngine, VllmEngine]) -> Iterator[llmd_sched.Gateway]:
    config = {
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
