"""What the router believes of real engines is what the engines themselves count.

The rule that ties the two numbers together: vLLM always computes the last token of a prompt,
because it needs its logits, and it reuses whole blocks only. So of a match of m tokens it reuses,
and counts in vllm:prefix_cache_hits_total,

    hits = min(m, floor((prompt_tokens - 1) / block) * block)

(v1/core/kv_cache_manager.py, get_computed_blocks). The two differ, by one block, only when the
whole prompt is resident and ends on a block boundary.

The barrier after each request: the router's subscription stands at the last sequence that the
engine's replay socket knows. vLLM queues a step's events before it answers with the step's tokens,
so an answered request has all its events in that sequence.
"""

import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException

import llmd_sched
import pytest
from lossy_proxy import LossyProxy
from vllm_engine import Completion, VllmEngine
from zmtp import replay, settled_sequence

BLOCK = 32
# Longer than a subscriber waits between two tries to connect, and than an engine's scheduler on a
# busy machine.
SETTLE_S = 60.0


def reused_of(matched_tokens: int, prompt_tokens: int) -> int:
    return min(matched_tokens, (prompt_tokens - 1) // BLOCK * BLOCK)


class Fleet:
    """A router that follows engines, and the means to compare its beliefs with their counters."""

    def __init__(self, engines: list[VllmEngine]) -> None:
        self.router = llmd_sched.Router(block_size=BLOCK, seed=1)
        self.engines = {engine.url: engine for engine in engines}

    def discover(self, engine: VllmEngine) -> None:
        (endpoint,) = self.router.discover(engine.url)
        assert endpoint.kv_source == "events"
        self.settle(engine)

    def settle(self, engine: VllmEngine) -> None:
        """Returns when the subscription stands where the engine does."""
        last = settled_sequence(engine.replay_ports[0])
        wanted = None if last < 0 else last
        deadline = time.monotonic() + SETTLE_S
        # An engine that restarted counts from 0 again: then the position has to come down, which no
        # wait for a higher sequence can express.
        while (position := self.router.kv_position(engine.url)).sequence != wanted:
            assert time.monotonic() < deadline, (
                f"{engine.url} published up to {wanted}, the router stands at {position}"
            )
            time.sleep(0.01)

    def believed(self, engine: VllmEngine, tokens: list[int]) -> int:
        matches = self.router.match(tokens)
        rows = [endpoint.address for endpoint in matches.endpoints]
        return int(matches.matched_tokens[rows.index(engine.url)])

    def chat(self, tokens: list[int], max_tokens: int) -> tuple[VllmEngine, Completion]:
        """Routes and serves one request, and compares what was decided with what then happened."""
        decision = self.router.route(tokens)
        engine = self.engines[decision.address]
        before = engine.prefix_cache_hits()
        done = engine.complete(tokens, max_tokens, headers=decision.headers)
        self.router.first_token(decision)
        self.router.finish(decision, max_tokens)
        self.settle(engine)
        assert engine.prefix_cache_hits() - before == reused_of(
            decision.matched_tokens, len(tokens)
        )
        return engine, done

    def assert_agrees(self, engine: VllmEngine, prompts: list[list[int]]) -> list[int]:
        """Asks the engine itself, past the router, and returns what it reused of each prompt."""
        self.settle(engine)
        reused = []
        for tokens in prompts:
            believed = self.believed(engine, tokens)
            before = engine.prefix_cache_hits()
            engine.complete(tokens, 1)
            reused.append(engine.prefix_cache_hits() - before)
            assert reused[-1] == reused_of(believed, len(tokens))
            self.settle(engine)
        return reused


class Conversation:
    """A chat whose prompt grows by the engine's real answers."""

    def __init__(self, system_prompt: list[int], seed: int) -> None:
        self.random = random.Random(seed)
        self.history = list(system_prompt)

    def next_prompt(self) -> list[int]:
        self.history += random_tokens(self.random, self.random.randrange(40, 110))
        return self.history

    def answered(self, tokens: list[int]) -> None:
        self.history += tokens


def random_tokens(source: random.Random, count: int) -> list[int]:
    return [source.randrange(5, 1000) for _ in range(count)]


def prompts_of(seed: int, *lengths: int) -> list[list[int]]:
    source = random.Random(seed)
    return [random_tokens(source, length) for length in lengths]


@pytest.fixture
def fleet(vllm_pair: tuple[VllmEngine, VllmEngine]) -> Iterator[Fleet]:
    """A router that joins late: it learns what the engines hold from their replay sockets."""
    fleet = Fleet(list(vllm_pair))
    with fleet.router:
        for engine in vllm_pair:
            fleet.discover(engine)
        yield fleet


def test_matched_tokens_equal_the_engines_own_hits_over_forty_turns(fleet: Fleet) -> None:
    system_prompts = prompts_of(1, 96, 130, 150, 64, 200)
    conversations = [Conversation(system_prompts[index % 5], seed=index) for index in range(10)]
    hits_before = {url: engine.prefix_cache_hits() for url, engine in fleet.engines.items()}
    served = dict.fromkeys(fleet.engines, 0)

    for _turn in range(4):
        for conversation in conversations:
            engine, done = fleet.chat(conversation.next_prompt(), max_tokens=24)
            conversation.answered(done.token_ids)
            served[engine.url] += 1

    assert sum(served.values()) == 40
    for url, engine in fleet.engines.items():
        # Otherwise the run would have shown less than it claims: neither reuse nor eviction.
        assert served[url] > 0
        assert engine.prefix_cache_hits() > hits_before[url]
        assert any(b"BlockRemoved" in payload for _, _, payload in replay(engine.replay_ports[0]))


def test_every_copy_of_a_block_is_counted(fleet: Fleet, vllm_single: VllmEngine) -> None:
    """Each time that a prompt ends on a block boundary, its last block gets one more copy."""
    (boundary,) = prompts_of(2, 2 * BLOCK)
    longer = [*boundary, 7]

    reused = fleet.assert_agrees(vllm_single, [boundary, boundary, boundary, longer])

    assert reused == [0, BLOCK, BLOCK, 2 * BLOCK]
    # Other prompts push the copies out that nobody uses, but not the one that is asked for again
    # and again. An index that forgets a block with the first copy that goes has lost it by then.
    for seed in range(100, 108):
        fleet.assert_agrees(vllm_single, prompts_of(seed, 8 * BLOCK))
        assert fleet.assert_agrees(vllm_single, [longer]) == [2 * BLOCK]
    # And with the last copy it has to go.
    fleet.assert_agrees(vllm_single, prompts_of(108, *[8 * BLOCK] * 8))
    assert fleet.believed(vllm_single, longer) == 0


def test_requests_at_once_leave_the_index_exact(fleet: Fleet, vllm_single: VllmEngine) -> None:
    """Requests that run side by side compute the same blocks twice, and preempt each other."""
    (shared,) = prompts_of(9, 70)
    prompts = [shared + tail for tail in prompts_of(10, 26, 26, 58, 90)]
    for tail in range(4):
        prompts.append(prompts[tail])

    with ThreadPoolExecutor(len(prompts)) as clients:
        done = list(clients.map(lambda tokens: vllm_single.complete(tokens, 60), prompts))

    vllm_single.wait_idle()
    whole = [tokens + answer.token_ids for tokens, answer in zip(prompts, done, strict=True)]
    assert sum(fleet.assert_agrees(vllm_single, whole)) > 0


def test_a_client_that_hangs_up_leaves_the_index_exact(
    fleet: Fleet, vllm_single: VllmEngine
) -> None:
    (tokens,) = prompts_of(11, 100)
    stream = vllm_single.stream(tokens, 500)
    for _ in range(40):
        next(stream)
    stream.close()

    vllm_single.wait_idle()

    # The prompt and the answer up to where the client left are still there.
    whole = tokens + vllm_single.complete(tokens, 40).token_ids
    fleet.settle(vllm_single)
    assert fleet.believed(vllm_single, whole) == 128
    assert fleet.assert_agrees(vllm_single, [whole]) == [128]


def test_salts_are_worlds_apart(fleet: Fleet, vllm_single: VllmEngine) -> None:
    (tokens,) = prompts_of(3, 3 * BLOCK + 5)
    vllm_single.complete(tokens, 1, cache_salt="tenant-A")
    fleet.settle(vllm_single)

    def believed(**options: str) -> int:
        matches = fleet.router.match(tokens, **options)
        return int(
            matches.matched_tokens[[e.address for e in matches.endpoints].index(vllm_single.url)]
        )

    assert believed(cache_salt="tenant-A") == 3 * BLOCK
    assert believed(cache_salt="tenant-B") == 0
    assert believed() == 0


def test_a_reset_empties_the_index(fleet: Fleet, vllm_single: VllmEngine) -> None:
    prompts = prompts_of(4, 100, 200)
    fleet.assert_agrees(vllm_single, prompts)
    assert fleet.believed(vllm_single, prompts[0]) == 96

    assert vllm_single.reset_prefix_cache()
    # vLLM publishes that everything was cleared with its next step, and an idle engine takes none.
    vllm_single.complete([5], 1)
    fleet.settle(vllm_single)

    assert [fleet.believed(vllm_single, tokens) for tokens in prompts] == [0, 0]
    assert fleet.assert_agrees(vllm_single, [*prompts, *prompts]) == [0, 0, 96, 192]


def test_lost_messages_are_replayed(vllm_single: VllmEngine) -> None:
    prompts = prompts_of(5, 100, 150, 200, 70)
    fleet = Fleet([vllm_single])
    with LossyProxy(vllm_single.event_ports[0]) as proxy, fleet.router as router:
        follow_through(proxy, fleet, vllm_single)
        proxy.drop(2)
        for tokens in prompts[:2]:
            vllm_single.complete(tokens, 1)
        # The third message shows that two are missing.
        vllm_single.complete(prompts[2], 1)

        fleet.settle(vllm_single)

        assert proxy.dropped == 2
        assert router.kv_position(vllm_single.url).gaps == 1
        assert router.kv_position(vllm_single.url).losses == 0
        assert [fleet.believed(vllm_single, tokens) for tokens in prompts] == [96, 128, 192, 0]
        assert fleet.assert_agrees(vllm_single, prompts) == [96, 128, 192, 0]


def test_what_was_published_while_cut_off_is_replayed(vllm_single: VllmEngine) -> None:
    prompts = prompts_of(6, 100, 150)
    fleet = Fleet([vllm_single])
    with LossyProxy(vllm_single.event_ports[0]) as proxy, fleet.router as router:
        follow_through(proxy, fleet, vllm_single)
        proxy.cut()
        for tokens in prompts:
            vllm_single.complete(tokens, 1)
        proxy.mend()

        fleet.settle(vllm_single)

        assert router.kv_position(vllm_single.url).restarts == 0
        assert router.kv_position(vllm_single.url).losses == 0
        assert fleet.assert_agrees(vllm_single, prompts) == [96, 128]


def follow_through(proxy: LossyProxy, fleet: Fleet, engine: VllmEngine) -> None:
    """Follows the engine's events through the proxy, and its replay socket directly."""
    fleet.router.add_endpoint(
        engine.url,
        model=engine.config.model,
        kv_events=f"tcp://127.0.0.1:{proxy.port}",
        kv_replay=f"tcp://127.0.0.1:{engine.replay_ports[0]}",
        kv_topic=engine.topic,
    )
    fleet.router.wait_kv_connected(engine.url, timeout_s=SETTLE_S)
    fleet.settle(engine)


def test_a_restarted_engine_is_known_to_be_empty(
    fleet: Fleet, vllm_pair: tuple[VllmEngine, VllmEngine]
) -> None:
    stays, restarts = vllm_pair
    prompts = prompts_of(7, 100, 200)
    for engine in vllm_pair:
        fleet.assert_agrees(engine, prompts)

    restarts.stop()
    restarts.start()
    restarts.wait_healthy()
    fleet.settle(restarts)

    assert fleet.router.kv_position(restarts.url).restarts == 1
    assert [fleet.believed(restarts, tokens) for tokens in prompts] == [0, 0]
    assert [fleet.believed(stays, tokens) for tokens in prompts] == [96, 192]
    assert fleet.assert_agrees(restarts, [*prompts, *prompts]) == [0, 0, 96, 192]


def test_an_engine_killed_in_mid_stream_comes_back_empty(
    fleet: Fleet, vllm_pair: tuple[VllmEngine, VllmEngine]
) -> None:
    stays, dies = vllm_pair
    prompts = prompts_of(8, 100, 200)
    for engine in vllm_pair:
        fleet.assert_agrees(engine, prompts)

    decision = fleet.router.route(prompts[1], allowed=[dies.url])

    def read_and_kill() -> None:
        for position, _chunk in enumerate(dies.stream(prompts[1], 600)):
            if position == 0:
                fleet.router.first_token(decision)
            if position == 40:
                dies.kill()

    with pytest.raises((ConnectionError, HTTPException)):
        read_and_kill()
    fleet.router.cancel(decision)
    dies.start()
    dies.wait_healthy()
    fleet.settle(dies)

    assert [fleet.believed(dies, tokens) for tokens in prompts] == [0, 0]
    assert [fleet.believed(stays, tokens) for tokens in prompts] == [96, 192]
    assert fleet.assert_agrees(dies, [*prompts, *prompts]) == [0, 0, 96, 192]
    assert fleet.router.endpoint(dies.url).inflight_requests == 0
