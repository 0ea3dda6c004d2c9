"""The kernels on a GPU, to the bytes that they make on this CPU; skipped where there is no GPU.

The launches themselves are tried on the fake driver too, so that what a GPU would be asked is
known to be asked rightly.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cuda import OnDevice, OnHost
from launches import LAUNCHES


@pytest.mark.parametrize("name", LAUNCHES)
def test_a_gpu_makes_the_bytes_of_the_cpu(name: str, on_gpu: OnDevice, on_host: OnHost) -> None:
    found, expected = LAUNCHES[name](on_gpu.launch), LAUNCHES[name](on_host.launch)
    for output, array in expected.items():
        assert array.any(), f"{output} is what it was before"
        np.testing.assert_array_equal(
            found[output].view(np.uint8), array.view(np.uint8), err_msg=output
        )


def test_the_fake_driver_runs_this_file(nvcc: Path, fakes: Path) -> None:
    if os.environ.get("FAKE_CUDA_KERNELS"):
        pytest.skip("this is that run")
    environment = os.environ | {
        "LD_LIBRARY_PATH": str(fakes),
        "FAKE_CUDA_KERNELS": str(fakes / "libkernels_on_host.so"),
        "FAKE_CUDA_GUARD": "1",
        "LLMD_REQUIRE": "gpu,nvcc",
    }
    command = [sys.executable, "-m", "pytest", "-q", __file__, "-k", "gpu_makes"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert f"{len(LAUNCHES)} passed" in done.stdout
