"""The CPU's stages of expert parallelism beside torch's and beside a copy: `make bench-ep`.

4096 tokens of 7168 bf16, top-8 of 256 experts. All in this process, interleaved, by its CPU time;
a ratio is the median of the rounds' ratios. First, results are held to torch's: E4M3 bit for bit.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import time
from collections.abc import Callable

import torch

FORMATS = {torch.bfloat16: 0, torch.float16: 1, torch.float32: 2}
GROUP = 128
LARGEST = 448.0


def pointer(tensor: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


class Stages:
    """Our library."""

    def __init__(self, path: str) -> None:
        self.library = ctypes.CDLL(path)
        self.library.ep_layout.restype = ctypes.c_void_p
        self.layout = ctypes.c_void_p(self.library.ep_layout())

    def call(self, name: str, *arguments: object) -> None:
        sized = [ctypes.c_size_t(value) if isinstance(value, int) else value for value in arguments]
        assert getattr(self.library, name)(*sized) == 0, name

    def compute(self, ids: torch.Tensor, experts: int) -> None:
        self.call("ep_compute", self.layout, pointer(ids), ids.numel(), ids.shape[1], experts)

    def rows_of_slots(self, slots: int) -> torch.Tensor:
        rows = torch.empty(slots, dtype=torch.int32)
        self.library.ep_rows_of_slots(self.layout, pointer(rows))
        return rows

    def permute(self, tokens: torch.Tensor, rows: torch.Tensor, threads: int = 1) -> None:
        columns = tokens.shape[1]
        self.call("ep_permute", self.layout, pointer(tokens), columns, pointer(rows), threads)

    def combine(
        self, rows: torch.Tensor, weights: torch.Tensor, tokens: torch.Tensor, threads: int = 1
    ) -> None:
        given = (pointer(rows), pointer(weights), rows.shape[1], pointer(tokens), threads)
        self.call("ep_combine", self.layout, *given)

    def quantise(
        self, values: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor, threads: int = 1
    ) -> None:
        of = ctypes.c_uint32(FORMATS[values.dtype])
        given = (*values.shape, pointer(codes), pointer(scales), threads)
        self.call("ep_quantise", of, pointer(values), *given)

    def e4m3(self, values: torch.Tensor) -> torch.Tensor:
        codes = torch.empty(values.shape, dtype=torch.uint8)
        self.library.ep_e4m3(pointer(values), ctypes.c_size_t(values.numel()), pointer(codes))
        return codes


def torch_quantise(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    groups = values.view(values.shape[0], -1, GROUP).float()
    largest = groups.abs().amax(dim=2, keepdim=True).clamp(1e-4)
    codes = (groups * (LARGEST / largest)).to(torch.float8_e4m3fn)
    return codes.view(values.shape), largest.squeeze(2) / LARGEST


def torch_layout(ids: torch.Tensor, experts: int) -> tuple[torch.Tensor, torch.Tensor]:
    flat = ids.flatten()
    order = torch.argsort(flat, stable=True)
    return order, torch.bincount(flat, minlength=experts).cumsum(0)


def check_e4m3(stages: Stages) -> None:
    """Every finite number of 16 bits, and numbers of 32 bits of every exponent."""
    halves = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16)
    singles = (torch.arange(1 << 24, dtype=torch.int64) * 0x9E3779B1 % (1 << 32)).to(torch.int32)
    for given in (
        halves.view(torch.bfloat16),
        halves.view(torch.float16),
        singles.view(torch.float32),
    ):
        finite = given[given.isfinite()]
        expected = finite.float().to(torch.float8_e4m3fn).view(torch.uint8)
        assert torch.equal(stages.e4m3(finite.float().contiguous()), expected), given.dtype
        whole = finite[: finite.numel() // GROUP * GROUP].view(-1, GROUP)
        # In groups of like numbers, as they come, and in groups of unlike ones.
        for values in (whole.contiguous(), whole.T.contiguous().view(-1, GROUP)):
            codes = torch.empty(values.shape, dtype=torch.uint8)
            scales = torch.empty(values.shape[0], 1)
            stages.quantise(values, codes, scales)
            torch_codes, torch_scales = torch_quantise(values)
            assert torch.equal(codes, torch_codes.view(torch.uint8)), given.dtype
            assert torch.equal(scales, torch_scales), given.dtype


def cpu_ms(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return (time.process_time() - start) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("library")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--columns", type=int, default=7168)
    parser.add_argument("--top-k", type=int, default=8)
    parser.add_argument("--experts", type=int, default=256)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    stages = Stages(asked.library)
    check_e4m3(stages)

    slots = asked.tokens * asked.top_k
    scores = torch.rand(asked.tokens, asked.experts)
    weights, ids = scores.topk(asked.top_k, dim=1)
    weights = (weights / weights.sum(dim=1, keepdim=True)).contiguous()
    tokens = torch.randn(asked.tokens, asked.columns).to(torch.bfloat16)
    rows = torch.zeros(slots, asked.columns, dtype=torch.bfloat16)
    copied = torch.zeros_like(rows)
    combined = torch.zeros_like(tokens)
    codes = torch.zeros(tokens.shape, dtype=torch.uint8)
    scales = torch.zeros(asked.tokens, asked.columns // GROUP)

    stages.compute(ids, asked.experts)
    order, _ = torch_layout(ids, asked.experts)
    token_of_row = order // asked.top_k
    row_of_slot = stages.rows_of_slots(slots).long()
    assert torch.equal(row_of_slot[order], torch.arange(slots))
    stages.permute(tokens, rows)
    assert torch.equal(rows, tokens[token_of_row])
    weight_of_row = weights.flatten()[order].to(torch.bfloat16).unsqueeze(1)
    weight_of_choice = weights.to(torch.bfloat16).unsqueeze(1)

    def torch_index_add() -> torch.Tensor:
        out = torch.zeros_like(tokens)
        return out.index_add_(0, token_of_row, rows * weight_of_row)

    def torch_bmm() -> torch.Tensor:
        chosen = rows[row_of_slot].view(asked.tokens, asked.top_k, asked.columns)
        return torch.bmm(weight_of_choice, chosen).squeeze(1)

    stages.combine(rows, weights, combined)
    torch.testing.assert_close(combined, torch_bmm(), rtol=0.03, atol=0.03)
    once = combined.clone()
    stages.combine(rows, weights, combined, threads=2)
    assert torch.equal(once, combined), "threads change the sums"

    work: dict[str, Callable[[], object]] = {
        "memcpy": lambda: ctypes.memmove(
            copied.data_ptr(), rows.data_ptr(), rows.numel() * rows.element_size()
        ),
        "permute": lambda: stages.permute(tokens, rows),
        "torch_permute": lambda: torch.index_select(tokens, 0, token_of_row, out=copied),
        "combine": lambda: stages.combine(rows, weights, combined),
        "torch_bmm": torch_bmm,
        "torch_index_add": torch_index_add,
        "quantise": lambda: stages.quantise(tokens, codes, scales),
        "torch_quantise": lambda: torch_quantise(tokens),
        # As often as it takes to be seen by the clock.
        "layout": lambda: [stages.compute(ids, asked.experts) for _ in range(50)],
        "torch_layout": lambda: [torch_layout(ids, asked.experts) for _ in range(50)],
    }
    taken: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(asked.rounds):
        for name, one in work.items():
            taken[name].append(cpu_ms(one))
    for name in ("layout", "torch_layout"):
        taken[name] = [ms / 50 for ms in taken[name]]

    def ratio(ours: str, *peers: str) -> float:
        best = [min(others) for others in zip(*(taken[peer] for peer in peers), strict=True)]
        pairs = zip(best, taken[ours], strict=True)
        return round(statistics.median(peer / our for peer, our in pairs), 2)

    for name, ms in taken.items():
        print(f"{name:16} {statistics.median(ms):9.3f} ms  (least {min(ms):.3f})")
    figures = {
        "permute_vs_memcpy": ratio("permute", "memcpy"),
        "permute_vs_torch": ratio("permute", "torch_permute"),
        "combine_vs_torch": ratio("combine", "torch_bmm", "torch_index_add"),
        "quant_vs_torch": ratio("quantise", "torch_quantise"),
        "layout_vs_torch": ratio("layout", "torch_layout"),
    }
    figures |= {f"{name}_ms": round(statistics.median(ms), 3) for name, ms in taken.items()}
    print("BENCH", json.dumps(figures))


if __name__ == "__main__":
    main()
