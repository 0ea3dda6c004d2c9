"""Aliases of models: which one a request gets, from Python and inside Ray Serve's router."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from llmd_sched import ConfigError, Router
from llmd_sched.ray import Settings, _brain, _deployments
from llmd_sched.ray._ingress import Picker

CANARY = {"prod": {"v1": 80, "v2": 20}}


def test_a_session_stays_on_its_side_and_sides_get_their_shares() -> None:
    router, other = Router({"aliases": CANARY}), Router({"aliases": CANARY})
    for it in (router, other):
        for model in ("v1", "v2"):
            it.add_endpoint(f"http://{model}", model=model)
    sides: dict[str, str] = {}
    for turn in range(2):
        for session in map(str, range(400)):
            prompt = [turn, *range(100)]
            model = router.route(prompt, model="prod", session_id=session).endpoint.model
            assert sides.setdefault(session, model) == model
    assert 50 <= list(sides.values()).count("v2") <= 110
    counted = router.stats()["aliases"]["prod"]
    assert counted == {it: 2 * list(sides.values()).count(it) for it in ("v1", "v2")}
    # Another router says the same, and one that is asked for a model itself says that.
    assert other.route([1], model="prod", session_id="7").endpoint.model == sides["7"]
    assert other.route([1], model="v2", session_id="7").endpoint.model == "v2"
    assert sum(other.stats()["aliases"]["prod"].values()) == 1


def test_without_a_session_the_prompt_decides() -> None:
    router = Router({"aliases": CANARY})
    for model in ("v1", "v2"):
        router.add_endpoint(f"http://{model}", model=model)
    sides = [router.route([it] * 40, model="prod").endpoint.model for it in range(200)]
    assert sides == [router.explain([it] * 40, model="prod").chosen.model for it in range(200)]
    assert 15 <= sides.count("v2") <= 65
    # What is asked without being routed is not counted.
    assert sum(router.stats()["aliases"]["prod"].values()) == 200


def test_a_side_that_nobody_serves_leaves_its_sessions_to_the_other() -> None:
    router = Router({"aliases": CANARY})
    router.add_endpoint("http://v1", model="v1")
    sessions = list(map(str, range(60)))

    def sides() -> list[str]:
        routed = (router.route([1], model="prod", session_id=it) for it in sessions)
        return [it.endpoint.model for it in routed]

    assert set(sides()) == {"v1"}
    router.add_endpoint("http://v2", model="v2")
    both = sides()
    assert set(both) == {"v1", "v2"}
    router.remove_endpoint("http://v2")
    assert set(sides()) == {"v1"}
    router.add_endpoint("http://v2", model="v2")
    assert sides() == both


@pytest.mark.parametrize(
    ("aliases", "message"),
    [
        ({"prod": {"v1": -1}}, 'aliases: alias "prod" gives "v1" the weight -1: give 0 or more'),
        ({"prod": {"v1": 0}}, "has no model with a weight above 0"),
        ({"prod": {"next": 1}, "next": {"v1": 1}}, 'names "next", which is an alias too'),
        ({"prod": 3}, "aliases"),
    ],
)
def test_aliases_that_cannot_be_are_named(aliases: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Router({"aliases": aliases})


# Inside Ray Serve, with made-up replicas.


def replica(number: int) -> Any:
    return SimpleNamespace(
        replica_id=SimpleNamespace(to_full_id_str=lambda: f"a#{number}"),
        replica_metadata={"llmd_sched": {"model": f"v{number}"}},
        backend_http_endpoint=("10.0.0.1", number),
    )


def test_replicas_that_serve_several_models_share_an_alias(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.of({"aliases": CANARY})
    brain = _brain.DeploymentBrain("app", settings)
    fleet = [replica(1), replica(2)]
    brain.sync(fleet)
    loop = asyncio.new_event_loop()

    def picked(number: int, payload: Any, session: str) -> Any:
        call = SimpleNamespace(
            args=[payload],
            kwargs={},
            metadata=SimpleNamespace(
                internal_request_id=str(number), session_id=session, multiplexed_model_id=""
            ),
            routing_context=SimpleNamespace(),
            future=loop.create_future(),
        )
        ((best,), _) = brain.rank(fleet, call, list)
        return best

    where: dict[str, Any] = {}
    for number in range(200):
        session = str(number % 50)
        for payload in (
            {"model": "prod", "prompt": f"number {number}"},
            SimpleNamespace(model="prod", prompt=f"number {number}"),
        ):
            best = picked(2 * number + isinstance(payload, dict), payload, session)
            assert where.setdefault(session, best) is best
    assert set(map(id, where.values())) == set(map(id, fleet))
    # The ingress router comes to the same, from the bytes of a body.
    monkeypatch.setitem(_deployments._brains, "app", brain)
    picker = Picker("app")
    for session, best in where.items():
        body = json.dumps({"model": "prod", "prompt": "anything"}).encode()
        status, reply = picker.answer(body, [(b"x-session-id", session.encode())])
        assert (status, json.loads(reply)["replica_id"]) == (200, best.replica_id.to_full_id_str())
    counted = brain.counters()["router"]["aliases"]["prod"]
    assert sum(counted.values()) == 400 + len(where)
    # Any other name is taken to be served by all.
    assert {id(picked(1_000 + it, {"model": "m", "prompt": "p"}, "")) for it in range(20)}
    assert (brain.counters()["fallbacks"], brain.counters()["bad_reports"]) == (0, 0)
    brain.close()
    loop.close()


def test_aliases_are_a_keyword_of_their_own() -> None:
    with pytest.raises(ConfigError, match="aliases is a keyword of its own"):
        Settings.of({"config": {"aliases": CANARY}})
    with pytest.raises(ConfigError, match="is not a mapping of names to models"):
        Settings.of({"aliases": {"prod": "v1"}})
