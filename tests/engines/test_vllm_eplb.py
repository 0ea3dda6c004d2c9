"""Experts placed inside a real vLLM: its plugin loader, its table of policies, its caller."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_vllm_inside import inside
from vllm_engine import Installation


def answer_of(
    installation: Installation,
    path: str,
    log: Path,
    monkeypatch: pytest.MonkeyPatch,
    **environment: str,
) -> dict[str, Any]:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return inside(installation, path, log, script="vllm_eplb.py")


@pytest.mark.timeout(600)
def test_vllm_s_balancing_thread_asks_us_and_moves_less_for_more(
    vllm_installation: Installation,
    importable: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorded = tmp_path / "load.npy"
    answers = [
        answer_of(
            vllm_installation,
            importable,
            tmp_path / f"eplb-{rank}.log",
            monkeypatch,
            LLMD_EPLB=f"mend,record={recorded}",
        )
        for rank in (0, 1)
    ]
    first = answers[0]
    assert first["policy"] == "LlmdEplbPolicy"
    assert first["dtype"] == "torch.int64"
    assert first["is_whole"]
    # Every rank asks for itself: two processes, one answer.
    assert answers[0]["digest"] == answers[1]["digest"]
    assert first["balance"][0] <= 1.005 < first["vllm_balance"][0]
    assert first["balance"][1] <= 1.03
    assert first["moved"] <= 16 / 288
    assert first["vllm_moved"] > 10 * first["moved"]
    assert np.load(recorded).shape == (12, 256)


@pytest.mark.timeout(600)
def test_nothing_changes_where_nobody_asks(
    vllm_installation: Installation,
    importable: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LLMD_EPLB", raising=False)
    answer = answer_of(vllm_installation, importable, tmp_path / "plain.log", monkeypatch)
    assert answer["policy"] == "DefaultEplbPolicy"
