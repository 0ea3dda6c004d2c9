"""The gateway as an application of ASGI: mounted in FastAPI behind uvicorn, and in Ray Serve."""

from __future__ import annotations

import asyncio
import http.client
import json
import pickle
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import llmd_sched.asgi
import pytest
from embedded_engine import EmbeddedEngine, embedded_engine
from llmd_sched.asgi import GatewayApp

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from asgi_server import HUNG_S, Address, served
from fastapi import FastAPI

FAST = ("--speed", "10000")
# A prompt, and a chat, with an id of their own so that answers have the same.
ID = {"x-request-id": "the-same"}
COMPLETION = ("/v1/completions", {"model": "m", "prompt": [7] * 40, "max_tokens": 24})
CHAT = (
    "/v1/chat/completions",
    {"model": "m", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 24},
)


@pytest.fixture(scope="module")
def engines() -> Iterator[list[EmbeddedEngine]]:
    with embedded_engine(*FAST) as first, embedded_engine(*FAST) as second:
        yield [first, second]


@pytest.fixture(scope="module")
def slow() -> Iterator[EmbeddedEngine]:
    """One that takes as long as an engine does."""
    with embedded_engine() as engine:
        yield engine


def config(*engines: EmbeddedEngine, **settings: Any) -> dict[str, Any]:
    return {"endpoints": [{"url": it.url} for it in engines], **settings}


