#!/usr/bin/env python3
"""Captures what vLLM makes of chats: capture_chats.py MODEL CHATS

Part of `make goldens`; run with the Python of the engine's environment. No engine is started: each
body of CHATS/bodies.json goes, with each template of CHATS/templates, through vLLM's own request
type and renderer, with the tokenizer of the folder MODEL. CHATS/expected.json gets for each
template the format that vLLM finds it wants contents in, and for each body the text and the token
ids of its prompt, or why vLLM turns it away. Where a text tells the day it says `{today}`, and
ids are left out.
"""

import asyncio
import json
import sys
from datetime import date
from pathlib import Path
from typing import Any

from vllm.config import ModelConfig, VllmConfig
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.renderers.hf import resolve_chat_template_content_format
from vllm.renderers.online_renderer import OnlineRenderer
from vllm.renderers.registry import renderer_from_config

TODAY = "{today}"


def outcome(online: OnlineRenderer, body: dict[str, Any]) -> dict[str, Any]:
    """The prompt of a body."""
    try:
        request = ChatCompletionRequest(**json.loads(json.dumps(body)))
        answer = asyncio.run(online.render_chat(request))
    except Exception as refused:
        return {"refused": str(refused).splitlines()[0]}
    if not isinstance(answer, tuple):
        return {"refused": answer.error.message.splitlines()[0]}
    (prompt,) = answer[1]
    # A template that tells the day makes another prompt tomorrow.
    text = prompt.get("prompt", "").replace(date.today().strftime("%d %b %Y"), TODAY)
    return {"text": text, "ids": None if TODAY in text else prompt["prompt_token_ids"]}


def main(model: str, chats: Path) -> None:
    model_config = ModelConfig(model=model, max_model_len=8192)
    renderer = renderer_from_config(VllmConfig(model_config=model_config))
    bodies = json.loads((chats / "bodies.json").read_text())
    expected = {}
    for path in sorted((chats / "templates").glob("*.jinja")):
        template = path.read_text()
        online = OnlineRenderer(
            model_config,
            renderer,
            request_logger=None,
            chat_template=template,
            chat_template_content_format="auto",
            enable_auto_tools=True,
        )
        content_format = resolve_chat_template_content_format(
            template, None, "auto", renderer.get_tokenizer(), model_config=model_config
        )
        prompts = {name: outcome(online, body) for name, body in bodies.items()}
        expected[path.stem] = {"content_format": content_format, "prompts": prompts}
        refused = [name for name, prompt in prompts.items() if "refused" in prompt]
        print(f"{path.stem}: {content_format}, turned away: {', '.join(refused) or 'none'}")
    text = json.dumps(expected, indent=1, ensure_ascii=False)
    (chats / "expected.json").write_text(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
