#!/usr/bin/env python3
"""Makes random-weight models small enough for an engine on one CPU core.

`tiny_models.py OUT [NAME...]` writes OUT/<name>/ for each name (default: all), in the Hugging Face
layout that `vllm serve` reads, with a local tokenizer and chat template, so that nothing is
downloaded. A model that is already there in the same shape is left alone. Weights and tokenizer
depend on this file alone: two machines make the same bytes. Run it with the Python of the engine's
environment (torch, transformers, tokenizers).

`tiny-*` models only have to exist: their prefill takes milliseconds. `small-llama` (26 M
parameters) has a prefill long enough on one core that a prefix hit is visible in the time to first
token.
"""

import hashlib
import itertools
import json
import os
import shutil
import sys
from pathlib import Path

VOCAB_SIZE = 1024
SPECIAL_TOKENS = ["<unk>", "<s>", "</s>", "<pad>"]
# fmt: off
WORDS = [
    "the", "a", "of", "and", "to", "in", "is", "you", "for", "on", "with", "as", "that", "it", "be",
    "this", "system", "user", "assistant", "please", "answer", "question", "document", "hello",
    "world", "router", "prefill", "decode", "cache", "block", "token", "expert", "schedule",
    "latency", "prefix", "engine", "rank", "replica",
]
# fmt: on
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<s>{{ message['role'] }}\n{{ message['content'] }}</s>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)

# head_dim 32 is the smallest that vLLM's CPU attention accepts.
TINY = {
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
SMALL = {
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 64,
}
MODELS = {
    "tiny-llama": ("LlamaConfig", TINY),
    "small-llama": ("LlamaConfig", SMALL),
    "tiny-qwen3moe": (
        "Qwen3MoeConfig",
        {
            **TINY,
            "num_experts": 8,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 64,
            "decoder_sparse_step": 1,
            "norm_topk_prob": True,
        },
    ),
    # Layers alternate between a 64-token sliding window and full attention: two KV cache groups.
    "tiny-gemma3": (
        "Gemma3TextConfig",
        {
            **TINY,
            "sliding_window": 64,
            "query_pre_attn_scalar": 32,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
}
# An adapter for tiny-llama, in PEFT's layout.
LORA_NAME = "tiny-llama-lora"
LORA_RANK = 8


def byte_level_bpe() -> dict:
    """A byte-level BPE of VOCAB_SIZE tokens: the bytes, then WORDS, then syllables until the
    vocabulary is full.

    Written down instead of trained, because a trainer's tie-breaks are not promised to be the same
    everywhere.
    """
    from tokenizers import pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *alphabet])}
    merges: list[tuple[str, str]] = []
    syllables = (
        a + b + c for a, b, c in itertools.product("bcdfghjklmnprstvwz", "aeiou", "lmnrst")
    )
    for word in itertools.chain(WORDS, syllables):
        spelled = "Ġ" + word  # byte-level BPE writes a leading space as Ġ
        for end in range(2, len(spelled) + 1):
            token = spelled[:end]
            if token not in vocab and len(vocab) < VOCAB_SIZE:
                vocab[token] = len(vocab)
                merges.append((spelled[: end - 1], spelled[end - 1]))
    if len(vocab) != VOCAB_SIZE:
        raise AssertionError(f"the word lists fill only {len(vocab)} of {VOCAB_SIZE} tokens")
    return {"vocab": vocab, "merges": merges}


def write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(**byte_level_bpe(), unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)


def write_model(folder: Path, config_class: str, shape: dict) -> None:
    import torch
    import transformers

    config = getattr(transformers, config_class)(
        vocab_size=VOCAB_SIZE,
        max_position_embeddings=16384,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
        tie_word_embeddings=False,
        dtype="bfloat16",
        rms_norm_eps=1e-5,
        **shape,
    )
    model = transformers.AutoModelForCausalLM.from_config(config).to(torch.bfloat16)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            # Unit-variance activations: the default initialisation gives logits so flat that greedy
            # decoding repeats one token whatever the prompt, and such output would hide a wrong
            # prefix hit.
            if weight.dim() >= 2:
                scale = 1.0 if "embed" in name else weight.shape[-1] ** -0.5
                weight.copy_(torch.randn(weight.shape, generator=generator) * scale)
    model.save_pretrained(folder)
    write_tokenizer(folder)


def write_lora(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    targets = {"q_proj": TINY["num_attention_heads"], "v_proj": TINY["num_key_value_heads"]}
    generator = torch.Generator().manual_seed(1)
    tensors = {}
    for layer, (target, heads) in itertools.product(
        range(TINY["num_hidden_layers"]), targets.items()
    ):
        prefix = f"base_model.model.model.layers.{layer}.self_attn.{target}"
        shapes = {
            "lora_A": (LORA_RANK, TINY["hidden_size"]),
            "lora_B": (heads * TINY["head_dim"], LORA_RANK),
        }
        for part, dims in shapes.items():
            tensors[f"{prefix}.{part}.weight"] = (
                torch.randn(dims, generator=generator).to(torch.bfloat16) * 0.1
            )
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    adapter = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": LORA_RANK,
        "lora_alpha": LORA_RANK,
        "target_modules": sorted(targets),
        "bias": "none",
        "base_model_name_or_path": "tiny-llama",
    }
    (folder / "adapter_config.json").write_text(json.dumps(adapter, indent=1))


def make(out: Path, name: str) -> bool:
    """Writes OUT/name unless it is there already; says whether it wrote."""
    recipe = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()
    folder, stamp = out / name, out / name / "recipe.sha256"
    if stamp.exists() and stamp.read_text() == recipe:
        return False
    # Written aside and renamed, so that an interrupted or a concurrent run never leaves half a
    # model in place.
    draft = out / f".{name}.{os.getpid()}"
    draft.mkdir(parents=True)
    try:
        if name == LORA_NAME:
            write_lora(draft)
        else:
            write_model(draft, *MODELS[name])
        (draft / stamp.name).write_text(recipe)
        shutil.rmtree(folder, ignore_errors=True)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return True


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit("usage: tiny_models.py OUT [NAME...]")
    out, names = Path(sys.argv[1]), sys.argv[2:] or [*MODELS, LORA_NAME]
    unknown = sorted(set(names) - {*MODELS, LORA_NAME})
    if unknown:
        sys.exit(f"tiny_models.py: unknown models {unknown}; known: {[*MODELS, LORA_NAME]}")
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        print(f"{out / name}: {'made' if make(out, name) else 'already there'}")


if __name__ == "__main__":
    main()
