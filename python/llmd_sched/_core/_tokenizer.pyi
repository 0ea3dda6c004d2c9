"""Texts and chats as the engine's own token ids."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, final

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

@final
class Tokenizer:
    """The tokenizer and the chat template of a model, from its folder as Hugging Face lays it out.

    What it returns is what vLLM 0.32 makes of the same prompt, so that a router's keys are the
    engine's block keys; where that is not certain it raises :class:`NotExactError`, and the prompt
    can be routed by its text. See ``docs/tokenizers.md``.

    ``path`` has ``tokenizer.json``, and for chats ``chat_template.jinja`` or a template in
    ``tokenizer_config.json``. ``chat_template`` (a file), ``content_format`` and
    ``chat_template_kwargs`` are what the engine is started with as ``--chat-template``,
    ``--chat-template-content-format`` and ``--default-chat-template-kwargs``. ``cache_bytes``
    bounds what is kept of texts and tokens, 128 MiB without it: of a conversation that grows, only
    what is new is tokenised.

    Raises ``OSError`` where a file cannot be read, :class:`ConfigError` where it makes no sense, or
    asks for what an engine would do otherwise.

    Safe to share between threads; the GIL is free while it works.

    >>> import json, pathlib, tempfile
    >>> from llmd_sched import Router, Tokenizer
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> words = {"<unk>": 0, "user": 1, "says": 2, "hello": 3}
    >>> _ = (folder / "tokenizer.json").write_text(json.dumps({
    ...     "model": {"type": "WordLevel", "vocab": words, "unk_token": "<unk>"},
    ...     "pre_tokenizer": {"type": "Whitespace"}, "added_tokens": [],
    ...     "normalizer": None, "post_processor": None, "decoder": None,
    ... }))
    >>> _ = (folder / "chat_template.jinja").write_text(
    ...     "{% for m in messages %}{{ m.role }} says {{ m.content }} {% endfor %}")
    >>> tokenizer = Tokenizer(folder)
    >>> tokenizer.encode_chat([{"role": "user", "content": "hello"}])
    array([1, 2, 3], dtype=uint32)
    >>> tokenizer.encode("hello hello")
    array([3, 3], dtype=uint32)
    """

    def __new__(
        cls,
        path: str | os.PathLike[str],
        *,
        chat_template: str | os.PathLike[str] | None = None,
        content_format: Literal["auto", "string", "openai"] | None = None,
        chat_template_kwargs: dict[str, Any] | None = None,
        cache_bytes: int | None = None,
    ) -> Self: ...
    def encode(self, text: str, *, add_special_tokens: bool = True) -> npt.NDArray[np.uint32]:
        """The ids of a text, as of a completion's prompt: with the tokens that the tokenizer puts
        around it, unless ``add_special_tokens`` is false. Raises :class:`NotExactError`.
        """

    def encode_chat(
        self, messages: Sequence[Mapping[str, Any]], **request: Any
    ) -> npt.NDArray[np.uint32]:
        """The ids of a chat's prompt.

        ``request`` is what else the body of the chat says, by OpenAI's and vLLM's names: ``tools``,
        ``add_generation_prompt`` (true without it), ``continue_final_message``,
        ``chat_template_kwargs``, ``documents``, ``reasoning_effort``, ``add_special_tokens`` (false
        without it); other fields do not matter.

        Raises :class:`NotExactError`, ``TypeError`` for what is not JSON.
        """

    def encode_body(self, body: bytes) -> npt.NDArray[np.uint32]:
        """The ids of the prompt of a request's JSON: of ``messages``, or of the text ``prompt``, of
        several the first. Raises :class:`NotExactError`.
        """

    def chat_text(self, messages: Sequence[Mapping[str, Any]], **request: Any) -> str:
        """The text whose ids :meth:`encode_chat` returns. Raises :class:`NotExactError`."""

    def counters(self) -> dict[str, float]:
        """What was done so far: prompts ``encoded`` and those that were ``not_exact``;
        ``text_bytes`` of those encoded, ``known_bytes`` of which came from the cache; ``tokens``
        returned; ``tokenize_us``, microseconds spent on what was not known; and ``cache_bytes``
        that the cache holds now.
        """

    def _encode_call(
        self,
        args: Sequence[Any],
        kwargs: dict[str, Any] | None,
        most_unknown_bytes: int | None = None,
    ) -> tuple[npt.NDArray[np.uint32] | None, int]:
        """The ids of the prompt in the call of a Ray Serve handle, and 0.

        No ids, where it has no prompt that is text, or one whose ids are not known exactly; and
        where more than ``most_unknown_bytes`` of it are not in the cache, with how many those are.
        """
