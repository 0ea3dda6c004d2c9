"""What vLLM's connector works out by itself: prefixes that are found, and where blocks lie."""

from __future__ import annotations

import ctypes
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmd_sched import ConfigError
from llmd_sched.vllm._connector import announcing
from llmd_sched.vllm._connector.announcing import Announcer
from llmd_sched.vllm._connector.groups import Group, Model
from llmd_sched.vllm._connector.layout import Layout
from llmd_sched.vllm._connector.planning import Planner
from llmd_sched.vllm._connector.runs import Run
from llmd_sched.vllm._connector.settings import StoreSettings


def group(number: int, block_tokens: int = 2, window_tokens: int | None = None) -> Group:
    return Group(number, (f"layer{number}",), block_tokens, 4096, window_tokens)


def model(*groups: Group) -> Model:
    sizes = [it.block_tokens for it in groups]
    return Model(groups, math.gcd(*sizes), math.lcm(*sizes))


@st.composite
def stores(draw: st.DrawFn) -> tuple[Model, list[set[int]], int, int]:
    """A model, which blocks of a prompt each group has stored, its tokens, and those computed."""
    groups = []
    for number in range(draw(st.integers(1, 3))):
        window = draw(st.none() | st.integers(1, 12))
        groups.append(group(number, draw(st.sampled_from([1, 2, 4])), window))
    of = model(*groups)
    tokens = draw(st.integers(0, 40))
    computed = draw(st.integers(0, tokens // of.unit_tokens)) * of.unit_tokens
    stored = [
        set(draw(st.lists(st.integers(0, tokens // it.block_tokens), max_size=50)))
        | set(range(draw(st.integers(0, tokens // it.block_tokens))))
        for it in groups
    ]
    return of, stored, tokens, computed


@given(stores())
def test_the_longest_prefix_is_found_that_all_groups_have(
    given_: tuple[Model, list[set[int]], int, int],
) -> None:
    of, stored, tokens, computed = given_

    def has(it: Group, first: int, last: int) -> int:
        there = [at in stored[it.number] for at in range(first, last)]
        return there.index(False) if False in there else len(there)

    def is_whole(length: int) -> bool:
        return all(
            at in stored[it.number]
            for it in of.groups
            for at in range(length // it.block_tokens)
            # What the engine has itself, and what no later token attends to.
            if (at + 1) * it.block_tokens > computed
            and (
                it.window_tokens is None
                or (at + 1) * it.block_tokens > length - it.window_tokens + 1
            )
        )

    lengths = range(0, tokens + 1, of.unit_tokens)
    longest = max((it for it in lengths if it > computed and is_whole(it)), default=0)
    assert of.found(tokens, computed, has) == longest


class Cache:
    """A tensor, as far as it is asked."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.array = array
        self.shape = array.shape

    def stride(self) -> tuple[int, ...]:
        return tuple(it // self.array.itemsize for it in self.array.strides)

    def element_size(self) -> int:
        return self.array.itemsize

    def data_ptr(self) -> int:
        return int(self.array.ctypes.data)


@given(
    st.permutations(["layer", "part", "block", "head", "token", "dim"]),
    st.integers(0, 4),
)
def test_a_block_s_bytes_are_all_and_only_its_own(order: list[str], block: int) -> None:
    lengths = {"layer": 2, "part": 2, "block": 5, "head": 3, "token": 4, "dim": 6}
    memory = np.arange(math.prod(lengths.values()), dtype=np.int32)
    whole = memory.reshape([lengths[name] for name in order])
    logical = whole.transpose([order.index(name) for name in lengths])
    # As vLLM has it: a tensor a layer, blocks first or behind keys and values.
    caches = {"a": Cache(logical[0]), "b": Cache(logical[1].swapaxes(0, 1))}
    it = Group(0, ("a", "b"), 4, memory.nbytes // 5, None)
    layout = Layout(it, caches, 5)
    read = [
        ctypes.string_at(int(address), int(length))
        for address, length in zip(layout.addresses([block]), layout.piece_bytes, strict=True)
    ]
    found = np.frombuffer(b"".join(read), np.int32)
    assert sorted(found) == sorted(logical[:, :, block].ravel())


def test_pieces_that_touch_are_one() -> None:
    packed = np.zeros((5, 3, 64), np.uint8)
    caches = {name: Cache(packed[:, at]) for at, name in enumerate("abc")}
    layout = Layout(Group(0, ("a", "b", "c"), 4, 192, None), caches, 5)
    assert layout.piece_bytes.tolist() == [192]


def test_an_unknown_layout_is_refused() -> None:
    cache = Cache(np.zeros((3, 4, 5), np.uint8))
    with pytest.raises(ConfigError, match=r"has shape \(3, 4, 5\), without 9 blocks"):
        Layout(group(0), {"layer0": cache}, 9)


class Space:
    """Of a store, what is asked."""

    def __init__(self, there: set[bytes]) -> None:
        self.there = there

    def matched(self, hashes: list[bytes]) -> int:
        there = [it in self.there for it in hashes]
        return there.index(False) if False in there else len(there)


def request(tokens: int, name: str = "r") -> Any:
    hashes = [bytes([at]) for at in range(tokens // 2)]
    return SimpleNamespace(request_id=name, num_tokens=tokens, block_hashes=hashes)


def step(new: dict[str, tuple[int, int]], ids: dict[str, tuple[list[int], ...]]) -> Any:
    """What vLLM has planned: of each request the tokens before the step and in it."""
    return SimpleNamespace(
        num_scheduled_tokens={name: count for name, (_, count) in new.items()},
        scheduled_new_reqs=[
            SimpleNamespace(req_id=name, num_computed_tokens=before)
            for name, (before, _) in new.items()
        ],
        scheduled_cached_reqs=SimpleNamespace(req_ids=[], num_computed_tokens=[]),
        kv_connector_block_state=SimpleNamespace(get_block_ids=ids.get),
    )


def test_what_every_worker_has_is_loaded_and_the_last_token_computed() -> None:
    names = {bytes([at]) for at in range(5)}
    spaces: Any = [[Space(names)], [Space(names - {b"\3"})]]
    planner = Planner(model(group(0)), spaces)
    assert planner.matched_tokens(request(6), 2) == 2
    asked = request(10)
    assert planner.matched_tokens(asked, 2) == 4
    planner.placed(asked, ([7, 8, 9, 10, 11],), 4)
    [(name, [run])] = planner.plan(step({}, {})).loads.items()
    assert (name, run.hashes, run.block_ids) == ("r", [b"\1", b"\2"], [8, 9])
    assert (run.parent, run.position) == (b"\0", 1)
    assert planner.plan(step({}, {})).loads == {}


def test_blocks_are_saved_once_when_they_are_full_but_those_outside_the_window() -> None:
    planner = Planner(model(group(0), group(1, window_tokens=4)), [])
    asked = request(9)
    planner.placed(asked, ([], []), 0)
    saved = planner.plan(step({"r": (0, 5)}, {"r": ([1, 2, 3], [4, 5, 6])})).saves
    assert [(it.group, it.block_ids) for it in saved] == [(0, [1, 2]), (1, [4, 5])]
    later = planner.plan(step({"r": (5, 4)}, {"r": ([1, 2, 3, 7, 8], [0, 0, 0, 9, 10])})).saves
    assert [(it.group, it.block_ids, it.position) for it in later] == [(0, [3, 7], 2), (1, [9], 3)]
    planner.finished("r")
    assert planner.plan(step({"r": (9, 1)}, {"r": ([], [])})).saves == []


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"pathh": "/x"}, "has no key 'pathh'"),
        ({"host_gib": 0}, "host_gib is 0"),
        ({"disk_gib": 4}, "disk_gib and disk_folder together"),
        ({"threads": 0}, "threads is 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(given_: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        StoreSettings.of(given_)


class Events:
    """vLLM's, as far as they are made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = {
            "BlockStored": lambda **said: ("stored", said["block_hashes"], said["token_ids"]),
            "BlockRemoved": lambda hashes, medium, _group: ("removed", hashes, medium),
            "MEDIUM_CPU": "CPU",
            "maybe_convert_block_hash": bytes,
        }
        monkeypatch.setattr(
            announcing, "borrowed", lambda _module, *names: [made[name] for name in names]
        )


def saved(first: int, count: int) -> Run:
    hashes = [bytes([at]) for at in range(first, first + count)]
    return Run(0, hashes, [0] * count, None, first)


def plain(tokens: int, **more: Any) -> Any:
    usual: dict[str, Any] = {"lora_request": None, "mm_features": [], "cache_salt": None}
    return SimpleNamespace(all_token_ids=list(range(tokens)), **{**usual, **more})


def test_what_is_found_is_said_once_and_taken_back_when_it_has_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Events(monkeypatch)
    space = Space(set())
    stores: Any = [[space]]
    announcer = Announcer([group(0)], stores)
    announcer.saving(saved(1, 2), plain(8))
    assert announcer.events() == []
    space.there = {b"\1", b"\2"}
    assert announcer.events() == [("stored", [b"\1", b"\2"], [2, 3, 4, 5])]
    assert announcer.events() == []
    space.there = {b"\1"}
    assert announcer.events() == [("removed", [b"\2"], "CPU")]
    assert announcer.events() == []


def test_a_save_that_was_refused_is_forgotten_and_a_part_of_one_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Events(monkeypatch)
    stores: Any = [[Space({b"\1"})]]
    announcer = Announcer([group(0)], stores)
    announcer.saving(saved(1, 2), plain(8))
    announcer.saving(saved(5, 2), plain(20))
    events = [it for _ in range(announcing.MOST_LOOKS + 1) for it in announcer.events()]
    assert events == [("stored", [b"\1"], [2, 3])]


def test_nothing_is_said_of_prompts_with_more_than_tokens_in_their_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Events(monkeypatch)
    stores: Any = [[Space({b"\0"}), Space({b"\0"})]]
    announcer = Announcer([group(0), group(1, window_tokens=4)], stores)
    announcer.saving(saved(0, 1), plain(2, cache_salt="a tenant"))
    announcer.saving(saved(0, 1), plain(2, lora_request=object()))
    announcer.saving(Run(1, [b"\0"], [0], None, 0), plain(2))
    assert announcer.events() == []
