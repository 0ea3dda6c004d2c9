"""What the tests of the kernels share.

LLMD_REQUIRE is a comma-separated list of what must not be missing: with `nvcc` in it, an absent
compiler fails the tests that want one instead of skipping them; so does `gpu` an absent GPU.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

import pytest
from cuda import NoDeviceError, OnDevice, OnHost

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("LLMD_CACHE", Path.home() / ".cache/llmd-sched"))


def absent(kind: str, why: str) -> None:
    if kind in os.environ.get("LLMD_REQUIRE", "").split(","):
        pytest.fail(f"LLMD_REQUIRE names {kind}, but {why}", pytrace=False)
    pytest.skip(why)


@pytest.fixture(scope="session")
def nvcc() -> Path:
    """NVIDIA's compiler, which `make nvcc` installs."""
    found = sorted(CACHE.glob("nvcc-*/lib/python3*/site-packages/nvidia/cu13/bin/nvcc"))
    if not found:
        absent("nvcc", "there is no nvcc: run `make nvcc`")
    return found[-1]


@pytest.fixture(scope="session")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the kernels for this CPU and the fake driver."""
    out = tmp_path_factory.mktemp("fakes")
    subprocess.run([ROOT / "tests/fakes/build.sh", out], check=True)
    return out


@pytest.fixture(scope="session")
def on_host(fakes: Path) -> OnHost:
    return OnHost(ctypes.CDLL(str(fakes / "libkernels_on_host.so")))


@pytest.fixture(scope="session")
def on_gpu(nvcc: Path, tmp_path_factory: pytest.TempPathFactory) -> OnDevice:
    """The first GPU, with every kernel compiled for it."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        return OnDevice(driver, nvcc, ROOT / "kernels", tmp_path_factory.mktemp("cubin"))
    except (OSError, NoDeviceError) as error:
        absent("gpu", f"there is no GPU: {error}")
        raise
