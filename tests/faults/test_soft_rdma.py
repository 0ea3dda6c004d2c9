"""The suite of transfers on a real RDMA stack: soft-RoCE in a virtual machine.

The machine emulates its processor, so what passes here is right and says nothing about speed; and
it is the kernel's software device, not a card. LLMD_REQUIRE with ``rdma`` in it turns what is
missing from a skip into a failure.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MACHINE = ROOT / "tests" / "fakes" / "soft_rdma"
PROGRAMS = ["qemu-system-x86_64", "busybox", "cpio", "depmod", "rdma", "apt-get", "dpkg-deb"]
# The machine is given so long, and once more where it never came to an end: alone it takes 40 s,
# and several times that beside a compiler.
BUDGET_S = 270
NEVER_ENDED = 99
# As many as the emulated processor does in a quarter of a minute.
TRANSFERS = 100


def missing(what: str) -> None:
    if "rdma" in os.environ.get("LLMD_REQUIRE", "").split(","):
        pytest.fail(f"LLMD_REQUIRE names rdma, but {what}", pytrace=False)
    pytest.skip(what)


@pytest.fixture(scope="module")
def machine() -> Path:
    path = f"{os.environ['PATH']}:/sbin:/usr/sbin"
    absent = [name for name in PROGRAMS if not shutil.which(name, path=path)]
    if absent:
        missing(f"there is no {', '.join(absent)}")
    cache = os.environ.get("LLMD_CACHE", str(Path.home() / ".cache" / "llmd-sched"))
    built = subprocess.run(
        ["bash", MACHINE / "build.sh", cache], capture_output=True, text=True, timeout=300
    )
    if built.returncode:
        missing(f"the machine could not be built: {built.stderr[-2000:]}")
    return Path(built.stdout.strip())


@pytest.fixture(scope="module")
def suite() -> Path:
    """The program of ``tests/rust/transfer``."""
    command = ["cargo", "test", "-p", "llmd-data", "--test", "transfer", "--no-run"]
    built = subprocess.run(
        [*command, "--message-format=json"],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
    )
    messages = map(json.loads, built.stdout.splitlines())
    [program] = [message["executable"] for message in messages if message.get("executable")]
    return Path(program)


@pytest.mark.timeout(700)
def test_every_promise_of_a_path_holds_by_rdma(machine: Path, suite: Path) -> None:
    # Where the machine sees it: it has its own /run, /dev and /proc, and all else is the host's.
    script = suite.with_name("soft-rdma.sh")
    script.write_text(
        f"export LLMD_RDMA_DEVICE=rxe0 LLMD_TRANSFERS={TRANSFERS} LLMD_FUZZ_SECONDS=0\n"
        f"exec {suite} --nocapture --test-threads=2\n"
    )
    command = ["bash", MACHINE / "run.sh", machine, script, str(BUDGET_S)]
    for _ in range(2):
        ran = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=BUDGET_S + 30)
        if ran.returncode != NEVER_ENDED:
            break
    assert ran.returncode == 0, ran.stdout[-6000:]
    assert "memory_is_registered_once ... ok" in ran.stdout
    assert "test result: ok." in ran.stdout
