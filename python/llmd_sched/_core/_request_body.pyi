"""The body of an OpenAI request."""

from typing import Literal, final

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

@final
class RequestBody:
    """What the JSON of an OpenAI request asks for: chat, completions or responses.

    Goes wherever a :class:`Router` takes a prompt. ``max_tokens``, ``cache_salt`` and ``priority``
    count where the call's own options do not say; ``model`` is not looked at, since engines may go
    by other names than clients use.

    ``body`` is read once, and nothing is made of what routing does not ask for. It may be cut off,
    as proxies do that forward so many bytes: what is there of the prompt counts then, which begins
    as the whole one, and ``whole_bytes`` tells how long the body was. What is no JSON is no error:
    it says nothing, and is routed by load.

    >>> from llmd_sched import RequestBody, Router
    >>> router = Router()
    >>> _ = router.add_endpoint("http://10.0.0.1:8000")
    >>> json = b'{"model": "llama", "messages": [{"role": "user", "content": "Hello"}]}'
    >>> body = RequestBody(json)
    >>> body.text[:4], body.text[-5:], body.model, body.is_whole
    ('user', 'Hello', 'llama', True)
    >>> router.route(body).prompt_tokens
    3
    >>> RequestBody(json[:-5], whole_bytes=4096)
    RequestBody(text, 1010 tokens, cut off)

    A conversation is the text of its roles and parts, each apart from the next by U+001E: equal
    conversations are equal texts, and one that goes on begins with itself. Of several prompts the
    first counts.
    """

    def __new__(cls, body: bytes, *, whole_bytes: int | None = None) -> Self: ...
    @property
    def text(self) -> str | None:
        """The prompt as text, or what is there of it; None where it is token ids, or not there."""

    @property
    def tokens(self) -> npt.NDArray[np.uint32] | None:
        """A copy of the prompt's token ids, or of those that are there."""

    @property
    def prompt_kind(self) -> Literal["text", "tokens"] | None:
        """What the prompt is, or what is there of it; None where nothing is."""

    @property
    def prompt_tokens(self) -> int:
        """Tokens of the prompt; of text, and of what was cut off, an estimate."""

    @property
    def model(self) -> str | None:
        """The model asked for, or an adapter."""

    @property
    def max_output_tokens(self) -> int | None:
        """``max_completion_tokens``, or ``max_tokens``, or ``max_output_tokens``."""

    @property
    def cache_salt(self) -> str | None:
        """Requests with different salts share no blocks."""

    @property
    def priority(self) -> int | None:
        """As the body has it."""

    @property
    def is_whole(self) -> bool:
        """Whether the body was read to its end."""
