"""Launches of the kernels: on a device through its driver, and on this CPU through the fake."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Grid = tuple[int, int]
# Arrays are pointers; numbers are of the kernel's own types.
Argument = Array | ctypes.c_int | ctypes.c_longlong


class NoDeviceError(Exception):
    """The driver found no device."""


class Dim3(ctypes.Structure):
    _fields_ = (("x", ctypes.c_uint), ("y", ctypes.c_uint), ("z", ctypes.c_uint))


RUN = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, Dim3, Dim3)


class Kernel(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("parameters", ctypes.c_size_t),
        ("parameter_bytes", ctypes.c_size_t * 8),
        ("run", RUN),
    )


def places(values: Sequence[Any]) -> Any:
    """An array of the values' addresses, as launches want it."""
    return (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))


class OnHost:
    """The kernels on this CPU."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        library.cuda_host_find.restype = ctypes.POINTER(Kernel)

    def kernel(self, name: str) -> Kernel | None:
        found = self.library.cuda_host_find(name.encode())
        return found.contents if found else None

    def launch(self, name: str, grid: Grid, threads: int, arguments: Sequence[Argument]) -> None:
        """Runs a kernel on arrays, which it changes in place."""
        kernel = self.kernel(name)
        assert kernel is not None, name
        values = [
            ctypes.c_void_p(given.ctypes.data) if isinstance(given, np.ndarray) else given
            for given in arguments
        ]
        sizes = [ctypes.sizeof(value) for value in values]
        assert list(kernel.parameter_bytes[: kernel.parameters]) == sizes, name
        assert kernel.run(places(values), Dim3(*grid, 1), Dim3(threads, 1, 1)), name


class OnDevice:
    """The kernels on a device."""

    def __init__(self, driver: ctypes.CDLL, nvcc: Path, kernels: Path, out: Path) -> None:
        self.driver = driver
        if driver.cuInit(0) != 0:
            raise NoDeviceError(f"cuInit says {driver.cuInit(0)}")
        context = ctypes.c_void_p()
        device = ctypes.c_int()
        self.call("cuDeviceGet", ctypes.byref(device), 0)
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self.call("cuCtxSetCurrent", context)
        self.modules = []
        architecture = f"{self.attribute(75, device)}{self.attribute(76, device)}"
        for source in sorted(kernels.glob("*.cu")):
            cubin = out / f"{source.stem}.cubin"
            target = [f"-arch=compute_{architecture}", f"-code=sm_{architecture}"]
            subprocess.run(
                [nvcc, "-std=c++17", "-O3", *target, "-cubin", "-o", cubin, source], check=True
            )
            module = ctypes.c_void_p()
            self.call("cuModuleLoadData", ctypes.byref(module), cubin.read_bytes())
            self.modules.append(module)

    def call(self, name: str, *arguments: Any) -> None:
        status = getattr(self.driver, name)(*arguments)
        assert status == 0, f"{name} says {status}"

    def attribute(self, number: int, device: ctypes.c_int) -> int:
        value = ctypes.c_int()
        self.call("cuDeviceGetAttribute", ctypes.byref(value), number, device)
        return value.value

    def function(self, name: str) -> ctypes.c_void_p:
        function = ctypes.c_void_p()
        for module in self.modules:
            get = self.driver.cuModuleGetFunction
            if get(ctypes.byref(function), module, name.encode()) == 0:
                return function
        raise AssertionError(f"no kernel {name}")

    def upload(self, array: Array) -> ctypes.c_uint64:
        address = ctypes.c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(array.nbytes, 1)))
        self.copy(address, ctypes.c_uint64(array.ctypes.data), array.nbytes)
        return address

    def copy(self, to: ctypes.c_uint64, source: ctypes.c_uint64, size: int) -> None:
        self.call("cuMemcpyAsync", to, source, ctypes.c_size_t(size), ctypes.c_void_p())
        self.call("cuStreamSynchronize", ctypes.c_void_p())

    def launch(self, name: str, grid: Grid, threads: int, arguments: Sequence[Argument]) -> None:
        """Runs a kernel on copies of the arrays, and copies them back."""
        arrays = [given for given in arguments if isinstance(given, np.ndarray)]
        addresses = {id(array): self.upload(array) for array in arrays}
        values = [
            addresses[id(given)] if isinstance(given, np.ndarray) else given for given in arguments
        ]
        shape = [*grid, 1, threads, 1, 1, 0]
        none = ctypes.c_void_p()
        self.call("cuLaunchKernel", self.function(name), *shape, none, places(values), none)
        for array in arrays:
            self.copy(ctypes.c_uint64(array.ctypes.data), addresses[id(array)], array.nbytes)
            self.call("cuMemFree_v2", addresses[id(array)])
