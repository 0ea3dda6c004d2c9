"""What a program reports of engines, and reads from them for a router elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
from embedded_engine import embedded_engine
from llmd_sched import (
    EndpointError,
    EngineError,
    Router,
    RouterClosedError,
    UnknownEndpointError,
    describe_engine,
    read_metrics,
)

pytestmark = pytest.mark.timeout(60)
PROMPT = list(range(1000))


def test_what_is_reported_is_what_the_endpoint_says(router: Router) -> None:
    router.report(
        "http://a",
        waiting_requests=3,
        running_requests=2.0,
        kv_usage=1.005,
        gpu_utilization=None,
        kv_blocks=128,
        block_size=16,
    )
    a = router.endpoint("http://a")
    assert (a.waiting_requests, a.running_requests, a.kv_usage) == (3.0, 2.0, 1.0)
    assert a.gpu_utilization is None
    assert (a.capacity["kv_blocks"], a.capacity["block_size"]) == (128, 16)
    router.report("http://a", kv_usage=0.5)
    a = router.endpoint("http://a")
    assert (a.waiting_requests, a.kv_usage) == (3.0, 0.5)
    assert router.endpoint("http://b").waiting_requests is None


def test_a_reported_queue_moves_requests() -> None:
    with Router(profile="llm-d") as router:
        for name in "ab":
            router.add_endpoint(f"http://{name}")
        router.report("http://a", waiting_requests=100, kv_usage=0.9)
        router.report("http://b", waiting_requests=0, kv_usage=0.0)
        routed = [router.route([turn] * 64).address for turn in range(8)]
        assert routed == ["http://b"] * 8


def test_a_reported_restart_voids_what_was_believed(router: Router) -> None:
    router.finish(router.route(PROMPT, allowed=["http://a"]))
    router.report("http://a", process_start_time_s=1e9)
    assert router.match(PROMPT).matched_tokens.max() == 992
    router.report("http://a", process_start_time_s=1e9 + 60)
    assert router.match(PROMPT).matched_tokens.max(initial=0) == 0
    assert router.stats()["requests"]["restarts"] == 1


@pytest.mark.parametrize(
    ("signals", "message"),
    [
        ({"kv_usage": 87}, r"endpoint http://a: kv_usage is 87: give a share, 0 to 1 \(not a perc"),
        ({"waiting_requests": -1}, "waiting_requests is -1: give a number from 0 on"),
        ({"running_requests": float("nan")}, "running_requests is nan"),
        ({"kv_blocks": 1.5}, "kv_blocks is 1.5: give an integer"),
        ({"block_size": 0}, "block_size is 0: give tokens, an integer from 1 on"),
        ({"running_loras": "sql"}, "running_loras is 'sql': give a list of names"),
    ],
)
def test_signals_that_cannot_be_are_named(
    router: Router, signals: dict[str, Any], message: str
) -> None:
    with pytest.raises(EndpointError, match=message):
        router.report("http://a", **signals)
    assert router.endpoint("http://a").waiting_requests is None


def test_who_reports_what_to_whom_is_checked(router: Router) -> None:
    with pytest.raises(TypeError, match='unknown signal "queue": the signals are waiting_requests'):
        router.report("http://a", queue=3)  # type: ignore[call-arg]
    with pytest.raises(UnknownEndpointError, match="http://c"):
        router.report("http://c", kv_usage=0.5)
    router.close()
    with pytest.raises(RouterClosedError):
        router.report("http://a", kv_usage=0.5)


def test_a_page_is_read_as_a_report(router: Router) -> None:
    page = (
        'vllm:num_requests_waiting{engine="0"} 3\n'
        'vllm:num_requests_waiting{engine="1"} 4\n'
        'vllm:kv_cache_usage_perc{engine="1"} 0.25\n'
        'vllm:lora_requests_info{max_lora="2",running_lora_adapters="a,b"} 1\n'
        "nonsense{\n"
    )
    assert read_metrics(page, dp_rank=1) == {
        "waiting_requests": 4.0,
        "kv_usage": 0.25,
        "running_loras": ["a", "b"],
        "max_loras": 2,
    }
    signals = read_metrics(page)
    assert signals["waiting_requests"] == 7.0
    router.report("http://a", **signals)
    assert router.endpoint("http://a").waiting_requests == 7.0


def test_an_engine_is_described_as_a_router_elsewhere_adds_it() -> None:
    arguments = ("--kv-blocks", "256", "--block-size", "16", "--lora", "sql")
    with embedded_engine(*arguments) as engine, Router() as router:
        (described,) = describe_engine(engine.url)
        assert described["address"] == engine.url
        assert (described["model"], described["loras"]) == ("m", ["sql"])
        assert described["capacity"]["kv_blocks"] == 256
        assert described["capacity"]["block_size"] == 16
        assert described["metrics"] == f"{engine.url}/metrics"
        endpoint = router.add_endpoint(**described)
        engine.complete(PROMPT)
        router.wait_kv(endpoint, 0)
        assert router.route(PROMPT).match_source == "exact"
    with pytest.raises(EngineError, match=engine.url):
        describe_engine(engine.url, timeout_s=2)


def test_each_rank_of_an_engine_is_described() -> None:
    arguments = ("--kv-blocks", "256", "--data-parallel-size", "2")
    with embedded_engine(*arguments) as engine:
        ranks = describe_engine(engine.url)
    assert [rank["dp_rank"] for rank in ranks] == [0, 1]
    assert ranks[0]["kv_events"] != ranks[1]["kv_events"]
