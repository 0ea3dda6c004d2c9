"""The gateway's page in a browser, in front of embedded engines."""

from __future__ import annotations

import hashlib
import json
import signal
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

import pytest
from browsing import Page
from embedded_engine import EmbeddedEngine, embedded_engine
from served_gateway import ServedGateway, served_gateway

HOSTILE = "<img src=x onerror=\"document.title='taken'\"><b>bold</b>"
UNKNOWN = "\N{EN DASH}"
ROWS = "#endpoints tbody tr"
DECISIONS = "#decisions tbody tr"
FAST = ["--speed", "1000000", "--lora", HOSTILE]
# Probes find out soon, and an engine that is left alone stays so for the length of a test.
HEALTH = {"interval_ms": 50, "failures": 2, "ejection_ms": 600_000, "max_ejection_ms": 600_000}


def complete(gateway: ServedGateway, number: int, **fields: object) -> dict[str, str]:
    """Sends a prompt of 64 tokens of its own, streamed; returns the answer's head."""
    body = {"model": "m", "prompt": [number] * 64, "max_tokens": 4, "stream": True, **fields}
    headers = {"x-llmd-explain": "1", "x-tenant": HOSTILE}
    return gateway.post("/v1/completions", body, headers)[0]


def cells(page: Page, rows: str, number: int) -> list[str]:
    """What one column shows."""
    return page.texts(f"{rows} td:nth-child({number})")


def shown(engine: EmbeddedEngine) -> str:
    """An engine's address as the page has it."""
    return engine.url.removeprefix("http://")


def test_the_page_shows_what_happened(page: Page, tmp_path: Path) -> None:
    with embedded_engine(*FAST) as first, embedded_engine(*FAST) as second:
        engines = [
            {"url": first.url, "labels": {"zone": HOSTILE}},
            {"url": second.url, "labels": {}},
        ]
        with served_gateway(tmp_path, {"endpoints": engines}) as gateway:
            gateway.wait_for_states("up", "up")
            said = [complete(gateway, number) for number in [1, 2, 1, 2]]
            complete(gateway, 3, model=HOSTILE, stream=False)
            page.chrome.get(gateway.admin + "/ui")
            page.until(lambda page: page.count(DECISIONS), lambda rows: rows == 5)

            assert page.texts("#status") == ["live"]
            assert cells(page, ROWS, 2) == ["up", "up"]
            assert sorted(cells(page, ROWS, 1)) == sorted(
                [f"{shown(first)}zone={HOSTILE}", shown(second)]
            )
            page.until_text("#in-flight", "0 in flight")
            page.until_text("#completed", "5 answers so far")
            page.until_text("#engines-up", "2")
            # The last decision is the first row.
            assert cells(page, DECISIONS, 2) == [f"{HOSTILE}{HOSTILE}"] + [f"m{HOSTILE}"] * 4
            assert cells(page, DECISIONS, 3)[1:] == [
                head["x-llmd-endpoint"].removeprefix("http://") for head in reversed(said)
            ]
            matched = [f"{head['x-llmd-matched-tokens']} of 64" for head in reversed(said)]
            assert [text.split("\n")[0] for text in cells(page, DECISIONS, 4)[1:]] == matched
            assert cells(page, DECISIONS, 5)[1:] == [
                head["x-llmd-match-source"] for head in reversed(said)
            ]
            # Of the streamed ones the first token is known.
            ttft = [text.split(" → ") for text in cells(page, DECISIONS, 6)]
            assert ttft[0][-1].startswith(UNKNOWN)
            assert all("ms" in real and not real.startswith(UNKNOWN) for _, real in ttft[1:])
            assert cells(page, DECISIONS, 8) == ["answered 200"] * 5
            assert all(", of 2: " in text for text in cells(page, DECISIONS, 9))
            # Rows stay the same elements: what somebody has marked stays marked.
            mark = "document.querySelector(arguments[0]).dataset.mark = 'x'"
            page.chrome.execute_script(mark, ROWS)
            complete(gateway, 4)
            page.until(lambda page: page.count(DECISIONS), lambda rows: rows == 6)
            assert page.count(f"{ROWS}[data-mark=x]") == 1

            assert page.chrome.title == "llmd-sched gateway"
            assert page.count("#figures b:not(.figure b), #figures img") == 0
            assert [
                line for line in page.chrome.get_log("browser") if line["level"] == "SEVERE"
            ] == []


def test_nothing_of_a_prompt_and_nothing_of_a_key_is_shown(tmp_path: Path) -> None:
    key = {"name": "team", "sha256": hashlib.sha256(b"alpha-key").hexdigest(), "tenant": "payer"}
    with embedded_engine(*FAST) as engine:
        config = {"endpoints": [{"url": engine.url}], "auth": {"keys": [key]}}
        with served_gateway(tmp_path, config) as gateway:
            gateway.wait_for_states("up")
            body = {"model": "m", "prompt": "a secret of theirs", "max_tokens": 1}
            gateway.post("/v1/completions", body, {"authorization": "Bearer alpha-key"})
            live = gateway.live()
            assert live["decisions"][0]["tenant"] == "payer"
            said = json.dumps(live)
            assert not [
                secret for secret in ["secret", "alpha-key", key["sha256"]] if secret in said
            ]


