"""The least that a router of prompts can do: it hashes the beginning, and knows no load."""

from __future__ import annotations

from typing import Any

from ray.serve.request_router import RequestRouter


class TrivialRouter(RequestRouter):  # type: ignore[misc]  # Ray brings no types that hold
    async def choose_replicas(
        self, candidate_replicas: list[Any], pending_request: Any = None
    ) -> list[list[Any]]:
        if pending_request is None:
            return [candidate_replicas]
        pending_request.routing_context.should_backoff = True
        beginning = pending_request.args[0].messages[0]["content"][:64]
        best = candidate_replicas[hash(beginning) % len(candidate_replicas)]
        return [[best], candidate_replicas]
