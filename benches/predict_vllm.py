"""How well latencies are predicted on real engines: `make bench-predict-vllm`.

Routes made-up requests to real vLLM servers on CPUs as a gateway does, and compares what each
decision expected with what its client saw. Prompts are lognormal, most begin with one of a few
shared texts, and one to eight clients ask at a time. Played three times, from caches that are
empty: by a router that knows nothing of the engines, by one that is given their step times as
measured alone beforehand, and by one that takes up what the first has learned.

On a machine that does other work too, a latency is partly what the machine did. So two figures
stand beside the errors: `repeats`, by how much equal requests, each alone, differ from their own
median; and `running_median_ape`, the error of predicting the median of all that came before. The
mean error (MAPE) follows the few requests that met a stall of the machine; the median does not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from engine_client import Answered, Asked, Client, Tokens
from llmd_sched import Router
from llmd_sched.demo.engines import reset_prefix_cache

VOCABULARY = range(5, 1000)
SHARED_TEXTS, SHARED_TOKENS, SHARE_THAT_SHARE = 4, 96, 0.6
# So many clients at a time, in turns.
CLIENTS = (1, 2, 4, 8, 6, 3)
REQUESTS_A_TURN = 25
# Tokens; a shorter answer may come in one piece, which says nothing of a time per token.
LONGEST_PROMPT, ANSWERS = 400, (8, 48)
REPEATS = 20


def text(rng: random.Random, tokens: int) -> Tokens:
    return np.array(rng.choices(VOCABULARY, k=tokens), dtype=np.uint32)


def workload(count: int) -> list[Asked]:
    """The same requests in each run."""
    rng = random.Random(1)
    shared = [text(rng, SHARED_TOKENS) for _ in range(SHARED_TEXTS)]
    made = []
    for _ in range(count):
        own = text(rng, min(LONGEST_PROMPT, max(8, round(rng.lognormvariate(math.log(80), 0.8)))))
        prefix = rng.choice(shared) if rng.random() < SHARE_THAT_SHARE else own[:0]
        output = min(ANSWERS[1], max(ANSWERS[0], round(rng.lognormvariate(math.log(16), 0.5))))
        made.append(Asked(np.concatenate([prefix, own])[:LONGEST_PROMPT], output))
    return made


async def play(client: Client, requests: Sequence[Asked], say: str) -> list[Answered]:
    """Answers in the order in which the requests were sent."""
    answers: list[Answered | None] = [None] * len(requests)
    numbers = iter(range(len(requests)))

    async def work(until: int) -> None:
        for number in numbers:
            answers[number] = await client.ask(requests[number])
            if number + 1 >= until:
                return

    turn = 0
    while None in answers:
        until = (turn + 1) * REQUESTS_A_TURN
        await asyncio.gather(*(work(until) for _ in range(CLIENTS[turn % len(CLIENTS)])))
        turn += 1
        print(f"\r{say}: {sum(it is not None for it in answers)}", end="", file=sys.stderr)
    print(file=sys.stderr)
    return [it for it in answers if it is not None]


async def calibrated(client: Client, address: str) -> tuple[str, dict[str, float]]:
    """The label `engine-profile` of an engine from what it takes alone, and how repeats differ."""
    rng = random.Random(2)
    prefills, rows = [], []
    for tokens in (16, 32, 64, 128, 256, 400):
        tries = [await client.ask(Asked(text(rng, tokens), 2), address) for _ in range(3)]
        prefills.append(statistics.median(it.ttft_ms for it in tries))
        rows.append([1.0, tokens, tokens * tokens / 2])
    prefill = non_negative(np.array(rows), np.array(prefills))
    steps, rows = [], []
    for batch, tokens in ((1, 32), (1, 400), (4, 32), (4, 128), (8, 32), (8, 128)):
        asked = [Asked(text(rng, tokens), 24) for _ in range(batch)]
        # Once to fill the cache, so that no prefill is beside the steps that are timed.
        for _ in range(2):
            together = await asyncio.gather(*(client.ask(it, address) for it in asked))
        steps.append(statistics.median(it.tpot_ms for it in together))
        rows.append([1.0, batch, batch * (tokens + 12.0)])
    step = non_negative(np.array(rows), np.array(steps))
    alone = [await client.ask(Asked(text(rng, 128), 24), address) for _ in range(REPEATS)]
    differ = {
        name: spread([getattr(it, f"{name}_ms") for it in alone]) for name in ("ttft", "tpot")
    }
    return "custom:" + ",".join(f"{it:.9g}" for it in [*prefill, *step]), differ


def non_negative(rows: Any, values: Any) -> list[float]:
    """Least squares on relative residuals with coefficients that are not negative: those that would
    be are left out, the most negative first.
    """
    scaled, used = rows / values[:, None], list(range(rows.shape[1]))
    while True:
        found = np.linalg.lstsq(scaled[:, used], np.ones(len(values)), rcond=None)[0]
        if found.min() >= 0 or len(used) == 1:
            coefficients = [0.0] * rows.shape[1]
            for at, value in zip(used, found, strict=True):
                coefficients[at] = max(0.0, float(value))
            return coefficients
        del used[int(found.argmin())]


def spread(values: Sequence[float]) -> float:
    """The median distance from the median, relative to it."""
    middle = statistics.median(values)
    return statistics.median(abs(it - middle) for it in values) / middle


def judged(
    answers: Sequence[Answered], name: str, expects: str = ""
) -> dict[str, float | int | None]:
    """Errors of what was predicted of these (``expects``, by default the mean), relative to what
    was measured.
    """
    expects = expects or name
    # An answer that came in one piece, since its client was kept waiting, has no time per token.
    answers = [it for it in answers if getattr(it, f"{name}_ms") > 0]
    measured = [getattr(it, f"{name}_ms") for it in answers]
    pairs = [
        (expected, it)
        for expected, it in zip((a.expected[expects] for a in answers), measured, strict=True)
        if expected is not None
    ]
    figures: dict[str, float | int | None] = {"requests": len(answers), "predicted": len(pairs)}
    if not pairs:
        return figures
    errors = [expected / it - 1.0 for expected, it in pairs]
    covered = [
        it <= a.expected[f"{name}_p90"]
        for a, it in zip(answers, measured, strict=True)
        if a.expected[f"{name}_p90"] is not None
    ]
    return figures | {
        "mape": round(statistics.fmean(map(abs, errors)), 4),
        "median_ape": round(statistics.median(map(abs, errors)), 4),
        "median_bias": round(statistics.median(errors), 4),
        "p90_coverage": round(statistics.fmean(covered), 4),
        "running_median_ape": round(running_median_error(measured), 4),
        "rank_correlation": round(rank_correlation(pairs), 4),
    }


def running_median_error(measured: Sequence[float]) -> float:
    """The median error of the median of all before as the prediction."""
    errors = [
        abs(statistics.median(measured[:at]) / measured[at] - 1.0) for at in range(1, len(measured))
    ]
    return statistics.median(errors) if errors else math.nan


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float:
    """Spearman's: whether what was expected to take longer did, whatever the machine's speed."""
    expected, measured = (np.argsort(np.argsort(column)) for column in zip(*pairs, strict=True))
    return float(np.corrcoef(expected, measured)[0, 1])


async def measure(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    saved = folder / "predictor.json"
    requests = workload(args.requests)
    timeout = aiohttp.ClientTimeout(total=None, sock_read=300)
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=3.0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:

        async def run(
            what: Callable[[Client], Any],
            config: dict[str, Any],
            labels: dict[str, str] | None = None,
            save: Path | None = None,
        ) -> tuple[Any, dict[str, Any]]:
            for url in args.urls:
                await asyncio.to_thread(reset_prefix_cache, url, args.model)
            with Router({"block_size": args.block_size, **config}, seed=1) as router:
                for url in args.urls:
                    await asyncio.to_thread(router.discover, url, labels=labels)
                    await asyncio.to_thread(router.wait_kv_connected, url, timeout_s=60.0)
                came = await what(Client(http, router, args.model))
                if save is not None:
                    router.save_predictor(save)
                return came, router.stats()["requests"]

        print("alone", file=sys.stderr)
        (profile, differ), _ = await run(lambda it: calibrated(it, args.urls[0]), {})
        results: dict[str, Any] = {"engine-profile": profile, "repeats": differ}
        starts = {
            "nothing": {"config": {}, "save": saved},
            "given": {"config": {}, "labels": {"engine-profile": profile}},
            "saved": {"config": {"predictor": str(saved)}},
        }
        for start, known in starts.items():
            answers, stats = await run(lambda it, say=start: play(it, requests, say), **known)
            if args.rows:
                with args.rows.open("a") as file:
                    for it in answers:
                        print(json.dumps({"start": start, **vars(it)}), file=file)
            parts = {"first": answers[: args.warmup], "later": answers[args.warmup :]}
            results[start] = {
                "drift_alarms": stats["drift_alarms"],
                **{
                    f"{expects}, {part}": judged(of, expects.split("_")[0], expects)
                    for expects in ("ttft", "tpot", "tpot_p50")
                    for part, of in parts.items()
                },
            }
            report(start, results[start])
    return results


def report(start: str, found: dict[str, Any]) -> None:
    for what, figures in found.items():
        if isinstance(figures, dict):
            shown = " ".join(f"{name}={value}" for name, value in figures.items())
            print(f"{start:8} {what:15} {shown}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("urls", nargs="+", help="engines of one model")
    parser.add_argument("--model", default="small-llama")
    parser.add_argument("--block-size", type=int, default=32)
    parser.add_argument("--requests", type=int, default=240)
    parser.add_argument("--warmup", type=int, default=60, help="requests judged apart")
    parser.add_argument("--rows", type=Path, help="append each request here, a line of JSON each")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = asyncio.run(measure(args, Path(folder)))
    print(f"repeats of a request differ by {results['repeats']}")
    print("BENCH", json.dumps({"bench": "predict-vllm", "results": results}))


if __name__ == "__main__":
    main()
