"""The kernels compile for every architecture that they are for, and are what the CPU runs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from cuda import OnHost

KERNELS = sorted((Path(__file__).resolve().parents[2] / "kernels").glob("*.cu"))
PTX_BYTES = {"u64": 8, "b64": 8, "s64": 8, "u32": 4, "b32": 4, "s32": 4, "f32": 4}


def compile_kernel(nvcc: Path, source: Path, *flags: str | Path) -> None:
    strict = ["-std=c++17", "-O3", "-Werror", "all-warnings", "-Wno-deprecated-gpu-targets"]
    subprocess.run([nvcc, *strict, *flags, source], check=True)


@pytest.mark.parametrize("architecture", ["80", "90a", "100a"])
@pytest.mark.parametrize("source", KERNELS, ids=lambda source: source.stem)
def test_a_kernel_compiles(nvcc: Path, source: Path, architecture: str, tmp_path: Path) -> None:
    cubin = tmp_path / "kernel.cubin"
    target = [f"-arch=compute_{architecture}", f"-code=sm_{architecture}"]
    compile_kernel(nvcc, source, *target, "-cubin", "-o", cubin)
    assert cubin.read_bytes().startswith(b"\x7fELF")


@pytest.mark.parametrize("source", KERNELS, ids=lambda source: source.stem)
def test_the_cpu_runs_every_kernel_with_the_same_parameters(
    nvcc: Path, source: Path, on_host: OnHost, tmp_path: Path
) -> None:
    ptx = tmp_path / "kernel.ptx"
    compile_kernel(nvcc, source, "-arch=compute_80", "-ptx", "-o", ptx)
    entries = re.findall(r"\.entry (\w+)\(([^)]*)\)", ptx.read_text())
    assert entries, f"{source.name} has no kernel"
    for name, parameters in entries:
        sizes = [PTX_BYTES[of] for of in re.findall(r"\.param \.(\w+)", parameters)]
        on_cpu = on_host.kernel(name)
        assert on_cpu is not None, f"tests/fakes/cuda_host/kernels.cpp lacks {name}"
        assert list(on_cpu.parameter_bytes[: on_cpu.parameters]) == sizes, name
