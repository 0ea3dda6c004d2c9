"""A live router seen from another process."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from typing import Any

import numpy as np
import pytest
from llmd_sched import EngineError, LlmdError, RemoteRouter, Router, attach

PROMPT = np.arange(1000, dtype=np.uint32)


@pytest.fixture
def remote(router: Router) -> RemoteRouter:
    router.finish(router.route(PROMPT, model="m", allowed=["http://b"]))
    return attach(router.serve_admin())


def test_the_fleet_is_shown(router: Router, remote: RemoteRouter) -> None:
    router.cordon("http://a")
    assert remote.endpoints() == router.endpoints()
    assert [it.health for it in remote.endpoints()] == ["cordoned", "ready"]
    assert remote.endpoints()[1].held_blocks == 62


def test_counters_and_configuration_are_shown(router: Router, remote: RemoteRouter) -> None:
    assert remote.stats() == router.stats()
    assert remote.config() == router.config()


def test_an_explanation_is_the_routers_own(router: Router, remote: RemoteRouter) -> None:
    for options in ({}, {"allowed": ["http://a"]}, {"cache_salt": "x"}, {"session_id": "s"}):
        here = router.explain(PROMPT, **options)
        there = remote.explain(PROMPT, **options)
        assert there.to_dict() == here.to_dict()
        assert repr(there) == repr(here)
    assert remote.explain(text="hello").chosen == router.explain(text="hello").chosen


def test_an_explanation_of_nobody_crosses_too(router: Router, remote: RemoteRouter) -> None:
    router.cordon("http://a")
    router.cordon("http://b")
    assert remote.explain(PROMPT).rejection == router.explain(PROMPT).rejection


def test_it_works_from_another_process(remote: RemoteRouter) -> None:
    program = (
        "import sys, llmd_sched\n"
        "remote = llmd_sched.attach(sys.argv[1])\n"
        "print(remote.explain(list(range(1000))).chosen.address)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", program, remote.url], capture_output=True, text=True, check=True
    )
    assert said.stdout == "http://b\n"


def test_looking_changes_nothing(router: Router, remote: RemoteRouter) -> None:
    before = router.stats()["requests"]
    remote.explain(PROMPT)
    remote.endpoints()
    assert router.stats()["requests"] == before


def post(url: str, body: bytes) -> tuple[int, str]:
    request = urllib.request.Request(url, body, headers={"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


REFUSED: dict[str, tuple[Any, int, str]] = {
    "no prompt": ({}, 400, "give the prompt either as tokens or as text"),
    "two prompts": ({"tokens": [1], "text": "a"}, 400, "either as tokens or as text"),
    "empty": ({"tokens": []}, 400, "the prompt is empty"),
    "unknown key": ({"token": [1]}, 400, "unknown field `token`"),
    "out of range": ({"tokens": [-1]}, 400, "invalid value"),
    "unknown endpoint": ({"tokens": [1], "allowed": ["http://z"]}, 400, '"http://z"'),
    "no json": (None, 400, "JSON"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_request_that_cannot_be_is_refused_with_the_reason(
    remote: RemoteRouter, case: str
) -> None:
    body, status, message = REFUSED[case]
    code, said = post(
        f"{remote.url}/explain", json.dumps(body).encode() if body is not None else b"{"
    )
    assert code == status
    assert message in said


def test_a_body_without_end_is_cut_off(remote: RemoteRouter) -> None:
    code, _ = post(f"{remote.url}/explain", b'{"text": "' + b"a" * (17 << 20) + b'"}')
    assert code == 413


def test_a_refusal_reaches_the_caller(remote: RemoteRouter) -> None:
    with pytest.raises(LlmdError, match=r"answered 400: no endpoint \"http://z\""):
        remote.explain([1], allowed=["http://z"])


def test_nobody_there_is_said_with_a_remedy(router: Router, remote: RemoteRouter) -> None:
    router.close()
    with pytest.raises(EngineError, match=r"start one there with Router\.serve_admin"):
        remote.stats()
    with pytest.raises(EngineError):
        attach(remote.url)
    with pytest.raises(ValueError, match="give http://host:port"):
        attach("localhost:80")


def test_a_port_that_is_taken_is_an_oserror(router: Router, remote: RemoteRouter) -> None:
    with pytest.raises(OSError, match="cannot listen"):
        router.serve_admin(int(remote.url.rsplit(":", 1)[1]))
