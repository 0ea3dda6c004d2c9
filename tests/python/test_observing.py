"""A router that follows engines: real sockets, the embedded engine, pages that a test writes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from embedded_engine import EmbeddedEngine, embedded_engine
from llmd_sched import (
    Endpoint,
    EndpointError,
    EngineError,
    KvTimeoutError,
    Router,
    RouterClosedError,
    UnknownEndpointError,
)

pytestmark = pytest.mark.timeout(60)
PROMPT = list(range(1000))


def until(condition: Callable[[], bool]) -> None:
    """Returns when the condition holds; the test's own timeout ends a vain wait."""
    while not condition():
        time.sleep(0.002)


@pytest.fixture
def engine() -> Iterator[EmbeddedEngine]:
    with embedded_engine("--kv-blocks", "256", "--block-size", "16") as engine:
        yield engine


def matched(router: Router, endpoint: Endpoint | str, tokens: list[int]) -> tuple[int, str]:
    matches = router.match(tokens)
    row = [it.id for it in matches.endpoints].index(router.endpoint(endpoint).id)
    return int(matches.matched_tokens[row]), matches.sources[row]


def test_an_engine_is_discovered_and_followed(engine: EmbeddedEngine) -> None:
    with Router() as router:
        (endpoint,) = router.discover(engine.url, labels={"pool": "a"})
        assert (endpoint.address, endpoint.model) == (engine.url, "m")
        assert endpoint.kv_source == "events"
        assert endpoint.labels == {"pool": "a"}
        assert endpoint.capacity["kv_blocks"] == 256
        assert endpoint.capacity["block_size"] == 16
        assert router.wait_kv_connected(endpoint).connected

        with router.route(PROMPT) as decision:
            engine.complete(PROMPT, headers=decision.headers)
        position = router.wait_kv(endpoint, 0)
        assert (position.sequence, position.gaps, position.losses) == (0, 0, 0)
        assert matched(router, endpoint, PROMPT) == (992, "exact")
        again = router.route(PROMPT)
        assert (again.matched_tokens, again.match_source) == (992, "exact")


def test_what_an_engine_did_before_it_was_known_is_replayed(engine: EmbeddedEngine) -> None:
    engine.complete(PROMPT)
    with Router() as router:
        (endpoint,) = router.discover(engine.url)
        router.wait_kv(endpoint, 0)
        assert matched(router, endpoint, PROMPT) == (992, "exact")


def test_metrics_arrive_and_age(engine: EmbeddedEngine) -> None:
    with Router() as router:
        (endpoint,) = router.discover(engine.url)
        assert router.endpoint(endpoint).waiting_requests == 0.0
        engine.complete(PROMPT)
        until(lambda: (router.endpoint(endpoint).kv_usage or 0) > 0 or is_idle(router, endpoint))
        assert router.stats()["metrics"]["failures"] == 0


def is_idle(router: Router, endpoint: Endpoint) -> bool:
    # An engine whose cached blocks count as free shows no usage when it is idle.
    return router.endpoint(endpoint).running_requests == 0.0


def test_a_reset_of_the_engines_cache_is_seen(engine: EmbeddedEngine) -> None:
    with Router() as router:
        (endpoint,) = router.discover(engine.url)
        engine.complete(PROMPT)
        router.wait_kv(endpoint, 0)
        engine.post("/reset_prefix_cache")
        # As vLLM does, it tells with the next request's events.
        engine.complete(PROMPT[::-1])
        router.wait_kv(endpoint, 1)
        assert matched(router, endpoint, PROMPT) == (0, "none")
        assert matched(router, endpoint, PROMPT[::-1]) == (992, "exact")


def test_an_engine_of_two_ranks_is_two_endpoints() -> None:
    arguments = ("--kv-blocks", "256", "--block-size", "16", "--data-parallel-size", "2")
    with embedded_engine(*arguments) as engine, Router() as router:
        first, second = router.discover(engine.url)
        assert [(it.address, it.dp_rank) for it in (first, second)] == [
            (engine.url, 0),
            (engine.url, 1),
        ]
        decision = router.route(PROMPT, allowed=[second])
        engine.complete(PROMPT, headers=decision.headers)
        router.wait_kv(second, 0)
        assert matched(router, first, PROMPT) == (0, "none")
        assert matched(router, second, PROMPT) == (992, "exact")
        with pytest.raises(UnknownEndpointError, match="2 ranks have the address"):
            router.kv_position(engine.url)


def test_an_engine_of_another_block_size_is_still_matched() -> None:
    with embedded_engine("--kv-blocks", "256", "--block-size", "32") as engine, Router() as router:
        (endpoint,) = router.discover(engine.url)
        engine.complete(PROMPT)
        router.wait_kv(endpoint, 0)
        assert router.block_size == 16
        assert matched(router, endpoint, PROMPT) == (992, "exact")


def test_an_engine_that_dies_is_routed_around_and_known_to_be_empty_when_it_is_back() -> None:
    arguments = ("--kv-blocks", "256", "--block-size", "16")
    with Router() as router:
        with embedded_engine(*arguments) as engine:
            (endpoint,) = router.discover(engine.url)
            engine.complete(PROMPT)
            router.wait_kv(endpoint, 0)
            port = int(engine.url.rsplit(":", 1)[1])
        until(lambda: not router.kv_position(endpoint).connected)
        assert router.kv_position(endpoint).last_error is not None
        router.set_reachable(endpoint, False)
        router.remove_endpoint(endpoint)
        with embedded_engine(*arguments, port=port) as engine:
            (successor,) = router.discover(engine.url)
            assert successor != endpoint
            assert matched(router, successor, PROMPT) == (0, "none")


