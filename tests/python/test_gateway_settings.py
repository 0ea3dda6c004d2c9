"""What a gateway's settings do, given from Python: TLS, traces, and signals of ``serve``."""

from __future__ import annotations

import http.client
import json
import signal
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import llmd_sched
import pytest
import trustme
from embedded_engine import EmbeddedEngine, embedded_engine

HUNG_S = 60.0
ANYWHERE = {"listen": "127.0.0.1:0", "threads": 1}
COMPLETION = {"model": "m", "prompt": [7] * 40, "max_tokens": 4}


@pytest.fixture(scope="module")
def engine() -> Iterator[EmbeddedEngine]:
    with embedded_engine() as engine:
        yield engine


def until(holds: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + HUNG_S
    while not holds():
        assert time.monotonic() < give_up_s, "it did not happen"
        time.sleep(0.02)


@contextmanager
def gateway(*engines: str, **settings: Any) -> Iterator[llmd_sched.Gateway]:
    """One in front of engines, which have joined."""
    config = {**ANYWHERE, "endpoints": [{"url": it} for it in engines], **settings}
    with llmd_sched.Gateway(config) as gateway:
        until(lambda: len(gateway.endpoints()) == len(engines))
        yield gateway


def complete(
    url: str, context: ssl.SSLContext | None = None, headers: dict[str, str] | None = None
) -> Any:
    data = json.dumps(COMPLETION).encode()
    said = {"content-type": "application/json", **(headers or {})}
    request = urllib.request.Request(f"{url}/v1/completions", data, said)
    with urllib.request.urlopen(request, timeout=HUNG_S, context=context) as answer:
        return json.load(answer)


# --- TLS ------------------------------------------------------------------------------------------


class Authority:
    """One that issues certificates, as files."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self.authority = trustme.CA()
        self.file = str(folder / f"{name}.pem")
        self.authority.cert_pem.write_to_path(self.file)

    def issue(self, name: str) -> dict[str, str]:
        """A certificate for this host, as settings name it."""
        issued = self.authority.issue_cert("127.0.0.1")
        cert, key = (str(self._folder / f"{name}.{kind}") for kind in ("crt", "key"))
        issued.private_key_pem.write_to_path(key)
        for number, blob in enumerate(issued.cert_chain_pems):
            blob.write_to_path(cert, append=number > 0)
        return {"cert_file": cert, "key_file": key}

    def client(self, certificate: dict[str, str] | None = None) -> ssl.SSLContext:
        """A client that believes what it issued."""
        context = ssl.create_default_context(cafile=self.file)
        if certificate is not None:
            context.load_cert_chain(certificate["cert_file"], certificate["key_file"])
        return context


def test_clients_speak_tls_and_show_who_they_are(tmp_path: Path, engine: EmbeddedEngine) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    tls = {**ours.issue("gateway"), "client_ca_file": theirs.file}
    with gateway(engine.url, tls=tls) as it:
        assert it.url.startswith("https://127.0.0.1:")
        known = ours.client(theirs.issue("client"))
        assert complete(it.url, known)["usage"]["completion_tokens"] == 4
        with pytest.raises(OSError, match=r"(?i)certificate|EOF|closed|reset"):
            complete(it.url, ours.client())
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            complete(it.url, theirs.client())
        # Another certificate under the same name: those who connect from now on get it.
        theirs.issue("gateway")
        it.reload({**ANYWHERE, "endpoints": [{"url": engine.url}], "tls": tls})
        with pytest.raises(OSError, match="CERTIFICATE_VERIFY_FAILED"):
            complete(it.url, known)


def test_engines_behind_tls_are_believed_by_their_authority(
    tmp_path: Path, engine: EmbeddedEngine
) -> None:
    ours, others = Authority(tmp_path, "ours"), Authority(tmp_path, "others")
    # To a gateway in front of it, a gateway is an engine behind TLS.
    with gateway(engine.url, tls=ours.issue("engine")) as inner:
        with gateway(inner.url, upstream_tls={"ca_file": ours.file}) as outer:
            assert complete(outer.url)["usage"]["completion_tokens"] == 4
        config = {**ANYWHERE, "endpoints": [{"url": inner.url}], "hold_ms": 0}
        with llmd_sched.Gateway({**config, "upstream_tls": {"ca_file": others.file}}) as outer:
            until(lambda: "certificate" in refusal(outer.url))


def refusal(url: str) -> str:
    """What a request is refused with."""
    with pytest.raises(urllib.error.HTTPError) as refused:
        complete(url)
    return str(json.load(refused.value)["error"]["message"])


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ours")
    good, missing = authority.issue("gateway"), str(tmp_path / "missing.pem")
    for settings, key in [
        ({"tls": {**good, "cert_file": missing}}, "tls.cert_file"),
        ({"tls": {**good, "key_file": good["cert_file"]}}, "tls.key_file"),
        ({"upstream_tls": {"ca_file": missing}}, "upstream_tls.ca_file"),
    ]:
        with pytest.raises(llmd_sched.ConfigError, match=key.replace(".", r"\.")):
            llmd_sched.Gateway({**ANYWHERE, **settings})


# --- traces ---------------------------------------------------------------------------------------


@contextmanager
def collector() -> Iterator[tuple[str, list[Any]]]:
    """A collector of OTLP over HTTP: its address, and what it was sent."""
    got: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/traces", got
        server.shutdown()
        thread.join()


def test_traces_are_sent_to_the_collector_before_it_is_drained(engine: EmbeddedEngine) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    sampled, not_sampled = (f"00-{trace}-b7ad6b716920333{it}-0{it}" for it in (1, 0))
    with collector() as (url, got):
        tracing = {"otlp_endpoint": url, "service_name": "front", "sample_percent": 0}
        with gateway(engine.url, tracing=tracing) as it:
            complete(it.url)
            complete(it.url, headers={"traceparent": not_sampled})
            complete(it.url, headers={"traceparent": sampled})
    (resource,) = [it for document in got for it in document["resourceSpans"]]
    assert {"key": "service.name", "value": {"stringValue": "front"}} in resource["resource"][
        "attributes"
    ]
    spans = [span for scope in resource["scopeSpans"] for span in scope["spans"]]
    assert {span["traceId"] for span in spans} == {trace}
    assert sorted(span["name"] for span in spans) == [
        "POST /v1/completions",
        "decode leg",
        "route",
    ]


def test_a_trace_that_cannot_be_sent_anywhere_is_refused() -> None:
    for tracing, named in [
        ({"otlp_endpoint": "nonsense"}, "otlp_endpoint"),
        ({"sample_percent": 101}, "sample_percent"),
        ({"endpoint": "http://a"}, "endpoint"),
    ]:
        with pytest.raises(llmd_sched.ConfigError, match=named):
            llmd_sched.Gateway({**ANYWHERE, "tracing": tracing})


# --- signals --------------------------------------------------------------------------------------

PROGRAM = """
import llmd_sched, signal, sys
before = signal.getsignal(signal.SIGINT)
llmd_sched.serve(sys.argv[1], ready=lambda gateway: print(gateway.url, flush=True))
assert signal.getsignal(signal.SIGINT) is before
print("over", flush=True)
"""


@contextmanager
def serving(file: Path) -> Iterator[tuple[subprocess.Popen[str], http.client.HTTPConnection]]:
    """A program that serves by this configuration, and a connection to it."""
    command = [sys.executable, "-c", PROGRAM, str(file)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip().removeprefix("http://")
            yield process, http.client.HTTPConnection(address, timeout=HUNG_S)
        finally:
            process.kill()


def streams(connection: http.client.HTTPConnection, max_tokens: int) -> http.client.HTTPResponse:
    """An answer that has begun."""
    asked = {**COMPLETION, "max_tokens": max_tokens, "ignore_eos": True, "stream": True}
    connection.request("POST", "/v1/completions", json.dumps(asked))
    answer = connection.getresponse()
    assert answer.readline().startswith(b"data: {"), answer.status
    return answer


def is_ready(connection: http.client.HTTPConnection) -> bool:
    connection.request("GET", "/ready")
    answer = connection.getresponse()
    answer.read()
    return answer.status == 200


def written(folder: Path, *engines: str) -> Path:
    file = folder / "gateway.json"
    file.write_text(json.dumps({**ANYWHERE, "endpoints": [{"url": it} for it in engines]}))
    return file


def test_signals_drain_it_and_have_it_read_its_file_again(
    tmp_path: Path, engine: EmbeddedEngine
) -> None:
    with serving(written(tmp_path)) as (process, connection):
        written(tmp_path, engine.url)
        process.send_signal(signal.SIGHUP)
        until(lambda: is_ready(connection))
        answer = streams(connection, 200)
        process.send_signal(signal.SIGTERM)
        assert answer.read().endswith(b"data: [DONE]\n\n")
        said, _ = process.communicate(timeout=HUNG_S)
        assert (process.returncode, said) == (0, "over\n")


def test_a_second_signal_ends_it_at_once(tmp_path: Path, engine: EmbeddedEngine) -> None:
    with serving(written(tmp_path, engine.url)) as (process, connection):
        until(lambda: is_ready(connection))
        answer = streams(connection, 100_000)
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        _, complaint = process.communicate(timeout=HUNG_S)
        assert process.returncode != 0, complaint
        with pytest.raises(http.client.IncompleteRead):
            answer.read()


def test_other_threads_get_no_signals() -> None:
    raised: list[BaseException] = []

    def serve() -> None:
        try:
            llmd_sched.serve({**ANYWHERE})
        except RuntimeError as why:
            raised.append(why)

    thread = threading.Thread(target=serve)
    thread.start()
    thread.join(HUNG_S)
    assert "use Gateway(config)" in str(raised[0])
