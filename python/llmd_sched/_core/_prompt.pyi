"""Prompts as block keys."""

from collections.abc import Sequence
from typing import final

import numpy as np
import numpy.typing as npt
from llmd_sched._types import HashAlgorithm, PromptOptions, Tokens
from typing_extensions import Unpack

@final
class PromptKeys:
    """The block keys of a prompt that grows, as a conversation does from turn to turn.

    Each turn hashes only the tokens that are new; those that are there are neither kept nor
    compared. :meth:`Router.prompt_keys` makes one, and it goes wherever that router takes a
    prompt; ``model``, ``lora``, ``cache_salt`` and ``multimodal`` are then its own.

    >>> from llmd_sched import Router
    >>> router = Router()
    >>> _ = router.add_endpoint("http://10.0.0.1:8000", model="llama")
    >>> prompt = router.prompt_keys(range(100), model="llama")
    >>> router.finish(router.route(prompt, session_id="s1"))
    True
    >>> prompt.extend(range(100, 164))  # the answer, and what the user said next
    >>> decision = router.route(prompt, session_id="s1")
    >>> decision.prompt_tokens, decision.matched_tokens
    (164, 96)

    Safe to share between threads; a turn of one conversation follows the one before all the same.
    """

    def extend(self, tokens: Tokens, *, multimodal: Sequence[tuple[str, int, int]] = ()) -> None:
        """Appends tokens, and the multimodal items that lie in them.

        Offsets of ``multimodal`` count from the start of the prompt. Raises :class:`PromptError`,
        and appends nothing then.
        """

    def truncate(self, length: int) -> int:
        """Cuts to whole blocks of at most ``length`` tokens, before an item that would be cut.

        Returns how long the prompt is now: append again from there, for a history that was
        edited.

        >>> from llmd_sched import Router
        >>> prompt = Router().prompt_keys(range(100))
        >>> prompt.truncate(70)
        64
        """

    @property
    def block_size(self) -> int:
        """Tokens a block."""

    @property
    def keys(self) -> npt.NDArray[np.uint64]:
        """A copy of the keys of the full blocks, as :func:`block_keys` gives them."""

    def __len__(self) -> int: ...

def block_keys(
    tokens: Tokens,
    *,
    block_size: int = 16,
    **options: Unpack[PromptOptions],
) -> npt.NDArray[np.uint64]:
    """The router's own names of the full blocks of a prompt, chained and position-dependent.

    Raises :class:`PromptError`.

    >>> from llmd_sched import block_keys
    >>> keys = block_keys([1, 2, 3, 4, 5], block_size=2)
    >>> keys.dtype, len(keys)
    (dtype('uint64'), 2)
    """

def text_block_keys(
    text: str,
    *,
    block_size: int = 16,
    **options: Unpack[PromptOptions],
) -> npt.NDArray[np.uint64]:
    """Names of the full blocks of a prompt without tokens, cut by UTF-8 bytes.

    They are never equal to those of tokens. Raises :class:`PromptError`.
    """

def vllm_block_hashes(
    tokens: Tokens,
    *,
    block_size: int = 16,
    algorithm: HashAlgorithm = "sha256",
    seed: str | None = None,
    lora: tuple[str, str] | None = None,
    cache_salt: str | None = None,
    multimodal: Sequence[tuple[str, int, int]] = (),
) -> list[bytes]:
    """vLLM's own hashes of the full blocks of a prompt: 32 bytes for sha256, 16 for xxhash.

    ``seed`` is the engine's ``PYTHONHASHSEED``; without one, vLLM 0.32 uses a fixed seed for the
    sha256 family and a random one for the xxhash family. ``lora`` is (name, path).

    Raises :class:`PromptError`.
    """