def test_discovering_twice_adds_nothing(engine: EmbeddedEngine) -> None:
    with Router() as router:
        router.discover(engine.url)
        with pytest.raises(EndpointError, match="is already in the fleet"):
            router.discover(engine.url)
        assert len(router.endpoints()) == 1


def test_who_does_not_answer_is_not_discovered(router: Router) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(EngineError, match="did not answer within 50 ms"):
            router.discover(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_s=0.05)
    with pytest.raises(EngineError, match="cannot be reached"):
        router.discover("http://127.0.0.1:1")
    with pytest.raises(EngineError, match="http://"):
        router.discover("zmq://x")
    assert len(router.endpoints()) == 2


def test_waiting_for_what_does_not_come_ends(engine: EmbeddedEngine) -> None:
    with Router() as router:
        (endpoint,) = router.discover(engine.url)
        with pytest.raises(KvTimeoutError, match=r"no sequence 7 within 0\.05 s, but KvPosition"):
            router.wait_kv(endpoint, 7, timeout_s=0.05)
        router.add_endpoint("http://silent")
        with pytest.raises(EndpointError, match="no KV events: add it with kv_events"):
            router.kv_position("http://silent")


def test_closing_ends_a_wait(engine: EmbeddedEngine) -> None:
    router = Router()
    (endpoint,) = router.discover(engine.url)
    closer = threading.Timer(0.05, router.close)
    closer.start()
    with pytest.raises((RouterClosedError, EndpointError)):
        router.wait_kv(endpoint, 7, timeout_s=30)
    closer.join()


class Pages:
    """Metrics pages that a test may change."""

    def __init__(self) -> None:
        self.pages: dict[str, str] = {}
        pages = self.pages

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = pages[self.path].encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    @contextmanager
    def served(self) -> Iterator[Pages]:
        thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            thread.join()
            self.server.server_close()


@pytest.fixture
def pages() -> Iterator[Pages]:
    with Pages().served() as pages:
        yield pages


def gpu_page(**busy: float) -> str:
    lines = [f'DCGM_FI_DEV_GPU_UTIL{{gpu="{gpu[-1]}"}} {busy[gpu]}' for gpu in busy]
    # The exporter's own process, which is not the engine's.
    return "\n".join([*lines, f"process_start_time_seconds {time.time()}", ""])


def test_a_gpu_that_a_foreign_process_keeps_busy_loses_traffic(pages: Pages) -> None:
    pages.pages["/gpus"] = gpu_page(gpu0=95, gpu1=5)
    profile = {"scorers": ["gpu-utilization-scorer"]}
    config = {"schedule": {"profile": profile}, "observe": {"metrics_interval_ms": 5}}
    with Router(config) as router:
        for gpu in range(2):
            router.add_endpoint(
                f"http://{gpu}", gpu_metrics=f"{pages.url}/gpus", gpu_labels={"gpu": str(gpu)}
            )
        until(lambda: [it.gpu_utilization for it in router.endpoints()] == [0.95, 0.05])
        assert {router.route([i]).address for i in range(8)} == {"http://1"}
        pages.pages["/gpus"] = gpu_page(gpu0=5, gpu1=95)
        until(lambda: router.endpoint("http://1").gpu_utilization == 0.95)
        assert {router.route([i]).address for i in range(8)} == {"http://0"}
        assert router.stats()["requests"]["restarts"] == 0


def test_ranks_share_one_reading_of_their_page(pages: Pages) -> None:
    pages.pages["/metrics"] = "".join(
        f'vllm:num_requests_waiting{{engine="{rank}"}} {rank + 1}\n' for rank in range(3)
    )
    with Router() as router:
        for rank in range(3):
            router.add_endpoint(pages.url, dp_rank=rank, metrics=True)
        until(lambda: [it.waiting_requests for it in router.endpoints()] == [1.0, 2.0, 3.0])
        first = router.endpoints()[0]
        router.remove_endpoint(first)
        pages.pages["/metrics"] = 'vllm:num_requests_waiting{engine="1"} 9\n'
        until(lambda: router.endpoints()[0].waiting_requests == 9.0)


def test_metrics_of_a_restarted_engine_void_what_was_believed(pages: Pages) -> None:
    page = "vllm:num_requests_running {}\nprocess_start_time_seconds {}\n"
    pages.pages["/metrics"] = page.format(1, 1000)
    config = {"observe": {"metrics_interval_ms": 5}}
    with Router(config) as router:
        endpoint = router.add_endpoint(pages.url, model="m", metrics=True)
        router.finish(router.route(PROMPT))
        until(lambda: router.endpoint(endpoint).running_requests == 1.0)
        assert router.endpoint(endpoint).held_blocks == 62
        pages.pages["/metrics"] = page.format(2, 2000)
        until(lambda: router.endpoint(endpoint).running_requests == 2.0)
        assert router.stats()["requests"]["restarts"] == 1
        until(lambda: router.endpoint(endpoint).held_blocks == 0)
        assert matched(router, endpoint, PROMPT) == (0, "none")