def test_an_engine_that_fails_is_seen_and_comes_first(page: Page, tmp_path: Path) -> None:
    with embedded_engine(*FAST) as first, embedded_engine(*FAST) as second:
        engines = sorted([first, second], key=lambda engine: engine.url)
        endpoints = [{"url": engine.url} for engine in engines]
        with served_gateway(tmp_path, {"endpoints": endpoints, "health": HEALTH}) as gateway:
            gateway.wait_for_states("up", "up")
            page.chrome.get(gateway.admin + "/ui")
            page.until(lambda page: cells(page, ROWS, 2), lambda states: states == ["up", "up"])
            engines[1].process.kill()
            page.until(
                lambda page: cells(page, ROWS, 2), lambda it: it == ["ejected2 failures", "up"]
            )
            assert cells(page, ROWS, 1) == [shown(engines[1]), shown(engines[0])]
            assert page.texts("#engine-states") == ["ejected\n1"]
            assert page.texts("#engines-up") == ["1"]


def test_the_page_outlives_its_gateway(page: Page, tmp_path: Path) -> None:
    with embedded_engine(*FAST) as engine:
        config = {"endpoints": [{"url": engine.url}]}
        with served_gateway(tmp_path, config) as gateway:
            page.chrome.get(gateway.admin + "/ui")
            page.until(lambda page: cells(page, ROWS, 2), lambda states: states == ["up"])
            listen = gateway.admin.removeprefix("http://")
        page.until(
            lambda page: page.texts("#status")[0], lambda said: said.startswith("unreachable since")
        )
        # What was last known stays there to be read.
        assert cells(page, ROWS, 1) == [shown(engine)]
        with served_gateway(tmp_path, {**config, "admin": {"listen": listen}}):
            page.until_text("#status", "live")
            page.until(lambda page: cells(page, ROWS, 2), lambda states: states == ["up"])


def test_a_token_is_asked_for_once_and_kept_for_the_session(page: Page, tmp_path: Path) -> None:
    digest = hashlib.sha256(b"alpha").hexdigest()
    config = {"admin": {"listen": "127.0.0.1:0", "token_sha256": digest}}
    with served_gateway(tmp_path, config) as gateway:
        with pytest.raises(HTTPError, match="401"):
            gateway.live()
        page.chrome.get(gateway.admin + "/ui")
        page.until_text("#status", "a token is needed")
        field = page.chrome.switch_to.active_element
        field.send_keys("beta\n")
        page.until_text("#token-error", "The gateway does not know this token.")
        field.send_keys("alpha\n")
        page.until_text("#status", "live")
        page.chrome.refresh()
        page.until_text("#status", "live")
        # Nothing was shown before, and it is nowhere but in the session.
        stored = page.chrome.execute_script("return [localStorage.length, document.cookie]")
        assert stored == [0, ""]


def test_a_thousand_engines_are_filtered_and_sorted_by_the_keyboard(
    page: Page, tmp_path: Path
) -> None:
    # None of them is there: they are shown all the same.
    engines = [f"127.0.0.1:9/engine-{number:04}" for number in range(1_000)]
    config = {"endpoints": [{"url": f"http://{engine}"} for engine in engines]}
    with served_gateway(tmp_path, config) as gateway:
        page.chrome.get(gateway.admin + "/ui")
        page.until(lambda page: page.count(ROWS), lambda rows: rows == 1_000)
        assert set(cells(page, ROWS, 2)) == {"joining"}
        page.chrome.find_element("css selector", "body").send_keys("/")
        page.chrome.switch_to.active_element.send_keys("engine-099")
        page.until_text("#shown", "10 of 1,000")
        assert cells(page, ROWS, 1) == engines[990:]
        heading = page.chrome.find_element("css selector", "#endpoints th button")
        heading.send_keys("\n")
        heading.send_keys("\n")
        assert cells(page, ROWS, 1) == engines[:989:-1]


def test_the_page_runs_nothing_that_is_not_its_own(tmp_path: Path) -> None:
    with served_gateway(tmp_path, {}) as gateway:
        for path in ["/ui", "/ui/page.js", "/ui/page.css"]:
            with urllib.request.urlopen(gateway.admin + path) as reply:
                policy = reply.headers["content-security-policy"]
                content = reply.read().decode()
            assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
            assert "unsafe" not in policy
            for elsewhere in [
                "innerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "//cdn",
            ]:
                assert elsewhere not in content
        gateway.process.send_signal(signal.SIGTERM)
        assert gateway.process.wait(timeout=60) == 0
