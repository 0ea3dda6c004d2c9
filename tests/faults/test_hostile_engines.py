"""Engines that publish what no engine should, over real sockets, against a whole router.

Whatever comes, the router goes on routing by what its other engines say, counts what it dropped,
keeps its memory, and follows a good engine as soon as there is one at the same address.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import pytest
import zmq
from hostile_peers import (
    MIB,
    MODEL,
    PUB_HELLO,
    EmbeddedEngine,
    memory_grows_by_at_most,
    says,
    serves,
    until,
)
from llmd_sched import EngineError, KvPosition, Router

PROMPT = list(range(100, 180))
BLOCK = 16
# A page is read until it is given up at 8 MiB.
MOST_FOR_A_PAGE = 16 * MIB
MOST_FOR_FRAMES = 4 * MIB


@pytest.fixture(scope="module")
def neighbour() -> Iterator[EmbeddedEngine]:
    """A good engine that holds :data:`PROMPT`."""
    with EmbeddedEngine() as engine:
        engine.complete(PROMPT)
        yield engine


@pytest.fixture
def router(neighbour: EmbeddedEngine) -> Iterator[Router]:
    """A router that knows what the neighbour holds, and looks often."""
    with Router({"observe": {"metrics_interval_ms": 10}}, block_size=BLOCK, seed=1) as router:
        (endpoint,) = router.discover(neighbour.url)
        router.wait_kv(endpoint, 0)
        yield router


def matched_tokens(router: Router, address: str, tokens: list[int]) -> int:
    matches = router.match(tokens, model=MODEL)
    by_address = {it.address: row for row, it in enumerate(matches.endpoints)}
    return int(matches.matched_tokens[by_address[address]])


def still_routes(router: Router, neighbour: EmbeddedEngine) -> None:
    with router.route(PROMPT, model=MODEL) as decision:
        assert decision.address == neighbour.url
        assert decision.matched_tokens == len(PROMPT)


@dataclass(frozen=True)
class Fault:
    """What is sent after the handshake (or instead), and what is then said of it."""

    script: bytes
    says: str
    flood: bytes = b""


FAULTS = {
    "half a frame": Fault(PUB_HELLO + b"\x01\x02kv\x00\x40half", "8 bytes of an unfinished frame"),
    "half a greeting": Fault(PUB_HELLO[:20], "closed the connection"),
    "4 GiB length prefix": Fault(
        PUB_HELLO + b"\x02" + struct.pack(">Q", 1 << 32), "a frame of 4294967296 bytes", bytes(MIB)
    ),
    "largest length prefix": Fault(
        PUB_HELLO + b"\x03" + b"\xff" * 8, f"a frame of {2**64 - 1} bytes", bytes(MIB)
    ),
    "frames without end": Fault(PUB_HELLO, "more than 16 frames", b"\x01\x00" * 4096),
    "flags that are none": Fault(PUB_HELLO + b"\xaa" * 64, "frame flags 0xaa"),
    "another protocol": Fault(b"HTTP/1.1 400 Bad Request\r\n\r\n", "is this port a ZeroMQ socket?"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_bytes_that_are_no_stream_are_survived(
    name: str, router: Router, neighbour: EmbeddedEngine
) -> None:
    fault = FAULTS[name]
    with (
        says(fault.script, flood=fault.flood) as events,
        says(fault.script, flood=fault.flood) as replay,
        serves(b"not a page") as page,
    ):
        ports = {"port": page.port, "kv_port": events.port, "replay_port": replay.port}
        hostile = router.add_endpoint(
            f"http://127.0.0.1:{page.port}",
            model=MODEL,
            kv_events=f"tcp://127.0.0.1:{events.port}",
            kv_replay=f"tcp://127.0.0.1:{replay.port}",
            metrics=True,
        )
        with memory_grows_by_at_most(MOST_FOR_FRAMES):
            until(lambda: events.connections >= 3, f"no third connection: {name}")
            still_routes(router, neighbour)
        position = router.kv_position(hostile)
        assert (position.sequence, position.batches, position.settled) == (None, 0, False)
        assert fault.says in str(position.last_error)
        assert router.endpoint(hostile).held_blocks == 0

    with EmbeddedEngine(**ports) as good:
        router.wait_kv_connected(hostile, timeout_s=60)
        good.complete(PROMPT)
        router.wait_kv(hostile, 0, timeout_s=60)
        assert matched_tokens(router, good.url, PROMPT) == len(PROMPT)


class Publisher:
    """A PUB socket of libzmq itself, at a port of the system's choice."""

    def __init__(self) -> None:
        self._context = zmq.Context()
        # XPUB: a PUB that tells when a subscription has come.
        self._socket = self._context.socket(zmq.XPUB)
        self.port = self._socket.bind_to_random_port("tcp://127.0.0.1")
        self.sequence = 0

    def wait_for_subscription(self) -> None:
        assert self._socket.poll(60_000), "nobody subscribed"
        assert self._socket.recv().startswith(b"\x01")

    def send_frames(self, *frames: bytes) -> None:
        self._socket.send_multipart(frames)

    def send(self, payload: bytes) -> None:
        """A payload in the form in which engines send theirs, with the next number."""
        self.send_frames(b"kv", struct.pack(">Q", self.sequence), payload)
        self.sequence += 1

    def close(self) -> None:
        self._socket.close(linger=0)
        self._context.term()


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    publisher = Publisher()
    yield publisher
    publisher.close()