def until(holds: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + HUNG_S
    while not holds():
        assert time.monotonic() < give_up_s, "it did not happen"
        time.sleep(0.02)


def mounted(gateway: GatewayApp, at: str = "/") -> FastAPI:
    app = FastAPI(lifespan=gateway.lifespan)

    @app.get("/own")
    def own() -> str:
        return "own"

    app.mount(at, gateway)
    return app


def joined(gateway: Any, engines: int) -> Any:
    until(lambda: len(gateway.endpoints()) == engines)
    return gateway


@pytest.fixture(scope="module")
def app(engines: list[EmbeddedEngine]) -> GatewayApp:
    return llmd_sched.asgi.app(config(*engines))


@pytest.fixture(scope="module")
def front(app: GatewayApp) -> Iterator[Address]:
    with served(mounted(app)) as address:
        joined(app.gateway, 2)
        yield address


@pytest.fixture(scope="module")
def direct(engines: list[EmbeddedEngine]) -> Iterator[Address]:
    """The gateway with a port of its own."""
    with llmd_sched.Gateway({"listen": "127.0.0.1:0", **config(*engines)}) as gateway:
        yield Address.of(joined(gateway, 2).url)


def undated(answer: bytes) -> bytes:
    return re.sub(rb'"created":\d+', b'"created":0', answer)


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(("path", "body"), [COMPLETION, CHAT])
def test_answers_are_the_gateways_own(
    front: Address, direct: Address, path: str, body: dict[str, Any], is_stream: bool
) -> None:
    # The first one fills the cache of whom it gets: usage tells of that, and the second has it.
    asked = {**body, "stream": is_stream}
    front.post(path, asked, ID)
    direct.post(path, asked, ID)
    ours, theirs = (it.ask("POST", path, asked, ID) for it in (front, direct))
    assert undated(ours[2]) == undated(theirs[2])
    assert (ours[0], ours[1]["content-type"]) == (200, theirs[1]["content-type"])
    assert (b"data: [DONE]\n\n" in ours[2]) == is_stream


def test_what_the_gateway_says_itself_is_said_here(front: Address, direct: Address) -> None:
    for method, path, body in [
        ("GET", "/v1/models", None),
        ("GET", "/health", None),
        ("HEAD", "/health", None),
        ("GET", "/nothing?here", None),
        ("GET", "/v1/completions", None),
        ("POST", "/v1/completions", {"model": "other", "prompt": "x"}),
    ]:
        (status, head, said), (their_status, their_head, theirs) = (
            it.ask(method, path, body) for it in (front, direct)
        )
        assert (status, undated(said)) == (their_status, undated(theirs))
        assert head["content-length"] == their_head["content-length"]
    assert front.ask("GET", "/own")[2] == b'"own"'


def test_a_client_that_goes_away_aborts_its_request_at_the_engine(slow: EmbeddedEngine) -> None:
    path, body = COMPLETION
    asked = {**body, "max_tokens": 4_000, "ignore_eos": True}
    app = llmd_sched.asgi.app(config(slow))
    # Nobody tells it of a lifespan: it starts with the first request.
    with served(app, lifespan="off") as address:
        until(lambda: address.ask("GET", "/ready")[0] == 200)
        with address.open("POST", path, {**asked, "stream": True}) as answer:
            # Events come as they are made: it has thousands to go.
            assert answer.readline().startswith(b"data: {")
            assert metrics(slow)["vllm:num_requests_running"] == 1
        until(lambda: metrics(slow)["vllm:request_success_total:abort"] == 1)
        unanswered = http.client.HTTPConnection(address.host, address.port)
        unanswered.request("POST", path, json.dumps(asked))
        until(lambda: metrics(slow)["vllm:num_requests_running"] == 1)
        unanswered.close()
        until(lambda: metrics(slow)["vllm:request_success_total:abort"] == 2)
        until(lambda: all(it["inflight_requests"] == 0 for it in app.gateway.endpoints()))
    app.close()


def test_answers_under_way_are_finished_before_it_ends(slow: EmbeddedEngine) -> None:
    path, body = COMPLETION
    app = llmd_sched.asgi.app(config(slow))
    before = metrics(slow)["vllm:request_success_total:length"]
    with served(mounted(app)) as address:
        gateway = joined(app.gateway, 1)
        answer = address.open("POST", path, {**body, "ignore_eos": True, "stream": True})
    assert answer.read().endswith(b"data: [DONE]\n\n")
    assert metrics(slow)["vllm:request_success_total:length"] == before + 1
    with pytest.raises(llmd_sched.RouterClosedError):
        gateway.endpoints()
    with pytest.raises(llmd_sched.RouterClosedError, match="ended with its application"):
        _ = app.gateway


def test_an_engine_that_dies_in_the_middle_is_told_of() -> None:
    path, body = COMPLETION
    asked = {**body, "max_tokens": 4_000, "ignore_eos": True, "stream": True}
    with embedded_engine() as engine:
        app = llmd_sched.asgi.app(config(engine))
        with served(app) as address:
            joined(app.gateway, 1)
            with address.open("POST", path, asked) as answer:
                answer.readline()
                engine.process.kill()
                last = answer.read().split(b"\n\n")[-2]
    assert json.loads(last.strip().removeprefix(b"data: "))["error"]["code"] == "engine_failed"


def test_bodies_come_in_pieces_and_one_that_is_too_large_is_refused_before_its_end(
    engines: list[EmbeddedEngine],
) -> None:
    path, body = COMPLETION
    data = json.dumps(body).encode()
    settings = config(*engines, limits={"max_body_bytes": 4_000})
    app = llmd_sched.asgi.app(settings)
    with served(mounted(app, at="/llm")) as address:
        joined(app.gateway, 2)
        pieces = http.client.HTTPConnection(address.host, address.port, timeout=HUNG_S)
        pieces.request("POST", f"/llm{path}", iter([data[:9], data[9:]]), encode_chunked=True)
        assert b'"completion_tokens":' in pieces.getresponse().read()
        pieces.close()
        assert address.ask("POST", path, body)[0] == 404
        # Its end never comes.
        endless = http.client.HTTPConnection(address.host, address.port, timeout=HUNG_S)
        endless.putrequest("POST", f"/llm{path}")
        endless.putheader("content-length", "5000")
        endless.endheaders(data + b" " * 4_500)
        answer = endless.getresponse()
        assert (answer.status, json.loads(answer.read())["error"]["code"]) == (413, "too_large")
        endless.close()


def test_many_streams_at_once_are_whole(front: Address, direct: Address) -> None:
    path, body = COMPLETION

    def ask(number: int) -> tuple[str, str]:
        asked = {**body, "prompt": [number] * 20, "max_tokens": 200, "ignore_eos": True}
        events = front.post(path, {**asked, "stream": True}).decode().split("\n\n")
        assert events[-2:] == ["data: [DONE]", ""]
        pieces = [json.loads(it.removeprefix("data: ")) for it in events[:-2]]
        whole = json.loads(direct.post(path, asked))
        text = "".join(it["choices"][0]["text"] for it in pieces)
        return text, whole["choices"][0]["text"]

    with ThreadPoolExecutor(16) as pool:
        for streamed, whole in pool.map(ask, range(64)):
            assert streamed == whole


def test_it_is_pickled_as_its_configuration(app: GatewayApp) -> None:
    assert app.gateway is not None
    copy = pickle.loads(pickle.dumps(app))
    assert copy._config == app._config
    assert copy.gateway.endpoints() is not app.gateway.endpoints()
    copy.close()


def test_a_configuration_that_cannot_be_fails_the_start() -> None:
    said: list[Any] = []

    async def start(settings: dict[str, Any]) -> None:
        async def receive() -> dict[str, str]:
            return {"type": "lifespan.startup"}

        async def send(message: Any) -> None:
            said.append(message)

        await llmd_sched.asgi.app(settings)({"type": "lifespan"}, receive, send)

    for settings, named in [
        ({"tls": {"cert_file": "a", "key_file": "b"}}, "tls: a mounted gateway has no port"),
        ({"endpoints": [{"url": "nonsense"}]}, "nonsense"),
        ({"no_such": 1}, "no_such"),
    ]:
        asyncio.run(start(settings))
        assert said[-1]["type"] == "lifespan.startup.failed"
        assert named in said[-1]["message"]


@pytest.fixture
def under_ray(slow: EmbeddedEngine) -> Iterator[Address]:
    """The same as the ingress of a deployment of Ray Serve, through Ray's own HTTP proxy."""
    pytest.importorskip("ray.serve")
    program = Path(__file__).with_name("asgi_serve.py")
    command = [sys.executable, str(program), json.dumps(config(slow))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield Address.of(json.loads(process.stdout.readline())["url"])
        finally:
            process.communicate()


@pytest.mark.timeout(180)
def test_ray_serve_has_it_for_an_ingress(under_ray: Address, slow: EmbeddedEngine) -> None:
    for at in ["/llm/gateway", "/alone"]:
        until(lambda at=at: under_ray.ask("GET", f"{at}/ready")[0] == 200)
    assert under_ray.ask("GET", "/llm/own")[2] == b'"own"'
    engine = Address.of(slow.url)
    for path, body in [COMPLETION, CHAT]:
        for is_stream in [False, True]:
            asked = {**body, "stream": is_stream}
            engine.post(path, asked, ID)
            ours, theirs = (
                it.post(at + path, asked, ID)
                for it, at in [(under_ray, "/llm/gateway"), (engine, "")]
            )
            assert undated(ours) == undated(theirs)
    before = metrics(slow)["vllm:request_success_total:abort"]
    path, body = COMPLETION
    asked = {**body, "max_tokens": 4_000, "ignore_eos": True, "stream": True}
    with under_ray.open("POST", f"/alone{path}", asked) as answer:
        assert answer.readline().startswith(b"data: {")
    until(lambda: metrics(slow)["vllm:request_success_total:abort"] == before + 1)


def metrics(engine: EmbeddedEngine) -> dict[str, float]:
    """An engine's counters; those of ends, by why."""
    lines = Address.of(engine.url).ask("GET", "/metrics")[2].decode().splitlines()
    read: dict[str, float] = {}
    for line in lines:
        if not line.startswith("#"):
            series, value = line.rsplit(" ", 1)
            name = series.split("{")[0]
            reason = re.search(r'finished_reason="(\w+)"', series)
            read[f"{name}:{reason[1]}" if reason else name] = float(value)
    return read
