"""Threads, asyncio and fork."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest
from llmd_sched import Decision, NoEndpointError, Router, RouterClosedError, replay

pytestmark = pytest.mark.timeout(60)
PROMPT = np.arange(512, dtype=np.uint32)


def inflight(router: Router) -> int:
    return sum(endpoint.inflight_requests for endpoint in router.endpoints())


def test_no_thread_starts_before_one_is_needed() -> None:
    program = (
        "import os, numpy\n"
        "threads = lambda: len(os.listdir('/proc/self/task'))\n"
        "before = threads()\n"
        "import llmd_sched\n"
        "router = llmd_sched.Router()\n"
        "router.add_endpoint('http://a')\n"
        "router.explain([1])\n"
        "print(threads() - before)\n"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert said.stdout == "0\n", said.stderr


def test_many_threads_share_a_router(router: Router) -> None:
    router.add_scorer("even", lambda features: np.full(len(features), 0.5))

    def work(thread: int) -> int:
        for request in range(50):
            prompt = np.arange(request, request + 256, dtype=np.uint32)
            with router.route(prompt, session_id=f"{thread}") as decision:
                router.first_token(decision)
                router.progress(decision, 3)
            router.explain(prompt)
            router.endpoints()
        return thread

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == list(range(8))
    requests = router.stats()["requests"]
    assert (requests["decisions"], requests["finished"]) == (400, 400)
    assert inflight(router) == 0


def test_endpoints_come_and_go_under_load() -> None:
    with Router() as router:
        router.add_endpoint("http://stays")
        stop = threading.Event()

        def churn() -> None:
            while not stop.is_set():
                router.add_endpoint("http://comes-and-goes")
                router.remove_endpoint("http://comes-and-goes")

        churner = threading.Thread(target=churn)
        churner.start()
        try:
            decisions = [router.route(PROMPT) for _ in range(2000)]
        finally:
            stop.set()
            churner.join()
        assert {it.address for it in decisions} <= {"http://stays", "http://comes-and-goes"}
        for decision in decisions:
            router.finish(decision)
        assert inflight(router) == 0


def test_a_held_request_waits_in_its_thread_without_the_gil(router: Router) -> None:
    for endpoint in router.endpoints():
        router.cordon(endpoint)
    routed: list[Decision] = []
    waiting = threading.Thread(target=lambda: routed.append(router.route(PROMPT, hold_ms=30_000)))
    waiting.start()
    while router.stats()["requests"]["holding_now"] == 0:
        time.sleep(0.001)
    router.uncordon("http://b")
    waiting.join()
    assert routed[0].address == "http://b"
    assert inflight(router) == 1


def test_a_held_request_gives_up_at_its_deadline(router: Router) -> None:
    for endpoint in router.endpoints():
        router.cordon(endpoint)
    with pytest.raises(NoEndpointError, match="held for 20 ms") as expired:
        router.route(PROMPT, hold_ms=20)
    assert expired.value.reason == "hold-expired"
    assert router.stats()["requests"]["holding_now"] == 0


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Python's own SIGINT handler: a background job starts with the signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_withdraws_a_held_request(router: Router) -> None:
    for endpoint in router.endpoints():
        router.cordon(endpoint)

    def interrupt() -> None:
        while router.stats()["requests"]["holding_now"] == 0:
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        router.route(PROMPT, hold_ms=30_000)
    interrupter.join()
    assert router.stats()["requests"]["holding_now"] == 0


def test_closing_turns_held_requests_away(router: Router) -> None:
    for endpoint in router.endpoints():
        router.cordon(endpoint)

    async def held() -> None:
        waiting = [router.route_async(PROMPT, hold_ms=30_000) for _ in range(3)]
        await asyncio.to_thread(router.close)
        for future in waiting:
            with pytest.raises(NoEndpointError) as closed:
                await future
            assert closed.value.reason == "closed"

    asyncio.run(held())


def test_a_future_is_done_at_once_where_there_is_a_place(router: Router) -> None:
    async def main() -> None:
        future = router.route_async(PROMPT)
        assert future.done()
        assert (await future).address in ("http://a", "http://b")

    asyncio.run(main())


def test_mistakes_raise_from_the_call_itself(router: Router) -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="the prompt is empty"):
            router.route_async([])

    asyncio.run(main())
    with pytest.raises(RuntimeError, match="no running event loop"):
        router.route_async(PROMPT)
    assert router.stats()["requests"]["decisions"] == 0


def test_a_loop_is_woken_once_for_a_batch(router: Router) -> None:
    for endpoint in router.endpoints():
        router.cordon(endpoint)

    async def main() -> tuple[list[Decision], int]:
        loop = asyncio.get_running_loop()
        wakes = 0
        original = loop.call_soon_threadsafe

        def counted(callback: Callable[[], object], *args: object) -> asyncio.Handle:
            nonlocal wakes
            wakes += 1
            return original(callback, *args)

        loop.call_soon_threadsafe = counted  # type: ignore[method-assign,assignment]
        futures = [router.route_async(PROMPT, hold_ms=30_000) for _ in range(200)]
        assert not any(future.done() for future in futures)
        router.uncordon("http://a")
        return list(await asyncio.gather(*futures)), wakes

    decisions, wakes = asyncio.run(main())
    assert {it.address for it in decisions} == {"http://a"}
    assert len({it.ticket for it in decisions}) == 200
    assert wakes == 1
    assert inflight(router) == 200


def test_a_cancelled_future_withdraws_its_request(router: Router) -> None:
    for endpoint in router.endpoints():
        router.cordon(endpoint)

    async def main() -> None:
        future = router.route_async(PROMPT, hold_ms=30_000)
        task = asyncio.ensure_future(asyncio.wait_for(future, 0.01))
        with pytest.raises(asyncio.TimeoutError):
            await task
        await asyncio.sleep(0)
        assert router.stats()["requests"]["holding_now"] == 0
        router.uncordon("http://a")

    asyncio.run(main())
    assert inflight(router) == 0


def test_a_request_let_go_while_its_future_is_cancelled_is_not_booked_for_ever(
    router: Router,
) -> None:
    for endpoint in router.endpoints():
        router.cordon(endpoint)

    async def main() -> None:
        futures = [router.route_async(PROMPT, hold_ms=30_000) for _ in range(20)]
        router.uncordon("http://a")
        for future in futures:
            future.cancel()
        while inflight(router):
            await asyncio.sleep(0.001)

    asyncio.run(main())


def test_a_loop_that_was_closed_is_not_waited_for(router: Router) -> None:
    for endpoint in router.endpoints():
        router.cordon(endpoint)

    async def leave_behind() -> None:
        router.route_async(PROMPT, hold_ms=30_000)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(leave_behind())
    loop.close()
    router.uncordon("http://a")
    while inflight(router):
        time.sleep(0.001)


def in_child(work: Callable[[Connection], None]) -> object:
    """What ``work`` sends from a forked child."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    with warnings.catch_warnings():
        # That threads do not survive a fork is what is tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = context.Process(target=work, args=(theirs,))
        child.start()
    assert ours.poll(30), "the child says nothing"
    said = ours.recv()
    child.join(30)
    assert child.exitcode == 0
    return said