def stored(tokens: list[int], *, block_size: int = BLOCK, ts: float = 1.0) -> bytes:
    """A batch that stores a prompt's full blocks, as vLLM writes it."""
    blocks = len(tokens) // block_size
    event = {
        "type": "BlockStored",
        "block_hashes": list(range(1, blocks + 1)),
        "parent_block_hash": None,
        "token_ids": tokens[: blocks * block_size],
        "block_size": block_size,
        "lora_id": None,
        "medium": "GPU",
        "lora_name": None,
    }
    return msgspec.msgpack.encode([ts, [event], 0])


GARBAGE = [
    b"",
    b"\xc1",
    b"not msgpack",
    bytes(range(256)) * 64,
    stored(PROMPT)[:-40],
    b"\xdd\xff\xff\xff\xff",
    b"\x93\xcb\x3f\xf8\0\0\0\0\0\0\xdd\xff\xff\xff\xff",
    b"\x91" * 100_000,
    msgspec.msgpack.encode({"a": 1}),
    msgspec.msgpack.encode([1.0, "no events", 0]),
    msgspec.msgpack.encode([1.0, [{"type": "BlockRemoved", "block_hashes": "all"}], 0]),
]


def test_payloads_that_are_no_events_are_counted_and_void_what_they_may_have_hidden(
    router: Router, neighbour: EmbeddedEngine, publisher: Publisher
) -> None:
    hostile = router.add_endpoint(
        "http://hostile", model=MODEL, kv_events=f"tcp://127.0.0.1:{publisher.port}"
    )
    publisher.wait_for_subscription()

    def position() -> KvPosition:
        return router.kv_position(hostile)

    with memory_grows_by_at_most(MOST_FOR_FRAMES):
        for nth, garbage in enumerate(GARBAGE, 1):
            publisher.send(stored(PROMPT))
            router.wait_kv(hostile, publisher.sequence - 1)
            assert matched_tokens(router, "http://hostile", PROMPT) == len(PROMPT)
            publisher.send(garbage)
            router.wait_kv(hostile, publisher.sequence - 1)
            assert (position().bad_messages, position().losses) == (nth, nth), garbage[:20]
            assert matched_tokens(router, "http://hostile", PROMPT) == 0, garbage[:20]
            still_routes(router, neighbour)
    assert position().batches == len(GARBAGE)

    publisher.send(stored(PROMPT))
    misshapen = [[b"one frame"], [b"kv", b"12", stored(PROMPT)], [b"kv", bytes(8), b"", b""]]
    for frames in misshapen:
        publisher.send_frames(*frames)
    total = len(GARBAGE) + len(misshapen)
    until(lambda: position().bad_messages == total, "misshapen messages are not counted")
    assert matched_tokens(router, "http://hostile", PROMPT) == len(PROMPT)
    assert position().connected


def test_after_garbage_a_good_engine_at_the_same_address_is_followed(
    router: Router, neighbour: EmbeddedEngine
) -> None:
    publisher, replay = Publisher(), says(b"")
    with replay:
        ports = {"kv_port": publisher.port, "replay_port": replay.port}
        hostile = router.add_endpoint(
            "http://hostile",
            model=MODEL,
            kv_events=f"tcp://127.0.0.1:{publisher.port}",
            kv_replay=f"tcp://127.0.0.1:{replay.port}",
        )
        publisher.wait_for_subscription()
        for garbage in GARBAGE:
            publisher.send(garbage)
        until(lambda: router.kv_position(hostile).bad_messages > 0, "garbage is not counted")
        still_routes(router, neighbour)
    publisher.close()

    with EmbeddedEngine(**ports) as good:
        good.complete(PROMPT)
        until(
            lambda: matched_tokens(router, "http://hostile", PROMPT) == len(PROMPT),
            "the good engine's blocks are not known",
        )
        assert router.kv_position(hostile).sequence == 0


