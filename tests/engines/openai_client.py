"""The `openai` package at two addresses: `openai_client.py DIRECT GATEWAY`.

Run by `test_gateway.py` in the engine's environment, which has the package. Prints what both
answered as one line of JSON.
"""

import json
import sys
from typing import Any

from openai import NotFoundError, OpenAI

PROMPT = "Once upon a time there was a router that knew where every block was. " * 4
SAME: dict[str, Any] = {"max_tokens": 12, "temperature": 0, "extra_body": {"ignore_eos": True}}
TALK: list[Any] = [{"role": "user", "content": PROMPT}]


def answers(base_url: str) -> dict[str, Any]:
    """What a client sees of one address, without ids and times."""
    client = OpenAI(base_url=f"{base_url}/v1", api_key="none", max_retries=0)
    model = client.models.list().data[0].id
    whole = client.completions.create(model=model, prompt=PROMPT, **SAME)
    pieces = client.completions.create(model=model, prompt=PROMPT, stream=True, **SAME)
    chat = client.chat.completions.create(model=model, messages=TALK, **SAME)
    usage = {"include_usage": True}
    talk = client.chat.completions.create(
        model=model, messages=TALK, stream=True, stream_options=usage, **SAME
    )
    events = list(talk)
    try:
        client.completions.create(model="nobody", prompt="a")
    except NotFoundError as error:
        refused = error.status_code
    return {
        "model": model,
        "whole": [choice.text for choice in whole.choices],
        "tokens": whole.usage.completion_tokens if whole.usage else None,
        "pieces": "".join(piece.choices[0].text for piece in pieces),
        "chat": chat.choices[0].message.content,
        "talk": "".join(it.choices[0].delta.content or "" for it in events if it.choices),
        "talk_tokens": events[-1].usage.completion_tokens if events[-1].usage else None,
        "refused": refused,
    }


if __name__ == "__main__":
    print(json.dumps([answers(base_url) for base_url in sys.argv[1:]]))
