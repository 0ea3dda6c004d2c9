"""The decision log: what was decided under load is decided again, bit for bit."""

from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from llmd_sched import ReplayError, Router, replay, sim

DECISIONS = 10_000
THREADS = 8


@pytest.mark.timeout(300)
@pytest.mark.parametrize("profile", ["default", "llm-d", "random"])
def test_ten_thousand_decisions_under_load_replay_bit_for_bit(tmp_path: Path, profile: str) -> None:
    path = tmp_path / "decisions.log"
    router = Router(block_size=16, profile=profile, seed=5, record=path)
    for index in range(12):
        router.add_endpoint(f"http://{index}", model="m", labels={"parity": str(index % 2)})
    router.add_scorer("mine", lambda features: np.sqrt(features["matched_tokens"] / 2000))

    def client(thread: int) -> None:
        rng = np.random.default_rng(thread)
        shared = np.arange(256, dtype=np.uint32)
        for request in range(DECISIONS // THREADS):
            own = rng.integers(0, 1000, rng.integers(1, 400), dtype=np.uint32)
            prompt = np.concatenate([shared, own])
            options = {"required_labels": {"parity": "1"}} if request % 7 == 0 else {}
            decision = router.route(prompt, session_id=f"{thread}-{request % 9}", **options)
            router.first_token(decision)
            router.progress(decision, 5)
            if request % 5:
                router.finish(decision, 9)
            elif request % 10:
                router.cancel(decision)
            if thread == 0 and request % 100 == 50:
                router.cordon(f"http://{request % 12}")
                router.remove_endpoint(f"http://{(request + 1) % 12}")
                router.add_endpoint(f"http://{(request + 1) % 12}", model="m")
                router.uncordon(f"http://{request % 12}")

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(client, range(THREADS)))
    router.close()

    report = replay(path)
    assert report.decisions == DECISIONS
    assert report.mismatches == 0
    assert report.first_mismatch is None
    assert (report.lost, report.complete) == (0, True)
    assert report.identical


def recorded(path: Path, decisions: int = 20) -> Path:
    with Router(record=path) as router:
        router.add_endpoint("http://a")
        for index in range(decisions):
            router.finish(router.route(range(index, index + 100)))
    return path


def test_held_requests_replay(tmp_path: Path) -> None:
    path = tmp_path / "decisions.log"
    with Router(record=path) as router:
        router.add_endpoint("http://a")
        router.cordon("http://a")
        with ThreadPoolExecutor(4) as pool:
            waiting = [pool.submit(router.route, [1, 2], hold_ms=30_000) for _ in range(4)]
            while router.stats()["requests"]["holding_now"] < 4:
                pass
            router.uncordon("http://a")
            assert {it.result().address for it in waiting} == {"http://a"}
    report = replay(path)
    assert (report.decisions, report.identical) == (4, True)


def test_a_log_that_was_cut_off_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    whole = recorded(tmp_path / "whole.log").read_bytes()
    cut = tmp_path / "cut.log"
    cut.write_bytes(whole[: len(whole) * 2 // 3])
    report = replay(cut)
    assert not report.complete
    assert 0 < report.decisions < 20
    assert report.identical


def test_a_decision_that_comes_out_otherwise_is_found(tmp_path: Path) -> None:
    path = tmp_path / "decisions.log"
    with Router(profile="random", seed=5, record=path) as router:
        for index in range(4):
            router.add_endpoint(f"http://{index}")
        for _ in range(64):
            router.finish(router.route([1]))
    content = path.read_bytes()
    assert content.count(b'"seed":5') == 1
    path.write_bytes(content.replace(b'"seed":5', b'"seed":6'))
    report = replay(path)
    assert not report.identical
    assert 0 < report.mismatches <= 64
    assert report.first_mismatch is not None
    assert report.first_mismatch >= 4, "the four that joined did as they did then"


def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    whole = recorded(tmp_path / "whole.log").read_bytes()
    cases = {
        b"": "not a decision log",
        b"hello, world": "not a decision log",
        whole[:8] + struct.pack("<I", 2**31) + whole[12:]: "a length of 2147483648 bytes",
        whole[:12] + b"\xc1" * 400: "damaged at frame 0",
        whole[:8] + whole[12:]: "damaged at frame 0|a length of",
    }
    for content, message in cases.items():
        path = tmp_path / "bad.log"
        path.write_bytes(content)
        with pytest.raises(ReplayError, match=message):
            replay(path)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.log"):
        replay(tmp_path / "nowhere.log")


def test_a_log_of_other_rules_names_the_versions_and_is_still_a_workload(tmp_path: Path) -> None:
    path = recorded(tmp_path / "decisions.log")
    ours = path.read_bytes()
    assert ours.count(b"\xa6Header\x94\x03\xa5") == 1

    def of_format(number: int) -> None:
        header = b"\xa6Header\x94" + bytes([number, 0xA5])
        path.write_bytes(ours.replace(b"\xa6Header\x94\x03\xa5", header))

    of_format(1)
    with pytest.raises(ReplayError, match=r"format 1, by release 0\..*decisions of format 3 again"):
        replay(path)
    assert len(sim.Workload.from_decision_log(path)) == 20
    of_format(4)
    for read in (replay, sim.Workload.from_decision_log):
        with pytest.raises(ReplayError, match=r"format 4, by release 0\..*reads formats 1 to 3"):
            read(path)


def test_a_log_is_never_overwritten(tmp_path: Path) -> None:
    path = recorded(tmp_path / "decisions.log")
    with pytest.raises(FileExistsError, match="cannot be begun"):
        Router(record=path)


def test_what_the_log_did_is_told(tmp_path: Path) -> None:
    with Router(record=tmp_path / "decisions.log") as router:
        router.add_endpoint("http://a")
        router.route([1])
        record = router.stats()["record"]
        assert (record["lost"], record["failed"]) == (0, False)
    assert Router().stats()["record"] is None