def test_a_child_has_the_same_endpoints_and_nothing_in_flight(router: Router) -> None:
    router.cordon("http://a")
    kept = router.route(PROMPT)

    def work(pipe: Connection) -> None:
        before = [(it.address, it.health, it.inflight_requests) for it in router.endpoints()]
        decision = router.route(PROMPT)
        router.finish(decision)
        asyncio.run(hold(router))
        pipe.send((before, decision.matched_tokens))

    endpoints, matched = in_child(work)  # type: ignore[misc]
    assert endpoints == [("http://a", "ready", 0), ("http://b", "ready", 0)]
    assert matched == 0
    assert inflight(router) == 1
    assert router.finish(kept)


async def hold(router: Router) -> None:
    """Needs the child's own timer and waker."""
    for endpoint in router.endpoints():
        router.cordon(endpoint)
    with pytest.raises(NoEndpointError, match="held for 20 ms"):
        await router.route_async(PROMPT, hold_ms=20)


def test_a_fork_amid_threads_that_route(router: Router) -> None:
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            router.finish(router.route(PROMPT))

    def work(pipe: Connection) -> None:
        for _ in range(100):
            router.finish(router.route(PROMPT))
        pipe.send(router.stats()["requests"]["decisions"])

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        assert [in_child(work) for _ in range(5)] == [100] * 5
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_a_grandchild_works_where_its_parent_never_routed(router: Router) -> None:
    def child(pipe: Connection) -> None:
        def grandchild(inner: Connection) -> None:
            inner.send(router.route(PROMPT).address)

        pipe.send(in_child(grandchild))

    assert in_child(child) in ("http://a", "http://b")


def test_a_child_of_a_closed_router_has_a_closed_router(router: Router) -> None:
    router.close()

    def work(pipe: Connection) -> None:
        try:
            router.route(PROMPT)
        except RouterClosedError as error:
            pipe.send(str(error))

    assert in_child(work) == "the router is closed: make a new one"


def test_a_child_records_into_a_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "decisions.log"
    router = Router(record=path)
    router.add_endpoint("http://a")
    router.route(PROMPT)

    def work(pipe: Connection) -> None:
        router.route(PROMPT)
        router.close()
        pipe.send(os.getpid())

    pid = in_child(work)
    router.close()
    assert replay(path).decisions == 1
    assert replay(f"{path}.{pid}").decisions == 1
