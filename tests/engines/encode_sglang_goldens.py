#!/usr/bin/env python3
"""SGLang's KV event frames, encoded from its wheels' own struct definitions:
encode_sglang_goldens.py OUT

SGLang does not run on the machines that these tests have, so nothing here was captured live.
Instead each wheel of VERSIONS is downloaded, the struct definitions are taken out of its source
unchanged, and msgspec, which SGLang encodes with, encodes the same history with each. The versions
mark the wire format's three ages. Run it as `make goldens`, with a Python that has msgspec and pip.
For each version it writes into OUT:

  sglang-<version>.events.bin    topic, sequence and payload of each batch, repeated:
                                 [u32LE frames]([u32LE length][bytes])*
  sglang-<version>.events.json   what was encoded, field by field

and a MANIFEST.json that says how all of it was made.
"""

import ast
import enum
import hashlib
import itertools
import json
import struct
import subprocess
import sys
import tempfile
import typing
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec

VERSIONS = {
    "0.5.5": "events are positional arrays; BlockStored has five fields and no medium",
    "0.5.15": "events are positional arrays; a medium may follow",
    "0.5.23": "events are maps tagged with their type, as vLLM's",
}
STRUCTS = (
    "EventBatch",
    "KVCacheEvent",
    "StorageMedium",
    "BlockStored",
    "BlockRemoved",
    "AllBlocksCleared",
    "KVEventBatch",
)
TOPIC = b"kv-events"


def definitions(wheel: Path) -> SimpleNamespace:
    """The wheel's own struct classes, without importing the wheel (which wants torch and a GPU)."""
    with zipfile.ZipFile(wheel) as archive:
        source = archive.read("sglang/srt/disaggregation/kv_events.py").decode()
    classes = [
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name in STRUCTS
    ]
    names: dict[str, Any] = {"msgspec": msgspec, "enum": enum, **vars(typing)}
    exec(compile(ast.Module(classes, []), str(wheel), "exec"), names)
    return SimpleNamespace(**{name: names[name] for name in STRUCTS if name in names})


def chain(tokens: list[int], page_size: int, salt: str = "") -> list[int]:
    """A chained hash a page, cut to a signed 64-bit integer as SGLang cuts its own."""
    hashes, parent = [], salt.encode()
    for start in range(0, len(tokens), page_size):
        page = tokens[start : start + page_size]
        parent = hashlib.sha256(parent + struct.pack(f"<{len(page)}I", *page)).digest()
        hashes.append(int.from_bytes(parent[:8], "big", signed=True))
    return hashes


def history() -> list[list[tuple[str, dict[str, Any]]]]:
    """Batches of (struct, fields). A version's structs take the fields that they know."""
    tokens = [5 + (i * 7) % 900 for i in range(96)]
    pages = chain(tokens, 16)
    short = chain(tokens[:4], 1)
    salted = chain(tokens[:32], 16, salt="tenant-A")

    def stored(
        hashes: list[int], parent: int | None, of: Any, page_size: int, **more: Any
    ) -> tuple[str, dict]:
        fields = {
            "block_hashes": hashes,
            "parent_block_hash": parent,
            "token_ids": of,
            "block_size": page_size,
        }
        return "BlockStored", fields | {"lora_id": None, "medium": "GPU"} | more

    def removed(hashes: list[int], medium: str = "GPU") -> tuple[str, dict]:
        return "BlockRemoved", {"block_hashes": hashes, "medium": medium}

    return [
        [stored(pages[:4], None, tokens[:64], 16)],
        [stored(pages[4:], pages[3], tokens[64:], 16)],
        # A page per token, as SGLang's default page size has it.
        [stored(short, None, tokens[:4], 1)],
        # Written back to host memory, then dropped from the GPU; then from the host too.
        [stored(pages[4:], pages[3], tokens[64:], 16, medium="CPU_PINNED"), removed(pages[4:])],
        [removed(pages[4:], "CPU_PINNED"), removed([short[3]])],
        [
            stored(
                salted,
                None,
                tokens[:32],
                16,
                cache_salt="tenant-A",
                session_id="session-1",
                lora_name="my-lora",
            )
        ],
        # Speculative decoding with EAGLE keys pages by pairs of neighbouring tokens.
        [stored([pages[0] ^ 1], None, list(itertools.pairwise(tokens[:17])), 16)],
        [("AllBlocksCleared", {})],
        [
            stored(pages[:1], None, tokens[:16], 16, medium="DISK"),
            stored(pages[:1], None, tokens[:16], 16),
        ],
    ]


def encode(folder: Path, version: str, wheel: Path) -> None:
    structs = definitions(wheel)
    frames, described = b"", []
    for sequence, events in enumerate(history()):
        values, shown = [], []
        for name, fields in events:
            kind = getattr(structs, name)
            known = {
                field: value for field, value in fields.items() if field in kind.__struct_fields__
            }
            values.append(kind(**known))
            shown.append({"type": name, **known})
        batch = structs.KVEventBatch(ts=1_700_000_000.25 + sequence, events=values, attn_dp_rank=1)
        message = [TOPIC, sequence.to_bytes(8, "big"), msgspec.msgpack.encode(batch)]
        frames += struct.pack("<I", len(message)) + b"".join(
            struct.pack("<I", len(part)) + part for part in message
        )
        described.append({"sequence": sequence, "ts": batch.ts, "attn_dp_rank": 1, "events": shown})
    (folder / f"sglang-{version}.events.bin").write_bytes(frames)
    lines = ",\n ".join(json.dumps(batch, separators=(",", ":")) for batch in described)
    (folder / f"sglang-{version}.events.json").write_text(f"[{lines}]\n")


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: encode_sglang_goldens.py OUT")
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for version in VERSIONS:
        with tempfile.TemporaryDirectory(prefix="llmd-goldens-") as scratch:
            download = [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--no-cache-dir",
            ]
            subprocess.run([*download, f"sglang=={version}", "--dest", scratch], check=True)
            encode(folder, version, next(Path(scratch).glob("*.whl")))
    digests = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("sglang-*.events.*"))
    }
    manifest = {
        "source": "encoded from the wheels' struct definitions by "
        "tests/engines/encode_sglang_goldens.py, not captured live",
        "sglang": VERSIONS,
        "msgspec": msgspec.__version__,
        "sha256": digests,
    }
    (folder / "MANIFEST.json").write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
