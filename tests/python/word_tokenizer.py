"""A model's folder whose tokens are words, for tests that need a tokenizer and not a vocabulary."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path


def write(folder: Path, words: Sequence[str], template: str) -> Path:
    """Writes it; the second word is a special token, the first stands for those that are none."""
    turn = {"id": 1, "content": words[1], "special": True, "normalized": False}
    flags = {"single_word": False, "lstrip": False, "rstrip": False}
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = {
        "added_tokens": [{**turn, **flags}],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": words[0]},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "chat_template.jinja").write_text(template)
    return folder
