"""A real vLLM server on CPU as a test's neighbour: start, watch, question, kill, bring back.

Standard library only, so that the tests' environment stays small; vLLM runs in an environment of
its own (install_vllm.sh) on models of its own (tiny_models.py). One engine costs about 30
CPU-seconds to start and 4 GB.
"""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ports import PortRange

START_TIMEOUT_S = 300.0


class EngineError(RuntimeError):
    """The server died, hung or answered with an error; the message quotes its log."""


@dataclass(frozen=True)
class Installation:
    """Where `make engines` put things."""

    cache: Path

    @classmethod
    def find(cls) -> "Installation":
        """Reads LLMD_CACHE (default ~/.cache/llmd-sched); FileNotFoundError names the remedy."""
        cache = Path(os.environ.get("LLMD_CACHE") or Path.home() / ".cache" / "llmd-sched")
        found = cls(cache)
        if not found.stamps() or not (found.models / "tiny-llama" / "config.json").exists():
            raise FileNotFoundError(
                f"no vLLM with models under {cache}: run `make engines` (about 7 GB of disk)"
            )
        return found

    def stamps(self) -> list[Path]:
        return sorted(self.cache.glob("vllm-*/installed.stamp"))

    @property
    def environment(self) -> Path:
        return self.stamps()[-1].parent

    @property
    def models(self) -> Path:
        return self.cache / "models"


@dataclass(frozen=True)
class EngineConfig:
    """How one server is started. Block size: a multiple of 32 tokens, the CPU attention's rule."""

    model: str = "tiny-llama"
    block_size: int = 32
    num_blocks: int = 512
    max_model_len: int = 4096
    hash_algorithm: str = "sha256"
    python_hash_seed: str | None = (
        None  # also the seed of vLLM's first parent hash; None leaves vLLM's default
    )
    integer_hashes: bool = True  # False: events carry the full hash bytes
    data_parallel_size: int = 1
    replay_buffer_steps: int = 10_000
    lora: str | None = None  # the folder name of an adapter beside the models
    extra_arguments: tuple[str, ...] = ()
    python_path: str | None = None  # what its processes import besides their own environment


@dataclass(frozen=True)
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Completion:
    request_id: str
    token_ids: list[int]
    prompt_tokens: int
    headers: dict[str, str] = field(repr=False, default_factory=dict)


class MetricsPage:
    """A Prometheus text page; `total` sums the samples of a name that carry the given labels."""

    _SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)")
    _LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

    def __init__(self, text: str) -> None:
        self.text = text
        self.samples = [
            (match[1], dict(self._LABEL.findall(match[2] or "")), float(match[3]))
            for match in map(self._SAMPLE.match, text.splitlines())
            if match
        ]

    def total(self, name: str, **labels: str) -> float:
        values = [
            value
            for sample, have, value in self.samples
            if sample == name and all(have.get(key) == want for key, want in labels.items())
        ]
        if not values:
            raise KeyError(f"no sample {name} with {labels} on the metrics page")
        return sum(values)


