"""Tokenizer, and prompts of Ray's requests as tokens."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import llmd_sched
import numpy as np
import pytest
import word_tokenizer
from llmd_sched import ConfigError, NotExactError, Tokenizer
from llmd_sched.ray import Settings
from llmd_sched.ray import _texts as texts
from llmd_sched.ray._texts import Texts, tokens_of

WORDS = ["<unk>", "<turn>", "user", "assistant", "hello", "world", "a", "1.5"]
TEMPLATE = (
    "{% for m in messages %}<turn>{{ m.role }} {{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant {% endif %}{{ tools | tojson if tools }}"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return word_tokenizer.write(tmp_path, WORDS, TEMPLATE)


def talk(*contents: str) -> list[dict[str, str]]:
    roles = ["user", "assistant"] * len(contents)
    return [{"role": role, "content": it} for role, it in zip(roles, contents, strict=False)]


def test_chats_texts_and_bodies_become_ids(folder: Path) -> None:
    tokenizer = Tokenizer(folder)
    ids = tokenizer.encode_chat(talk("hello world", "a"))
    assert ids.dtype == np.uint32
    assert ids.tolist() == [1, 2, 4, 5, 1, 3, 6, 1, 3]
    assert tokenizer.encode_chat(talk("a"), add_generation_prompt=False).tolist() == [1, 2, 6]
    body = json.dumps({"model": "m", "messages": talk("hello world", "a")}).encode()
    assert tokenizer.encode_body(body).tolist() == ids.tolist()
    assert tokenizer.encode_body(b'{"prompt": "hello"}').tolist() == [4]
    assert tokenizer.encode("world <turn>hello").tolist() == [5, 1, 4]
    counters = tokenizer.counters()
    assert (counters["encoded"], counters["not_exact"]) == (5, 0)
    assert counters["tokens"] == len(ids) * 2 + 3 + 1 + 3
    assert 0 < counters["known_bytes"] < counters["text_bytes"]
    assert counters["cache_bytes"] > 0
    assert counters["tokenize_us"] > 0


def test_the_order_of_keys_and_the_kind_of_numbers_are_python_s(folder: Path) -> None:
    tokenizer = Tokenizer(folder)
    properties = {"z": {"type": "string"}, "a": {"minimum": 1.0, "maximum": 10**18, "x": 1e-7}}
    function = {"parameters": {"type": "object", "properties": properties}, "name": "f"}
    shown = {"name": "f", "description": None, "parameters": function["parameters"]}
    text = tokenizer.chat_text(talk("a"), tools=[{"type": "function", "function": function}])
    assert text.endswith(json.dumps([{"type": "function", "function": shown}]))


def test_what_is_not_exact_says_why(folder: Path) -> None:
    tokenizer = Tokenizer(folder)
    image = [{"type": "image_url", "image_url": {"url": "data:"}}]
    with pytest.raises(NotExactError, match=r"messages\[0\].content\[0\].* no text"):
        tokenizer.encode_chat([{"role": "user", "content": image}])
    with pytest.raises(NotExactError, match="chat_template"):
        tokenizer.encode_chat(talk("a"), chat_template="{{ messages }}")
    with pytest.raises(TypeError, match="object is not JSON"):
        tokenizer.encode_chat([{"role": "user", "content": object()}])
    with pytest.raises(ConfigError, match="content_format"):
        Tokenizer(folder, content_format="words")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        Tokenizer(folder / "nowhere")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"tokenizer\.json"):
        Tokenizer(folder)


def pending(*args: Any, **kwargs: Any) -> Any:
    return SimpleNamespace(args=args, kwargs=kwargs, routing_context=SimpleNamespace())


def prepared(of: Texts, *args: Any, **kwargs: Any) -> list[int] | None:
    request = pending(*args, **kwargs)
    asyncio.run(of.prepare(request))
    tokens = tokens_of(request)
    return None if tokens is None else tokens.tolist()


def test_the_calls_of_handles_are_tokenised(folder: Path) -> None:
    prompts = Texts(str(folder))
    chat = {"messages": talk("hello"), "max_tokens": 4, "add_generation_prompt": False}
    assert prepared(prompts, chat) == [1, 2, 4]
    assert prepared(prompts, SimpleNamespace(**chat)) == [1, 2, 4]
    assert prepared(prompts, body=chat) == [1, 2, 4]
    assert prepared(prompts, {"prompt": "hello a"}) == [4, 6]
    assert prepared(prompts, {"prompt": ["hello", "a"]}) == [4]
    # Those that are tokens are as they were, and so is what nobody understands.
    for call in ({"prompt": [1, 2]}, {"prompt_token_ids": [1]}, {"x": 1}, "hello", {"messages": 7}):
        assert prepared(prompts, call) is None
    assert prepared(prompts, chat, request_token_ids=[1, 2]) is None
    assert prepared(prompts, {"messages": [{"role": "user", "content": object()}]}) is None
    counters = prompts.counters()
    assert (counters["encoded"], counters["not_exact"], counters["failed"]) == (5, 1, 0)
    prompts.close()


def test_a_long_prompt_that_is_not_known_is_tokenised_elsewhere(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = Texts(str(folder))
    monkeypatch.setattr(texts, "MOST_UNKNOWN_BYTES", 64)
    long = {"messages": talk("hello world " * 100), "add_generation_prompt": False}
    assert prepared(prompts, long) == [1, 2, *[4, 5] * 100]
    assert prompts.counters()["elsewhere"] == 1
    # It is known now.
    assert prepared(prompts, long) == [1, 2, *[4, 5] * 100]
    assert prompts.counters()["elsewhere"] == 1
    prompts.close()


def test_a_tokenizer_that_fails_leaves_the_text(folder: Path) -> None:
    prompts = Texts(str(folder))
    prompts.tokenizer = None  # type: ignore[assignment]
    assert prepared(prompts, {"prompt": "a"}) is None
    prompts.close()


def test_given_tokens_are_the_prompt_of_a_call() -> None:
    router = llmd_sched.Router(block_size=16)
    router.add_endpoint("http://10.0.0.1:8000")
    call = ({"messages": talk("hello " * 50), "max_tokens": 3},)
    tokens = np.arange(100, dtype=np.uint32)
    decision = router._route_call(call, None, {}, None, tokens)
    assert decision.prompt_tokens == 100
    again = router.route(tokens)
    assert again.matched_tokens == 96


def test_settings_check_the_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tokenizer: .*every node"):
        Texts(str(tmp_path))
    assert Settings.of({"tokenizer": "/models/m"}).tokenizer == "/models/m"
    with pytest.raises(ConfigError, match="tokenizer: 7"):
        Settings.of({"tokenizer": 7})
    with pytest.raises(ConfigError, match="function that prompt names"):
        Settings.of({"tokenizer": "/models/m", "prompt": "json:loads"})
