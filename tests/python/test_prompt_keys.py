"""Keys of a prompt that grows are those of the whole prompt, whatever the turns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from llmd_sched import PromptError, PromptKeys, Router, block_keys

TURNS = st.lists(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=50), min_size=1)


@pytest.fixture
def router() -> Router:
    router = Router()
    router.add_endpoint("http://a", model="m")
    router.add_endpoint("http://b", model="m")
    return router


@given(TURNS, st.integers(1, 9))
def test_keys_are_those_of_the_whole_prompt(turns: list[list[int]], block_size: int) -> None:
    prompt = Router(block_size=block_size).prompt_keys(model="m", cache_salt="s")
    whole: list[int] = []
    for turn in turns:
        prompt.extend(turn)
        whole += turn
        expected = block_keys(whole, block_size=block_size, model="m", cache_salt="s")
        assert prompt.keys.tolist() == expected.tolist()
        assert len(prompt) == len(whole)


def test_it_goes_wherever_a_prompt_goes(router: Router) -> None:
    tokens = np.arange(160, dtype=np.uint32)
    router.finish(router.route(tokens, model="m", allowed=["http://b"]))
    prompt = router.prompt_keys(tokens, model="m")

    assert router.match(prompt).matched_tokens.tolist() == [0, 160]
    assert router.explain(prompt).matched_tokens.tolist() == [0, 160]
    assert router.features(prompt)["matched_tokens"].tolist() == [0, 160]
    assert router.features(prompt).model == "m"
    first, second = router.route_many([prompt, tokens], hold_ms=1)
    assert (first.matched_tokens, first.prompt_tokens) == (160, 160)
    assert second.matched_tokens == 160


def test_without_a_model_it_is_bound_to_the_one_that_everybody_serves(router: Router) -> None:
    router.finish(router.route(range(64)))
    assert router.route(router.prompt_keys(range(64))).matched_tokens == 64


def test_an_edited_history_is_cut_and_appended_again(router: Router) -> None:
    prompt = router.prompt_keys(range(100), multimodal=[("image", 40, 30)])
    assert prompt.truncate(95) == 80
    assert prompt.truncate(60) == 32, "before the image that would be cut"
    prompt.extend(range(32, 64))
    assert prompt.keys.tolist() == block_keys(range(64), model="m").tolist()


def test_images_of_a_later_turn_lie_in_its_tokens(router: Router) -> None:
    prompt = router.prompt_keys(range(20))
    with pytest.raises(PromptError, match="item 0 begins at token 16"):
        prompt.extend(range(20, 40), multimodal=[("image", 16, 4)])
    prompt.extend(range(20, 40), multimodal=[("image", 24, 8)])
    expected = block_keys(range(40), model="m", multimodal=[("image", 24, 8)])
    assert prompt.keys.tolist() == expected.tolist()


def test_what_it_is_bound_to_is_not_given_again(router: Router) -> None:
    prompt = router.prompt_keys(range(20), model="m")
    with pytest.raises(PromptError, match="bound to their own"):
        router.route(prompt, model="m")


def test_keys_of_other_blocks_are_refused(router: Router) -> None:
    other = Router(block_size=32).prompt_keys(range(64), model="m")
    with pytest.raises(PromptError, match="blocks of 32 tokens, and the router's have 16"):
        router.route(other)


def test_an_empty_prompt_is_refused(router: Router) -> None:
    with pytest.raises(PromptError, match="the prompt is empty"):
        router.route(router.prompt_keys())


def test_it_shows_what_it_is(router: Router) -> None:
    prompt = router.prompt_keys(range(20))
    assert isinstance(prompt, PromptKeys)
    assert repr(prompt) == "PromptKeys(20 tokens, 1 full blocks of 16)"
    assert prompt.block_size == 16
