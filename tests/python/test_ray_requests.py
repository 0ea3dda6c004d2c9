"""What is read from the calls of a Ray Serve handle, and from a deployment's configuration."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from embedded_engine import embedded_engine
from llmd_sched import ConfigError, EngineError
from llmd_sched.ray import EngineSignals, Settings, _brain, _signals
from llmd_sched.ray._replicas import endpoint_of
from llmd_sched.ray._requests import found, with_ids


def pending(*args: Any, session: str = "", adapter: str = "", **kwargs: Any) -> Any:
    metadata = SimpleNamespace(session_id=session, multiplexed_model_id=adapter)
    return SimpleNamespace(args=args, kwargs=kwargs, metadata=metadata)


@pytest.mark.parametrize(
    ("answer", "tokens", "text", "options"),
    [
        (None, None, None, {}),
        ("text", None, "text", {}),
        ([1, 2], [1, 2], None, {}),
        ({"text": "t", "priority": 2}, None, "t", {"priority": 2}),
        ({"tokens": [3], "session_id": "s"}, [3], None, {"session_id": "s"}),
    ],
)
def test_an_application_finds_its_own_prompts(
    answer: Any, tokens: Any, text: str | None, options: dict[str, Any]
) -> None:
    usual = {"ttft_slo_ms": 500.0}
    assert found(answer, usual) == (tokens, text, usual | options)


def test_ids_that_ray_knows_are_options() -> None:
    usual = {"ttft_slo_ms": 500.0}
    assert with_ids(usual, pending().metadata) == usual
    known = with_ids(usual, pending(session="s1", adapter="a").metadata)
    assert known == {"ttft_slo_ms": 500.0, "session_id": "s1", "lora": "a"}


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"polcy": "x"}, "no key 'polcy'"),
        ({"kv_events": "on"}, "'on' is not 'auto' or 'off'"),
        ({"slo": {"ttft": 1}}, "no key 'ttft'"),
        ({"slo": {"ttft_ms": 0}}, "ttft_ms is 0"),
        ({"slo": 5}, "5 is not a mapping"),
        ({"config": []}, "is not a mapping"),
        ({"config": {"block_size": 16}}, "block_size is a keyword of its own"),
        ({"config": {"fleet": []}}, r"fleet is \[\], not a mapping"),
        ({"config": {"fleet": {"router": "r1"}}}, "fleet.router is 'r1': leave it out"),
        ({"prompt": "nowhere:f"}, "'nowhere:f' cannot be imported"),
        ({"prompt": "math:pi"}, "'math:pi' is not a function"),
    ],
)
def test_settings_that_cannot_be_are_named(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Settings.of(kwargs)


def test_a_replica_is_described_by_what_it_tells() -> None:
    own = {"llmd_sched": {"kv_events": "tcp://h:1", "kv_replay": "tcp://h:2"}}
    replica = SimpleNamespace(node_id="n1", replica_metadata=own, routing_stats={})
    described = endpoint_of(replica, Settings())
    assert described["topology"] == {"host": "n1"}
    assert (described["kv_events"], described["kv_replay"]) == ("tcp://h:1", "tcp://h:2")
    stats = {"kv_event_metadata": {"endpoint": "tcp://h:3", "replay_endpoint": "tcp://h:4"}}
    ray_llm = SimpleNamespace(node_id=None, replica_metadata={}, routing_stats=stats)
    assert endpoint_of(ray_llm, Settings())["kv_replay"] == "tcp://h:4"
    assert endpoint_of(ray_llm, Settings(kv_events="off")) == {}


def test_what_ray_s_own_llm_replicas_tell_is_understood() -> None:
    told = {"endpoint": "tcp://h:3", "block_size": 32, "max_num_batched_tokens": 2048, "dp_rank": 0}
    replica = SimpleNamespace(routing_stats={"kv_event_metadata": told})
    assert endpoint_of(replica, Settings()) == {
        "kv_events": "tcp://h:3",
        "capacity": {"block_size": 32, "max_batch_tokens": 2048},
    }


def replica_of(name: str, **told: Any) -> Any:
    return SimpleNamespace(replica_id=SimpleNamespace(to_full_id_str=lambda: name), **told)


def test_how_engines_are_is_taken_from_routing_stats_once() -> None:
    brain = _brain.DeploymentBrain("d", Settings())
    busy = replica_of("busy", routing_stats={"llmd_sched": {"kv_usage": 0.5}})
    wrong = replica_of("wrong", routing_stats={"llmd_sched": {"kv_usage": 87}})
    silent = replica_of("silent", routing_stats={"llmd_sched": {}})
    for _ in range(2):
        brain.sync([busy, wrong, silent])
    seen = brain.counters()
    assert (seen["reports"], seen["bad_reports"], seen["fallbacks"]) == (1, 1, 0)
    assert "wrong: kv_usage is 87: give a share" in seen["last_error"]
    usage = {it.address: it.kv_usage for it in brain.router.endpoints()}
    assert usage == {"busy": 0.5, "wrong": None, "silent": None}
    busier = replica_of("busy", routing_stats={"llmd_sched": {"kv_usage": 0.75}})
    brain.sync([busier, wrong, silent])
    assert brain.counters()["reports"] == 2
    assert brain.router.endpoint("busy").kv_usage == 0.75


def test_a_replica_that_tells_nonsense_of_its_engine_still_gets_requests() -> None:
    brain = _brain.DeploymentBrain("d", Settings())
    wrong = replica_of("wrong", replica_metadata={"llmd_sched": {"kv_events": "nowhere"}})
    brain.sync([wrong, replica_of("fine")])
    assert [it.address for it in brain.router.endpoints()] == ["wrong", "fine"]
    assert brain.counters()["bad_reports"] == 1


def test_an_engine_tells_what_it_is_and_how_it_is() -> None:
    with embedded_engine("--kv-blocks", "256") as engine:
        told = EngineSignals()
        told.tell_engine(engine.url, labels={"pool": "a"})
        (metadata,) = told.record_replica_metadata().values()
        assert metadata["kv_events"].startswith("tcp://127.0.0.1:")
        assert (metadata["metrics"], metadata["labels"]) == (f"{engine.url}/metrics", {"pool": "a"})
        described = endpoint_of(
            replica_of("r", replica_metadata={"llmd_sched": metadata}), Settings(kv_events="off")
        )
        assert sorted(described) == ["capacity", "labels", "metrics"]
        # Routers read the page: nothing is left for Ray to bring.
        assert asyncio.run(told.record_routing_stats()) == {"llmd_sched": {}}
        told.tell_engine(engine.url, metrics=None)
        stats = asyncio.run(told.record_routing_stats())
        signals = stats["llmd_sched"]
        assert (signals["running_requests"], signals["kv_blocks"]) == (0.0, 256)


def test_an_idle_engine_is_told_of_again_until_what_was_sent_has_had_time_to_show(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A second goes by between two looks.
    seconds = iter(range(100, 200))
    monkeypatch.setattr(_signals, "time", SimpleNamespace(monotonic=lambda: next(seconds)))

    class Engine(EngineSignals):
        running = 0.0

        async def engine_signals(self) -> Any:
            return {"running_requests": self.running}

    engine, brain = Engine(), _brain.DeploymentBrain("d", Settings())

    def looked() -> int:
        stats = asyncio.run(engine.record_routing_stats())
        brain.sync([replica_of("r", routing_stats=stats)])
        reports: int = brain.counters()["reports"]
        return reports

    reports = []
    for engine.running in (1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0):
        reports.append(looked())
    assert reports == [1, 2, 3, 4, 4, 4, 5]


def test_an_engine_is_told_with_routing_stats_where_ray_takes_no_metadata() -> None:
    told = EngineSignals()
    told.tell_engine(kv_events="tcp://h:1")
    stats = asyncio.run(told.record_routing_stats())
    assert endpoint_of(SimpleNamespace(routing_stats=stats), Settings()) == {
        "kv_events": "tcp://h:1"
    }
    told.record_replica_metadata()
    assert asyncio.run(told.record_routing_stats()) == {"llmd_sched": {}}


def test_an_engine_that_cannot_be_told_is_named() -> None:
    with pytest.raises(TypeError, match=r"unknown \['endpoint'\]: an engine is told by kv_events"):
        EngineSignals().tell_engine(endpoint="tcp://h:1")
    with pytest.raises(RuntimeError, match=r"call tell_engine\(\) in __init__"):
        EngineSignals().record_replica_metadata()
    with (
        embedded_engine("--kv-blocks", "256", "--data-parallel-size", "2") as engine,
        pytest.raises(EngineError, match="has 2 data-parallel ranks"),
    ):
        EngineSignals().tell_engine(engine.url)


def test_a_policy_of_the_configuration_is_followed() -> None:
    config = {"schedule": {"profile": "lmetric"}}
    assert Settings.of({"config": config}).policy is None
    brain = _brain.DeploymentBrain("d", Settings.of({"config": config}))
    assert brain.router.config()["schedule"]["profile"] == "lmetric"


def test_first_tokens_are_guessed_unless_somebody_tells_them() -> None:
    def first_tokens(config: dict[str, Any]) -> str:
        brain = _brain.DeploymentBrain("d", Settings.of({"config": config}))
        found: str = brain.router.config()["fleet"]["first_tokens"]
        return found

    assert first_tokens({}) == "guessed"
    assert first_tokens({"fleet": {"max_peers": 8}}) == "guessed"
    assert first_tokens({"fleet": {"first_tokens": "told"}}) == "told"


def test_what_ray_never_says_is_over_is_not_kept_for_ever(
    monkeypatch: pytest.MonkeyPatch, loop: asyncio.AbstractEventLoop
) -> None:
    now_s = 0.0
    clock = SimpleNamespace(monotonic=lambda: now_s, thread_time_ns=time.thread_time_ns)
    monkeypatch.setattr(_brain, "time", clock)
    brain = _brain.DeploymentBrain("d", Settings(config={"fleet": {"lease_ms": 60_000}}))
    replica = replica_of("r")
    brain.sync([replica])

    def pick(request_id: str) -> None:
        call = sent(loop, request_id)
        ranks = brain.rank([replica], call, lambda replicas: replicas)
        assert ranks == [[replica], [replica]]
        assert call.routing_context.should_backoff

    def pick_until_clocks_are_looked_at(name: str) -> None:
        for number in range(_brain.CLOCKED_PICKS):
            pick(f"{name}{number}")

    # Nobody is forgotten before 60 s; whoever was booked in one lease is when the next is over.
    booked = []
    for now_s in (0.0, 59.0, 60.0, 119.0, 120.0, 180.0):
        pick_until_clocks_are_looked_at(f"{now_s} ")
        booked.append(brain.counters()["booked"])
    assert booked == [16, 32, 48 - 15, 49, 65 - 32, 49 - 32]
    assert brain.router.endpoints()[0].inflight_requests == booked[-1]
    assert brain.counters()["fallbacks"] == 0


class Result:
    """What Ray has of a request that was sent."""

    def __init__(self) -> None:
        self.ended: list[Any] = []

    def add_done_callback(self, callback: Any) -> None:
        self.ended.append(callback)


def sent(loop: asyncio.AbstractEventLoop, request_id: str) -> Any:
    call = pending({"prompt": "once upon a time"})
    call.metadata.internal_request_id = request_id
    call.routing_context = SimpleNamespace(should_backoff=False)
    call.future = loop.create_future()
    return call


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def loads(brain: _brain.DeploymentBrain) -> dict[str, int]:
    return {it.address: it.inflight_requests for it in brain.router.endpoints()}


def test_a_request_is_booked_where_a_replica_took_it(loop: asyncio.AbstractEventLoop) -> None:
    brain = _brain.DeploymentBrain("d", Settings())
    one, other = replica_of("one"), replica_of("other")
    brain.sync([one, other])
    call, result = sent(loop, "a"), Result()
    # Ray had another request's pick for it.
    brain.taken(call, one.replica_id, result)
    assert loads(brain) == {"one": 1, "other": 0}
    brain.taken(call, one.replica_id, result)
    assert loads(brain) == {"one": 1, "other": 0}
    brain.taken(call, other.replica_id, result)
    assert loads(brain) == {"one": 0, "other": 1}
    brain.completed(other.replica_id, "a")
    assert loads(brain) == {"one": 0, "other": 0}
    assert brain.counters()["fallbacks"] == 0


def test_an_end_may_be_told_of_before_its_beginning(loop: asyncio.AbstractEventLoop) -> None:
    brain = _brain.DeploymentBrain("d", Settings())
    one = replica_of("one")
    brain.sync([one])
    short = sent(loop, "short")
    brain.rank([one], short, lambda replicas: replicas)
    short.future.set_result(one)
    loop.run_until_complete(asyncio.sleep(0))
    brain.completed(one.replica_id, "short")
    brain.taken(short, one.replica_id, Result())
    assert (loads(brain), brain.counters()["moved"]) == ({"one": 0}, 0)
    # The same of one that was given another's pick: what Ray has of it tells its end again.
    unasked, result = sent(loop, "unasked"), Result()
    brain.completed(one.replica_id, "unasked")
    brain.taken(unasked, one.replica_id, result)
    assert (loads(brain), brain.counters()["moved"]) == ({"one": 1}, 1)
    for told in result.ended:
        told(None)
    loop.run_until_complete(asyncio.sleep(0))
    assert (loads(brain), brain.counters()["booked"]) == ({"one": 0}, 0)


def test_an_end_that_ray_does_not_tell_is_followed(loop: asyncio.AbstractEventLoop) -> None:
    brain = _brain.DeploymentBrain("d", Settings())
    one = replica_of("one")
    brain.sync([one])
    call, result = sent(loop, "a"), Result()
    brain.rank([one], call, lambda replicas: replicas)
    brain.taken(call, one.replica_id, result, follow=True)
    assert loads(brain) == {"one": 1}
    for told in result.ended:
        told(None)
    loop.run_until_complete(asyncio.sleep(0))
    assert loads(brain) == {"one": 0}


def test_a_request_that_was_turned_away_is_booked_where_it_went_then(
    loop: asyncio.AbstractEventLoop,
) -> None:
    brain = _brain.DeploymentBrain("d", Settings())
    one = replica_of("one")
    brain.sync([one])
    call = sent(loop, "a")
    brain.rank([one], call, lambda replicas: replicas)
    call.future.set_result(one)
    loop.run_until_complete(asyncio.sleep(0))
    # Turned away: Ray calls that an end too, and tries again with another future.
    brain.completed(one.replica_id, "a")
    call.future = loop.create_future()
    brain.taken(call, one.replica_id, Result())
    assert loads(brain) == {"one": 1}


def test_requests_made_in_the_course_of_one_are_booked_apart(
    loop: asyncio.AbstractEventLoop,
) -> None:
    brain = _brain.DeploymentBrain("d", Settings())
    one, other = replica_of("one"), replica_of("other")
    brain.sync([one, other])
    calls = [sent(loop, "parent") for _ in range(4)]
    for call, replica in zip(calls, [one, other, one, other], strict=True):
        brain.rank([replica], call, lambda replicas: replicas)
        call.future.set_result(replica)
    loop.run_until_complete(asyncio.sleep(0))
    for call, replica in zip(calls, [one, other, one, other], strict=True):
        brain.taken(call, replica.replica_id, Result())
    assert loads(brain) == {"one": 2, "other": 2}
    assert (brain.counters()["picks"], brain.counters()["repicks"]) == (4, 0)
    # One is turned away after all, and asked for again: it is the same request.
    again = sent(loop, "parent")
    brain.rank([one, other], again, lambda replicas: replicas)
    brain.rank([other], again, lambda replicas: replicas)
    assert (loads(brain), brain.counters()["repicks"]) == ({"one": 2, "other": 3}, 1)
    again.future.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    for replica in (other, one, one, other, other):
        brain.completed(replica.replica_id, "parent")
    assert (loads(brain), brain.counters()["booked"]) == ({"one": 0, "other": 0}, 0)
    assert brain.counters()["fallbacks"] == 0
