"""The house keeps its order: a room imports only rooms listed above it, and licences are allowed.

The order of rooms is the order of ``pub mod`` lines in each crate's ``lib.rs``.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CRATES = ["brain", "data", "bodies"]

# Permissive licences that a wheel may carry along under Apache-2.0.
ALLOWED_LICENCES = {
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
}


def rooms(crate: str) -> list[str]:
    """Rooms of a crate, lowest first."""
    lib = (ROOT / "src" / crate / "lib.rs").read_text()
    return re.findall(r"^pub mod (\w+);", lib, re.MULTILINE)


def files_of(crate: str, room: str) -> list[Path]:
    folder = ROOT / "src" / crate / room
    single = folder.with_suffix(".rs")
    return [*([single] if single.exists() else []), *sorted(folder.rglob("*.rs"))]


def imported_rooms(source: str, known: list[str]) -> set[str]:
    """Rooms that a file names through ``crate::``, tests left out."""
    code = re.sub(r"//.*", "", source)
    code = re.split(r"#\[cfg\(test\)\]\s*mod \w+ \{", code)[0]
    named = set(re.findall(r"\bcrate::(\w+)", code))
    for group in re.findall(r"\bcrate::\{((?:[^{}]|\{[^{}]*\})*)\}", code):
        named |= set(re.findall(r"(?:^|,)\s*(\w+)", re.sub(r"\{[^{}]*\}", "", group)))
    return named & set(known)


@pytest.mark.parametrize("crate", CRATES)
def test_a_room_imports_only_rooms_listed_above_it(crate: str) -> None:
    order = rooms(crate)
    assert order, f"src/{crate}/lib.rs lists no rooms"
    upward = [
        f"{path.relative_to(ROOT)} imports {named}"
        for position, room in enumerate(order)
        for path in files_of(crate, room)
        if "test" not in path.stem and "tests" not in path.parts
        for named in sorted(imported_rooms(path.read_text(), order))
        if order.index(named) > position
    ]
    assert not upward


def test_an_import_up_the_list_is_seen() -> None:
    order = ["ids", "prompt", "index"]
    assert imported_rooms("use crate::index::Matches;", order) == {"index"}
    assert imported_rooms("use crate::{ids, index::{A, B}};", order) == {"ids", "index"}
    assert imported_rooms("// crate::index\nlet x = 1;", order) == set()
    assert imported_rooms("#[cfg(test)]\nmod tests {\n use crate::index::A; }", order) == set()


def test_the_brain_depends_on_nothing_that_does_io() -> None:
    listed = (ROOT / "src/brain/Cargo.toml").read_text().split("[dev-dependencies]")[0]
    forbidden = ["tokio", "hyper", "axum", "mio", "socket2", "rand", "tracing", "chrono"]
    assert [name for name in forbidden if re.search(rf"^{name}\b", listed, re.MULTILINE)] == []


def test_every_dependency_has_an_allowed_licence() -> None:
    metadata = json.loads(
        subprocess.run(
            ["cargo", "metadata", "--format-version=1", "--locked", "--offline"],
            cwd=ROOT,
            check=True,
            capture_output=True,
        ).stdout
    )
    refused = {
        f"{package['name']} {package['version']}: {package['license']}"
        for package in metadata["packages"]
        if not is_allowed(package["license"] or "")
    }
    assert not refused


def is_allowed(expression: str) -> bool:
    """Whether one alternative of an SPDX expression is allowed in all its parts."""
    alternatives = re.split(r"\s+OR\s+|/", expression.replace("(", "").replace(")", ""))
    return any(
        all(part.strip() in ALLOWED_LICENCES for part in alternative.split(" AND "))
        for alternative in alternatives
    )
