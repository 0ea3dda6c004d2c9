"""Chats inside a real Ray Serve, routed by the tokens that engines would make of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import word_tokenizer
from ray_brains import brain_of, until

pytestmark = pytest.mark.timeout(180)

TEMPLATE = "{% for m in messages %}<turn>{{ m.role }} {{ m.content }} {% endfor %}<turn>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tokenizer whose tokens are words."""
    words = ["<unk>", "<turn>", "user", "assistant", *(f"w{number}" for number in range(50))]
    return word_tokenizer.write(tmp_path, words, TEMPLATE)


def deploy(serve: Any, name: str, **kwargs: Any) -> Any:
    from ray.serve.config import RequestRouterConfig

    @serve.deployment(
        name=name,
        num_replicas=2,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=0,
        request_router_config=RequestRouterConfig(
            request_router_class="llmd_sched.ray:LlmdRouter", request_router_kwargs=kwargs
        ),
    )
    class Replica:
        async def __call__(self, request: dict[str, Any]) -> str:
            return serve.get_replica_context().replica_id.unique_id

    return serve.run(Replica.bind(), name=name, route_prefix=None)


def test_a_conversation_is_followed_by_its_tokens(serve: Any, folder: Path) -> None:
    handle = deploy(serve, "texts", tokenizer=str(folder))
    # Long enough for a thread, and another one that is not.
    first = {"role": "user", "content": " ".join(f"w{number % 50}" for number in range(4_000))}
    talk = [first, {"role": "assistant", "content": "w1 w2"}, {"role": "user", "content": "w3"}]
    where = set()
    for count in (1, 3):
        where.add(handle.remote({"messages": talk[:count]}).result())
        # Ray tells of an end after the client has its answer: until then it is load.
        until(lambda: brain_of("texts").counters()["booked"] == 0)
    assert len(where) == 1
    image = [{"type": "image_url", "image_url": {"url": "data:"}}]
    handle.remote({"messages": [{"role": "user", "content": image}]}).result()
    until(lambda: brain_of("texts").counters()["booked"] == 0)
    seen = brain_of("texts").counters()
    assert (seen["picks"], seen["fallbacks"]) == (3, 0)
    texts = seen["tokenizer"]
    assert (texts["encoded"], texts["not_exact"], texts["failed"]) == (2, 1, 0)
    assert texts["elsewhere"] == 1
    # A turn of 4,000 words, and seven tokens more; in both `<turn>` opens the answer.
    assert texts["tokens"] == 4_003 + 4_010
    # Whole blocks of 16 of what the first prompt had.
    assert seen["router"]["requests"]["matched_tokens"] == 4_003 // 16 * 16
    serve.delete("texts")
