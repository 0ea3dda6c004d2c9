"""The gateway is as its descriptions say: asked at random, and where it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from embedded_engine import EmbeddedEngine, embedded_engine
from schemathesis import checks
from served_gateway import ServedGateway, served_gateway

GATEWAY = Path(__file__).parents[2] / "src/bodies/gateway"
HOOKS = Path(__file__).with_name("openapi_hooks.py")
FAST = ["--speed", "1000000"]
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
]
KEY = {"authorization": "Bearer alpha"}
PROMPT = {"model": "m", "prompt": [1, 2, 3], "max_tokens": 1}


@pytest.fixture(scope="module")
def engines() -> Iterator[list[EmbeddedEngine]]:
    with embedded_engine(*FAST) as first, embedded_engine(*FAST) as second:
        yield [first, second]


def endpoints(engines: list[EmbeddedEngine]) -> list[dict[str, str]]:
    return [{"url": engine.url} for engine in engines]


def described(url: str) -> Any:
    with urllib.request.urlopen(f"{url}/openapi.json", timeout=60) as reply:
        assert reply.headers["content-type"] == "application/json"
        return json.load(reply)


def ask_at_random(url: str, folder: Path) -> None:
    """Calls every operation of the description that is served there, and judges the answers."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"]
    command += ["--url", url, "--seed", "1", "--no-color", "--checks", ",".join(CHECKS)]
    command += ["--phases", "coverage,fuzzing", "--max-examples", "10"]
    # It keeps what it found where it is started.
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HOOKS.parent), os.environ.get("PYTHONPATH", "")]),
        "SCHEMATHESIS_HOOKS": HOOKS.stem,
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


def test_clients_are_answered_as_described(engines: list[EmbeddedEngine], tmp_path: Path) -> None:
    with served_gateway(tmp_path, {"endpoints": endpoints(engines)}) as gateway:
        gateway.wait_for_states("up", "up")
        assert described(gateway.url) == json.loads((GATEWAY / "openapi.json").read_text())
        ask_at_random(gateway.url, tmp_path)
        asked = gateway.live()["gateway"]
        # Engines answered, and the gateway itself.
        assert asked["completed"] > 300
        assert asked["refused"].keys() >= {"400", "404", "405"}


def test_operators_are_answered_as_described(engines: list[EmbeddedEngine], tmp_path: Path) -> None:
    with served_gateway(tmp_path, {"endpoints": endpoints(engines)}) as gateway:
        gateway.wait_for_states("up", "up")
        assert described(gateway.admin) == json.loads((GATEWAY / "admin_openapi.json").read_text())
        gateway.post("/v1/completions", PROMPT)
        ask_at_random(gateway.admin, tmp_path)


def refused(
    gateway: ServedGateway, headers: Mapping[str, str], body: object, method: str = "POST"
) -> tuple[int, str]:
    """Status and code of a refusal, which is as described."""
    schema = schemathesis.openapi.from_path(GATEWAY / "openapi.json")
    case = schema["/v1/completions"]["POST"].Case(
        method=method, headers=dict(headers), body=body, media_type="application/json"
    )
    response = case.call(base_url=gateway.url, timeout=60)
    assert (
        str(response.status_code) in schema["/v1/completions"]["POST"].definition.raw["responses"]
    )
    judges = [checks.CHECKS.get_one(name) for name in CHECKS if "conformance" in name]
    case.validate_response(response, checks=judges)
    return response.status_code, response.json()["error"]["code"]


def test_what_is_refused_is_refused_as_described(
    engines: list[EmbeddedEngine], tmp_path: Path
) -> None:
    keys = [
        {
            "name": name,
            "sha256": hashlib.sha256(name.encode()).hexdigest(),
            "models": ["m"],
            "requests_per_minute": 1,
        }
        for name in ["alpha", "beta"]
    ]
    limits = {"max_body_bytes": 1_000}
    config = {"endpoints": endpoints(engines), "auth": {"keys": keys}, "limits": limits}
    with served_gateway(tmp_path, config) as gateway:
        gateway.wait_for_states("up", "up")
        other = {**PROMPT, "model": "other"}
        assert refused(gateway, {}, PROMPT) == (401, "invalid_api_key")
        assert refused(gateway, KEY, other) == (404, "model_not_found")
        assert refused(gateway, KEY, {"prompt": "a"}) == (403, "model_not_allowed")
        assert refused(gateway, KEY, {"prompt": "a" * 2_000}) == (413, "too_large")
        soon = {**KEY, "x-slo-ttft-ms": "soon"}
        assert refused(gateway, soon, PROMPT) == (400, "invalid_header")
        assert refused(gateway, KEY, PROMPT, "PUT") == (405, "method_not_allowed")
        gateway.post("/v1/completions", PROMPT, KEY)
        assert refused(gateway, KEY, PROMPT) == (429, "rate_limit_exceeded")


def test_what_engines_fail_at_is_answered_as_described(tmp_path: Path) -> None:
    with ExitStack() as stack:
        # In real time, of which the answer would take minutes.
        engine = stack.enter_context(embedded_engine())
        config = {"endpoints": endpoints([engine]), "timeouts": {"first_byte_ms": 50}}
        config["health"] = {"interval_ms": 0, "max_ejected_percent": 0}
        gateway = stack.enter_context(served_gateway(tmp_path, config))
        gateway.wait_for_states("up")
        long = {**PROMPT, "max_tokens": 10_000, "ignore_eos": True}
        assert refused(gateway, {}, long) == (504, "engine_timeout")
        engine.process.kill()
        engine.process.wait()
        assert refused(gateway, {}, PROMPT) == (502, "engine_failed")
    with served_gateway(tmp_path, {"hold_ms": 0}) as gateway:
        assert refused(gateway, {}, PROMPT) == (503, "no_capacity")
