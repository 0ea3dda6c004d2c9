"""Waiting for a place: `Router.acquire`, tenants, deadlines, and what a rejection says."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import numpy as np
import pytest
from llmd_sched import (
    Decision,
    NoEndpointError,
    PromptError,
    Router,
    UnknownEndpointError,
    request_options,
)

pytestmark = pytest.mark.timeout(120)
PROMPT = np.arange(64, dtype=np.uint32)
WAITERS = 10_000


def requests(router: Router) -> dict[str, int]:
    return dict(router.stats()["requests"])


def inflight(router: Router) -> int:
    return sum(endpoint.inflight_requests for endpoint in router.endpoints())


async def begin(router: Router, **options: Any) -> asyncio.Task[Decision]:
    """One that has asked for a place."""
    task = asyncio.ensure_future(router.acquire(PROMPT, **options))
    await asyncio.sleep(0)
    return task


def busy_router(**flow: object) -> Router:
    """One endpoint that runs two requests at a time; who comes later waits for a turn."""
    router = Router({"flow": {"turns": {"wait": "always"}, **flow}})
    router.add_endpoint("http://a", capacity={"max_running_requests": 2})
    return router


def test_a_decision_is_an_asynchronous_context_too() -> None:
    with busy_router() as router:

        async def main() -> None:
            async with await router.acquire(PROMPT) as decision:
                assert decision.address == "http://a"
                assert inflight(router) == 1
            assert inflight(router) == 0
            with pytest.raises(ValueError, match="mine"):
                async with await router.acquire(PROMPT):
                    raise ValueError("mine")

        asyncio.run(main())
        assert (inflight(router), requests(router)["cancelled"]) == (0, 1)


def test_an_end_lets_the_next_one_go() -> None:
    with busy_router() as router:

        async def main() -> None:
            first, second = [await router.acquire(PROMPT) for _ in range(2)]
            third = await begin(router)
            assert not third.done()
            assert requests(router)["holding_now"] == 1
            router.finish(first, 3)
            decision = await third
            assert inflight(router) == 2
            router.finish(second, 1)
            router.finish(decision, 1)

        asyncio.run(main())


def test_turns_are_by_priority_then_fair_between_tenants() -> None:
    with busy_router() as router:

        async def main() -> None:
            running = [await router.acquire(PROMPT) for _ in range(2)]
            order: list[str] = []
            waiting = []
            for tenant, priority, count in [("flood", 0, 6), ("quiet", 0, 2), ("urgent", 1, 1)]:
                for _ in range(count):
                    task = await begin(router, tenant=tenant, priority=priority)
                    task.set_name(tenant)
                    waiting.append(task)
            for _ in range(len(waiting)):
                router.finish(running.pop(0), 1)
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                (task,) = done
                order.append(task.get_name())
                waiting.remove(task)
                running.append(await task)
            assert order[0] == "urgent"
            assert sorted(order[1:5]) == ["flood", "flood", "quiet", "quiet"]
            assert order[5:] == ["flood"] * 4

        asyncio.run(main())


def test_a_rejection_says_whether_to_come_again() -> None:
    with busy_router(max_held_requests=1) as router:

        async def main() -> None:
            for _ in range(2):
                await router.acquire(PROMPT)
            batch = await begin(router, priority=-1)
            with pytest.raises(NoEndpointError) as full:
                await router.acquire(PROMPT, priority=-1)
            assert (full.value.reason, full.value.status) == ("not-held", 429)
            assert (full.value.retry_after_ms or 0) >= 100
            batch.cancel()

        asyncio.run(main())
        with pytest.raises(NoEndpointError) as nobody:
            router.route(PROMPT, model="another", required_labels={"gpu": "b200"})
        assert (nobody.value.status, nobody.value.retry_after_ms) == (503, None)


def test_the_least_important_makes_room() -> None:
    with busy_router(max_held_requests=1) as router:

        async def main() -> None:
            for _ in range(2):
                await router.acquire(PROMPT)
            batch = await begin(router, priority=-1)
            chat = await begin(router)
            with pytest.raises(NoEndpointError, match="made room for another") as shed:
                await batch
            assert (shed.value.reason, shed.value.status) == ("shed", 429)
            assert not chat.done()
            chat.cancel()

        asyncio.run(main())


def test_a_task_that_is_cancelled_as_it_is_let_go_leaves_nothing_booked() -> None:
    with busy_router() as router:

        async def main() -> None:
            running = [await router.acquire(PROMPT) for _ in range(2)]
            waiting = router.acquire(PROMPT)
            future = waiting.send(None)
            router.finish(running.pop(), 1)
            await asyncio.wait([future])
            assert inflight(router) == 2
            # As a task does that is cancelled when its future is done and it has not run since.
            with pytest.raises(asyncio.CancelledError):
                waiting.throw(asyncio.CancelledError())
            assert inflight(router) == 1
            router.finish(running.pop(), 1)

        asyncio.run(main())
        assert inflight(router) == 0


def test_nobody_is_held_past_its_deadline() -> None:
    with busy_router() as router:

        async def main() -> None:
            for _ in range(2):
                await router.acquire(PROMPT)
            with pytest.raises(NoEndpointError, match="after 20 ms") as late:
                await router.acquire(PROMPT, deadline_ms=20)
            assert (late.value.reason, late.value.status) == ("deadline-passed", 429)

        asyncio.run(main())


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_ten_thousand_wait_while_tasks_are_cancelled_and_endpoints_die(seed: int) -> None:
    """Every waiter ends in one way, and nothing stays booked or held."""
    rng = random.Random(seed)
    config = {"flow": {"turns": {"wait": "always"}, "when_held_too_long": "reject"}}
    with Router(config, seed=seed) as router:
        joined = 0

        def join() -> str:
            nonlocal joined
            joined += 1
            address = f"http://{joined}"
            router.add_endpoint(address, capacity={"max_running_requests": 40})
            return address

        fleet = [join() for _ in range(4)]

        async def one(number: int) -> str:
            prompt = np.arange(number % 50, number % 50 + 32, dtype=np.uint32)
            tenant = f"t{number % 7}"
            try:
                decision = await router.acquire(
                    prompt, tenant=tenant, priority=number % 3 - 1, hold_ms=100_000
                )
            except NoEndpointError as error:
                return error.reason
            except UnknownEndpointError:
                return "lost with its endpoint"
            assert isinstance(decision, Decision)
            try:
                for tokens in range(1, rng.randrange(2, 5)):
                    await asyncio.sleep(0)
                    router.progress(decision, tokens)
            except asyncio.CancelledError:
                router.cancel(decision)
                raise
            return "served" if router.finish(decision) else "lost with its endpoint"

        async def main() -> Counter[str]:
            tasks = [asyncio.ensure_future(one(number)) for number in range(WAITERS)]
            await asyncio.sleep(0)
            assert requests(router)["holding_now"] > 9_000
            for victim in rng.sample(range(WAITERS), 2_000):
                tasks[victim].cancel()
                if rng.random() < 0.01:
                    router.remove_endpoint(fleet.pop(rng.randrange(len(fleet))))
                    fleet.append(join())
                if rng.random() < 0.05:
                    await asyncio.sleep(0)
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            return Counter(end if isinstance(end, str) else type(end).__name__ for end in ends)

        ends = asyncio.run(main())
        assert set(ends) <= {"served", "lost with its endpoint", "CancelledError"}
        assert sum(ends.values()) == WAITERS
        assert ends["served"] > 7_000
        counted = requests(router)
        assert (inflight(router), counted["holding_now"]) == (0, 0)
        assert counted["finished"] == ends["served"]


def test_headers_become_options() -> None:
    headers = [(b"X-SLO-TTFT-ms", b"250"), ("x-session-id", "s"), ("X-Priority", "-2")]
    options = request_options(headers)
    assert options == {"ttft_slo_ms": 250.0, "session_id": "s", "priority": -2}
    assert request_options({"x-max-hold-ms": "0"}) == {"hold_ms": 0}
    with pytest.raises(PromptError, match='header x-deadline-ms: "soon": give whole'):
        request_options({"x-deadline-ms": "soon"})
    with busy_router() as router:
        router.finish(router.route(PROMPT, **options))