def test_the_clock_of_an_engine_may_go_back(router: Router, publisher: Publisher) -> None:
    odd = router.add_endpoint(
        "http://odd", model=MODEL, kv_events=f"tcp://127.0.0.1:{publisher.port}"
    )
    publisher.wait_for_subscription()
    for ts in (2e9, 1e9, -1e300, float("nan"), float("-inf")):
        publisher.send(stored(PROMPT, ts=ts))
    position = router.wait_kv(odd, 4)
    assert (position.batches, position.bad_messages) == (5, 0)
    assert matched_tokens(router, "http://odd", PROMPT) == len(PROMPT)


@pytest.mark.parametrize(
    ("block_size", "matched", "left_out"),
    [(8, 80, 0), (16, 80, 0), (32, 64, 0), (80, 80, 0), (24, 0, 3), (5, 0, 16)],
)
def test_blocks_of_another_size_are_matched_or_counted(
    block_size: int, matched: int, left_out: int, router: Router, neighbour: EmbeddedEngine
) -> None:
    with EmbeddedEngine(block_size=block_size) as engine:
        (endpoint,) = router.discover(engine.url)
        engine.complete(PROMPT)
        router.wait_kv(endpoint, 0)
        assert matched_tokens(router, engine.url, PROMPT) == matched
        applied = router.stats()["index"]["applied"]
        assert applied["block_size_mismatch_blocks"] == left_out
        with router.route(PROMPT, model=MODEL, allowed=[endpoint]) as decision:
            assert decision.address == engine.url


LINE = b'vllm:num_requests_waiting{engine="0"} 7\n'


@pytest.mark.parametrize("piece", [LINE * 1000, b"x" * 40_000], ids=["good lines", "no line"])
def test_a_page_of_50_mb_costs_no_memory_and_is_not_believed(
    piece: bytes, router: Router, neighbour: EmbeddedEngine
) -> None:
    with serves(piece, repeats=50_000_000 // len(piece)) as peer:
        url = f"http://127.0.0.1:{peer.port}"
        with memory_grows_by_at_most(MOST_FOR_A_PAGE):
            hostile = router.add_endpoint(url, model=MODEL, metrics=True)
            until(lambda: router.stats()["metrics"]["failures"] >= 3, "failures are not counted")
            still_routes(router, neighbour)
        assert router.endpoint(hostile).waiting_requests is None
        with memory_grows_by_at_most(MOST_FOR_A_PAGE), pytest.raises(EngineError, match="8388608"):
            router.discover(url)
        assert len(router.endpoints()) == 2
    with EmbeddedEngine(port=peer.port):
        until(
            lambda: router.endpoint(hostile).waiting_requests == 0.0,
            "the good engine's page is not read",
        )


@pytest.mark.parametrize(
    "line",
    [
        b'vllm:num_requests_waiting{engine="0" 7',
        b"vllm:num_requests_waiting \xff\x00\xfe",
        b"vllm:num_requests_waiting",
        b"vllm:num_requests_waiting many",
    ],
)
def test_lines_of_a_page_that_make_no_sense_are_counted(
    line: bytes, router: Router, neighbour: EmbeddedEngine
) -> None:
    page = line + b'\nvllm:num_requests_running{engine="0"} 3\n'
    with serves(page) as peer:
        hostile = router.add_endpoint(f"http://127.0.0.1:{peer.port}", model=MODEL, metrics=True)
        until(lambda: router.stats()["metrics"]["unreadable_lines"] > 0, "lines are not counted")
        still_routes(router, neighbour)
        until(
            lambda: router.endpoint(hostile).running_requests == 3.0,
            "the other lines of the page are not read",
        )
        assert router.endpoint(hostile).waiting_requests is None


def test_numbers_that_are_none_on_a_page_are_not_believed(
    router: Router, neighbour: EmbeddedEngine
) -> None:
    values = {
        "num_requests_waiting": "NaN",
        "num_requests_running": "-3",
        "kv_cache_usage_perc": "+Inf",
    }
    page = "".join(f'vllm:{name}{{engine="0"}} {value}\n' for name, value in values.items())
    with serves(page.encode()) as peer:
        hostile = router.add_endpoint(f"http://127.0.0.1:{peer.port}", model=MODEL, metrics=True)
        until(lambda: peer.connections >= 2, "the page is not read")
        still_routes(router, neighbour)
        decision = router.route([1, 2, 3], model=MODEL, allowed=[hostile])
        assert decision.address == hostile.address
        endpoint = router.endpoint(hostile)
        read = (endpoint.waiting_requests, endpoint.running_requests, endpoint.kv_usage)
        assert all(value is None or 0.0 <= value < float("inf") for value in read)


def test_what_does_not_answer_as_an_engine_is_not_added(router: Router) -> None:
    for body in (b"", b"garbage", b'{"data": 3}', b"[" * 100_000):
        with serves(body) as peer, pytest.raises(EngineError, match="not what an OpenAI"):
            router.discover(f"http://127.0.0.1:{peer.port}")
    assert len(router.endpoints()) == 1
