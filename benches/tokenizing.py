"""What tokens of texts cost: `make bench-tokenize`.

CPU microseconds of the calling thread, which does all of the work, medians over rounds:

- `tokenize_us_32k`: a chat whose text is not known, of 32,768 tokens or a little more;
- `encode_hit_us_32k`: the same chat again, by its messages;
- `text_hit_us_32k`: the text of it, already rendered;
- `turn_us_32k`: a conversation of that length that grew by one turn of 200 words;
- `render_us_32k`: what of those is reading the messages and rendering the template.

Beside them what a hit cannot do without: `floor_us_32k`, to look at each byte of the text twice
(once to hash it, once to compare it) and to copy the ids, measured as numpy's copies of so many
bytes; and `hit_over_floor` and `cold_over_hit`.

Give `--model` a folder with the tokenizer of a real model; without one it trains a byte-level BPE
of 32,000 tokens on this repository, split as Llama 3 splits. Prints a line BENCH {json} last.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from llmd_sched import Tokenizer

TOKENS = 32_768
ROUNDS = 15
ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = (
    "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def words() -> list[str]:
    """Words as this repository's documents have them, with their marks and line breaks."""
    texts = [
        path.read_text() for path in sorted([*ROOT.glob("docs/*.md"), *ROOT.glob("src/**/*.rs")])
    ]
    return " ".join(texts).split(" ")


def trained(folder: Path) -> None:
    """A model's folder, as real ones are but for the size of the vocabulary."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(SPLIT), "isolated")
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, plain])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=32_000, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([" ".join(words())], trainer)
    marks = ["<|start|>", "<|end|>"]
    tokenizer.add_special_tokens([AddedToken(it, normalized=False) for it in marks])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(TEMPLATE)


def us(call: Callable[[], Any]) -> float:
    before_ns = time.thread_time_ns()
    call()
    return (time.thread_time_ns() - before_ns) / 1e3


class Talk:
    """A conversation whose turns are 200 words."""

    def __init__(self, seed: int, source: list[str]) -> None:
        self._random = random.Random(seed)
        self._source = source
        self.messages: list[dict[str, str]] = []
        self.say()

    def say(self) -> None:
        at = self._random.randrange(len(self._source) - 200)
        role = "assistant" if len(self.messages) % 2 else "user"
        self.messages.append({"role": role, "content": " ".join(self._source[at : at + 200])})


def floor_us(text_bytes: int, tokens: int) -> float:
    """Two looks at the text and a copy of the ids, at the speed of the machine's memory."""
    text = np.zeros(text_bytes, np.uint8)
    ids = np.zeros(tokens, np.uint32)
    into, out = np.empty_like(text), np.empty_like(ids)

    def copies() -> None:
        np.copyto(into, text)
        np.copyto(into, text)
        np.copyto(out, ids)

    return min(us(copies) for _ in range(200))


def once(
    seed: int, source: list[str], tokenizer: Tokenizer, counting: Tokenizer
) -> dict[str, float]:
    """The costs of one conversation, of which `tokenizer` knows nothing; `counting` finds
    its length.
    """
    talk = Talk(seed, source)
    while (tokens := len(counting.encode_chat(talk.messages))) < TOKENS:
        talk.say()
    text = tokenizer.chat_text(talk.messages)
    costs = {
        "tokenize": us(lambda: tokenizer.encode_chat(talk.messages)),
        "encode_hit": us(lambda: tokenizer.encode_chat(talk.messages)),
        "text_hit": us(lambda: tokenizer.encode(text)),
        "render": us(lambda: tokenizer.chat_text(talk.messages)),
    }
    talk.say()
    costs["turn"] = us(lambda: tokenizer.encode_chat(talk.messages))
    return {**costs, "tokens": tokens, "text_bytes": len(text.encode())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="a folder with tokenizer.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        if given.model is None:
            trained(Path(made))
        else:
            (Path(made) / "chat_template.jinja").write_text(TEMPLATE)
        folder = Path(made) if given.model is None else given.model
        template = Path(made) / "chat_template.jinja"
        tokenizer = Tokenizer(folder, chat_template=template, cache_bytes=1 << 30)
        source = words()
        rounds = [
            once(seed, source, tokenizer, Tokenizer(folder, chat_template=template))
            for seed in range(ROUNDS)
        ]
        sizes = [it.pop("tokens") for it in rounds], [it.pop("text_bytes") for it in rounds]
        tokens, text_bytes = (int(statistics.median(it)) for it in sizes)
        figures: dict[str, float] = {
            f"{name}_us_32k": statistics.median(it[name] for it in rounds) for name in rounds[0]
        }
        figures["floor_us_32k"] = floor_us(text_bytes, tokens)
        figures["hit_over_floor"] = figures["text_hit_us_32k"] / figures["floor_us_32k"]
        figures["cold_over_hit"] = figures["tokenize_us_32k"] / figures["encode_hit_us_32k"]
        figures["tokens"] = tokens
        figures["text_bytes"] = text_bytes
    print("BENCH", json.dumps({name: round(it, 1) for name, it in figures.items()}))


if __name__ == "__main__":
    main()
