"""``llmd-sched top`` on a gateway in front of embedded engines."""

from __future__ import annotations

import hashlib
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

from embedded_engine import embedded_engine
from served_gateway import served_gateway

TOP = [sys.executable, "-m", "llmd_sched", "top", "--admin"]
# A name that gives a terminal orders.
HOSTILE = "\x1b]0;taken\x07\x1b[2J"


def once(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TOP, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment},
    )


def test_once_is_a_table_of_what_happened(tmp_path: Path) -> None:
    with embedded_engine("--speed", "1000000") as engine:
        dead = "http://127.0.0.1:9"
        endpoints = [{"url": engine.url, "labels": {"zone": "a"}}, {"url": dead}]
        config = {"endpoints": endpoints, "router": {"aliases": {HOSTILE: {"m": 1}}}}
        with served_gateway(tmp_path, config) as gateway:
            states = sorted([(engine.url, "up"), (dead, "joining")])
            gateway.wait_for_states(*(state for _, state in states))
            for model in ["m", HOSTILE]:
                body = {"model": model, "prompt": [1] * 64, "max_tokens": 3, "stream": True}
                gateway.post("/v1/completions", body)
            done = once(gateway.admin + "/")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    lines = [line.split() for line in done.stdout.splitlines()]
    address = engine.url.removeprefix("http://")
    assert lines[0][3:] == ["live", "1", "of", "2", "engines", "up"]
    assert lines[4][:2] == ["ENGINE", "STATE"]
    assert lines[5][:2] == ["127.0.0.1:9", "joining"]
    assert lines[6][:3] + lines[6][-1:] == [address, "up", "m", "zone=a"]
    assert lines[8][:3] == ["UTC", "MODEL", "TENANT"]
    assert lines[9][1] == "?]0;taken??[2J"
    assert lines[10][1:6] == ["m", address, "0", "of", "64"]
    answered = lines[10].index("answered")
    assert lines[10][answered : answered + 2] == ["answered", "200"]


def test_what_cannot_be_is_said_with_the_remedy(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"alpha").hexdigest()
    config = {"admin": {"listen": "127.0.0.1:0", "token_sha256": digest}}
    with served_gateway(tmp_path, config) as gateway:
        done = once(gateway.admin)
        assert (done.returncode, done.stdout) == (1, "")
        assert "--token-env" in done.stderr
        assert (
            "no such environment variable" in once(gateway.admin, "--token-env", "NOT_SET").stderr
        )
        assert once(gateway.admin, "--token-env", "TOKEN", TOKEN="alpha").returncode == 0
        other = once(gateway.url)
        assert (other.returncode, "answered 404" in other.stderr) == (1, True)


def test_on_a_terminal_it_stays_until_it_is_told_to_end(tmp_path: Path) -> None:
    with served_gateway(tmp_path, {}) as gateway:
        ours, its = pty.openpty()
        command = [*TOP, gateway.admin, "--interval-ms", "50"]
        with subprocess.Popen(command, stdin=its, stdout=its, stderr=its) as process:
            os.close(its)
            said = b""
            # The third time that it is drawn.
            while said.count(b"\x1b[H") < 3:
                said += os.read(ours, 4096)
            process.send_signal(signal.SIGINT)
            try:
                while more := os.read(ours, 4096):
                    said += more
            except OSError:
                # Of a terminal whose other end is closed.
                pass
            assert process.wait(timeout=60) == 0
        os.close(ours)
    assert said.startswith(b"\x1b[?1049h\x1b[?25l")
    assert said.endswith(b"\x1b[?25h\x1b[?1049l")
    assert b"0 of 0 engines up" in said
