"""One configuration, from a mapping or a file, with mistakes named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llmd_sched import ConfigError, Router

SAME = {
    "config.toml": 'block_size = 32\nseed = 7\n[schedule]\nprofile = "round-robin"\n',
    "config.yaml": "block_size: 32\nseed: 7\nschedule:\n  profile: round-robin\n",
    "config.yml": "block_size: 32\nseed: 7\nschedule: {profile: round-robin}\n",
    "config.json": '{"block_size": 32, "seed": 7, "schedule": {"profile": "round-robin"}}',
}
AS_MAPPING = {"block_size": 32, "seed": 7, "schedule": {"profile": "round-robin"}}


@pytest.mark.parametrize("name", SAME)
def test_every_format_says_the_same(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(SAME[name])
    expected = Router(AS_MAPPING).config()
    assert Router(path).config() == expected
    assert Router(str(path)).config() == expected


def test_keywords_override_the_configuration() -> None:
    config = Router(AS_MAPPING, block_size=64, profile="prefix", seed=1).config()
    assert (config["block_size"], config["seed"]) == (64, 1)
    assert config["schedule"]["profile"] == "prefix"


def test_what_config_shows_can_be_given_back() -> None:
    shown = Router(AS_MAPPING).config()
    assert Router(shown).config() == shown
    assert Router(json.loads(json.dumps(shown))).config() == shown


@pytest.mark.parametrize(
    ("keyword", "message"),
    [
        ({"seed": -1}, "seed: invalid value: integer `-1`"),
        ({"block_size": 2**40}, "block_size: invalid value: integer `1099511627776`"),
        ({"block_size": "16"}, "block_size: invalid type: string"),
        ({"profile": 3}, "the name of a profile, or a profile"),
    ],
)
def test_a_mistake_in_a_keyword_is_named(keyword: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Router(**keyword)


def test_numbers_of_numpy_are_numbers() -> None:
    assert Router({"block_size": np.int64(8)}).config()["block_size"] == 8


NESTED: dict[str, Any] = {}
NESTED["index"] = NESTED
REFUSED: dict[str, tuple[Any, list[str]]] = {
    "unknown key": (
        {"blocksize": 16},
        ["blocksize: unknown field `blocksize`", "`block_size`, `seed`, `index`"],
    ),
    "unknown nested key": (
        {"index": {"max_blocks": 1}},
        ["index.max_blocks: unknown field `max_blocks`", "`max_bytes`"],
    ),
    "wrong type": ({"block_size": "big"}, ["block_size: invalid type: string", "u32"]),
    "out of range": ({"block_size": 0}, ["block_size 0 is out of range"]),
    "negative": ({"seed": -1}, ["seed: invalid value: integer `-1`"]),
    "section that is none": ({"index": 3}, ["index: invalid type: integer `3`"]),
    "unknown profile": ({"schedule": {"profile": "best"}}, ['"best" is unknown', "round-robin"]),
    "not finite": ({"seed": float("nan")}, ["seed is NaN: numbers must be finite"]),
    "not a string key": ({"index": {1: 2}}, ["index has the key 1: keys are strings"]),
    "not a value": ({"seed": object()}, ["seed is of type object: use a mapping"]),
    "holds itself": (NESTED, ["is nested more than 64 deep"]),
    "missing file": ("/nowhere/config.toml", ["cannot be read: No such file"]),
    "other file": ("config.ini", ["must end in .toml, .yaml, .yml or .json"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_mistake_is_named(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.ini").write_text("block_size = 16")
    config, messages = REFUSED[case]
    with pytest.raises(ConfigError) as refusal:
        Router(config)
    assert all(message in str(refusal.value) for message in messages), refusal.value


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "block_size = \n", "is not TOML"),
        ("a.yaml", "block_size: [", "is not YAML"),
        ("a.json", '{"block_size": 16', "is not JSON"),
        ("a.json", "[1]", "expected a table"),
        ("a.toml", "blocksize = 16\n", "unknown field `blocksize`"),
    ],
)
def test_a_file_that_is_not_what_its_name_says(
    name: str, text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        Router(tmp_path / name)


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    for name in ("a.toml", "a.yaml"):
        (tmp_path / name).write_text("")
        assert Router(tmp_path / name).config() == Router().config()


def test_a_profile_in_place_is_followed() -> None:
    profile = {"scorers": [{"name": "queue-scorer", "weight": 2.0}], "picker": "max-score-picker"}
    with Router({"schedule": {"profile": profile}}) as router:
        router.add_endpoint("http://a")
        assert router.explain([1]).weights == {"queue-scorer": 2.0}