class VllmEngine:
    """One `vllm serve`. Its ports stay the same over `stop`, `kill` and `start`; `close` gives them
    back.

    Start two at once by calling `start` on both and then `wait_healthy` on both.
    """

    def __init__(self, installation: Installation, config: EngineConfig, log_path: Path) -> None:
        self.installation = installation
        self.config = config
        self.log_path = log_path
        # One range: HTTP, then an event port a rank, then a replay port a rank (vLLM adds the rank
        # to the base).
        ranks = config.data_parallel_size
        self._ports = PortRange(1 + 2 * ranks)
        self.http_port = self._ports.first
        self.event_ports = [self.http_port + 1 + rank for rank in range(ranks)]
        self.replay_ports = [self.http_port + 1 + ranks + rank for rank in range(ranks)]
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.topic = f"kv@127.0.0.1:{self.http_port}@{config.model}"
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        config = self.config
        events = {
            "enable_kv_cache_events": True,
            "publisher": "zmq",
            # vLLM binds only to a wildcard and connects to anything else.
            "endpoint": f"tcp://*:{self.event_ports[0]}",
            "replay_endpoint": f"tcp://*:{self.replay_ports[0]}",
            "buffer_steps": config.replay_buffer_steps,
            "topic": self.topic,
        }
        command = [str(self.installation.environment / "bin" / "vllm"), "serve"]
        # Model and adapter are named relative to the working directory: vLLM hashes an adapter's
        # path into its block keys and shows paths to clients, and neither may depend on the
        # machine.
        command += [config.model, "--served-model-name", config.model]
        command += [
            "--host",
            "127.0.0.1",
            "--port",
            str(self.http_port),
            "--enforce-eager",
            "--dtype",
            "bfloat16",
        ]
        command += ["--max-model-len", str(config.max_model_len), "--max-num-seqs", "8"]
        command += [
            "--block-size",
            str(config.block_size),
            "--num-gpu-blocks-override",
            str(config.num_blocks),
        ]
        command += ["--enable-prefix-caching", "--prefix-caching-hash-algo", config.hash_algorithm]
        command += ["--kv-events-config", json.dumps(events)]
        if config.data_parallel_size > 1:
            command += [
                "--data-parallel-size",
                str(config.data_parallel_size),
                "--api-server-count",
                "1",
            ]
        if config.lora:
            command += [
                "--enable-lora",
                "--max-lora-rank",
                "8",
                "--lora-modules",
                f"{config.lora}={config.lora}",
            ]
        return command + list(config.extra_arguments)

    def environment(self) -> dict[str, str]:
        inherited = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("PYTHON", "VLLM_"))
        }
        runtime = self.installation.cache / "runtime"
        environment = inherited | {
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": "1",
            "VLLM_HOST_IP": "127.0.0.1",
            "VLLM_SERVER_DEV_MODE": "1",  # opens /reset_prefix_cache
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_CACHE_ROOT": str(runtime / "vllm"),
            "VLLM_CONFIG_ROOT": str(runtime / "vllm-config"),
            "HF_HOME": str(runtime / "huggingface"),
            "HF_HUB_OFFLINE": "1",
            "VLLM_KV_EVENTS_USE_INT_BLOCK_HASHES": "1" if self.config.integer_hashes else "0",
        }
        if self.config.python_path is not None:
            environment["PYTHONPATH"] = self.config.python_path
        if self.config.python_hash_seed is not None:
            environment["PYTHONHASHSEED"] = self.config.python_hash_seed
        return environment

    def start(self) -> None:
        """Starts the server and returns at once; `wait_healthy` says when it serves."""
        if self._process is not None:
            raise EngineError(f"{self.url} is already started")
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("ab") as log:
            # A session of its own: the engine cores are the server's children, and all must go
            # together.
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment(),
                cwd=self.installation.models,
                start_new_session=True,
            )

    def wait_healthy(self, timeout_s: float = START_TIMEOUT_S) -> None:
        deadline = time.monotonic() + timeout_s
        while True:
            if self._process is None or self._process.poll() is not None:
                raise self._failed("died while starting")
            try:
                if self.request("GET", "/health", timeout_s=5).status == 200:
                    return
            except OSError:
                pass  # not listening yet
            if time.monotonic() > deadline:
                raise self._failed(f"was not healthy after {timeout_s:.0f} s")
            time.sleep(0.1)

    def stop(self, timeout_s: float = 30.0) -> None:
        """Asks the server to end, and ends it after `timeout_s`. Harmless when it does not run."""
        if self._process is None:
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        self.kill()

    def kill(self) -> None:
        """SIGKILL to the server and its engine cores at once, as a machine that loses power."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def close(self) -> None:
        self.stop()
        self._ports.close()

    def __enter__(self) -> "VllmEngine":
        self.start()
        try:
            self.wait_healthy()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _failed(self, what: str) -> EngineError:
        lines = (
            self.log_path.read_text(errors="replace").splitlines() if self.log_path.exists() else []
        )
        # The root cause is often an engine core's, hundreds of lines above the server's own
        # traceback.
        causes = [
            line for line in lines[:-30] if re.search(r" ERROR .*\w(Error|Exception): ", line)
        ]
        shown = "\n".join([*causes[:5], "...", *lines[-30:]])
        return EngineError(f"vLLM at {self.url} {what}; from {self.log_path}:\n{shown}")

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: dict[str, str] | None = None,
        timeout_s: float = 120.0,
    ) -> Response:
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=timeout_s)
        try:
            connection.request(method, path, *_encoded(body, headers))
            answer = connection.getresponse()
            return Response(
                answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
            )
        finally:
            connection.close()

    def metrics(self) -> MetricsPage:
        return MetricsPage(self.request("GET", "/metrics").body.decode())

    def prefix_cache_hits(self, dp_rank: int | None = None) -> int:
        """Prompt tokens found in the prefix cache since the start: of one DP rank, or of all."""
        labels = {} if dp_rank is None else {"engine": str(dp_rank)}
        return int(self.metrics().total("vllm:prefix_cache_hits_total", **labels))

    def wait_idle(self, timeout_s: float = 60.0) -> None:
        """Returns when no request runs or waits, those included whose clients hung up."""
        deadline = time.monotonic() + timeout_s
        while True:
            page = self.metrics()
            if not page.total("vllm:num_requests_running") + page.total(
                "vllm:num_requests_waiting"
            ):
                return
            if time.monotonic() > deadline:
                raise self._failed(f"was not idle after {timeout_s:.0f} s")
            time.sleep(0.05)

    def reset_prefix_cache(self) -> bool:
        """Empties the prefix cache; False when vLLM refused, which it does while any request holds
        blocks.

        The AllBlocksCleared event is published with the next step that the engine runs, not before.
        """
        return bool(self.request("POST", "/reset_prefix_cache").json()["success"])

    def complete(
        self,
        tokens: list[int],
        max_tokens: int,
        *,
        model: str | None = None,
        headers: dict[str, str] | None = None,
        **parameters: object,
    ) -> Completion:
        """Greedy completion of exactly `max_tokens` tokens."""
        body = self.completion_body(tokens, max_tokens, model=model, **parameters)
        response = self.request("POST", "/v1/completions", body, headers)
        if response.status != 200:
            raise self._failed(f"answered {response.status}: {response.body[:500]!r}")
        answer = response.json()
        return Completion(
            answer["id"],
            answer["choices"][0]["token_ids"],
            answer["usage"]["prompt_tokens"],
            response.headers,
        )

    def stream(self, tokens: list[int], max_tokens: int, **parameters: object) -> Iterator[bytes]:
        """The data of each server-sent event as it comes; closing the generator hangs up on the
        engine.

        Raises ConnectionError when the engine hangs up before its last event, `[DONE]`.
        """
        body = self.completion_body(tokens, max_tokens, stream=True, **parameters)
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=120)
        try:
            connection.request("POST", "/v1/completions", *_encoded(body, None))
            answer = connection.getresponse()
            if answer.status != 200:
                raise self._failed(f"answered {answer.status}: {answer.read(500)!r}")
            # http.client reports a chunked body that breaks off between two lines as a proper end.
            data = b""
            for line in answer:
                if line.startswith(b"data: "):
                    data = line[len(b"data: ") :].strip()
                    yield data
            if data != b"[DONE]":
                raise ConnectionError(f"{self.url} hung up in mid-stream, after {data[:80]!r}")
        finally:
            connection.close()

    def completion_body(
        self, tokens: list[int], max_tokens: int, *, model: str | None = None, **parameters: object
    ) -> dict[str, object]:
        return {
            "model": model or self.config.model,
            "prompt": tokens,
            "max_tokens": max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "return_token_ids": True,
            **parameters,
        }


def _encoded(body: object, headers: dict[str, str] | None) -> tuple[bytes | None, dict[str, str]]:
    if body is None:
        return None, headers or {}
    return json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})}
