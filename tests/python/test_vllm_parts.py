"""What of `llmd_sched.vllm` works without vLLM: the errors that say so, and the feed of signals."""

from __future__ import annotations

import json
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

import llmd_sched.vllm
import pytest
from llmd_sched import ConfigError, MissingDependencyError, Router
from llmd_sched.vllm import SignalFeed
from llmd_sched.vllm._borrowed import settings_of

zmq = pytest.importorskip("zmq")
pytestmark = pytest.mark.timeout(60)


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed here")
@pytest.mark.parametrize("name", ["TurnScheduler", "SyncTurnScheduler", "RankRouter", "StatLogger"])
def test_without_vllm_it_is_said_what_is_missing(name: str) -> None:
    with pytest.raises(
        MissingDependencyError, match=r"written for vLLM 0\.32 and needs \w+ of vllm"
    ):
        getattr(llmd_sched.vllm, name)


def test_other_names_are_no_attributes() -> None:
    assert dir(llmd_sched.vllm) == sorted(llmd_sched.vllm.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'Scheduler'"):
        llmd_sched.vllm.Scheduler  # noqa: B018


@pytest.mark.parametrize(
    ("given", "settings"),
    [
        ({}, {}),
        ({"other": 1}, {}),
        (object(), {}),
        ({"llmd_sched": {"turns": {"order": "fcfs"}}}, {"turns": {"order": "fcfs"}}),
    ],
)
def test_settings_are_a_part_of_vllm_s(given: Any, settings: dict[str, Any]) -> None:
    assert settings_of(SimpleNamespace(additional_config=given)) == settings


@pytest.mark.parametrize(
    ("own", "message"),
    [({"turn": {}}, "no key 'turn': it has turns and signals"), (3, "llmd_sched is 3")],
)
def test_settings_that_cannot_be_are_named(own: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings_of(SimpleNamespace(additional_config={"llmd_sched": own}))


def test_signals_are_followed_and_nonsense_is_passed_over() -> None:
    router = Router()
    endpoint = router.add_endpoint("http://a", dp_rank=1)
    publisher = zmq.Context.instance().socket(zmq.PUB)
    port = publisher.bind_to_random_port("tcp://127.0.0.1")
    with SignalFeed(router, f"tcp://127.0.0.1:{port}", {1: endpoint}) as feed:
        # A subscription takes its time, and what is published before is nobody's.
        while feed.counters()["reports"] == 0:
            publisher.send(json.dumps([1, {"kv_usage": 0.5, "waiting_requests": 2}]).encode())
        assert router.endpoint(endpoint).kv_usage == 0.5
        wrong = [
            b"\xff",
            b"[]",
            b"[1]",
            b"[1, 5]",
            b"[0, {}]",
            b'[1, {"kv_usage": 7}]',
            b"[[], {}]",
        ]
        wrong.append(b'[1, {"mood": 1}]')
        for message in wrong:
            feed.take(message)
        assert feed.counters()["bad_messages"] == len(wrong)
    publisher.close()
    assert router.endpoint(endpoint).kv_usage == 0.5


def test_a_feed_from_nowhere_is_refused() -> None:
    with pytest.raises(zmq.ZMQError):
        SignalFeed(Router(), "nowhere", {})
