"""What an ingress request router of Ray Serve answers, from bytes to bytes.

The contract is of Ray's HAProxy: ``POST /internal/route`` with the client's body, or the
beginning of it, and few of its headers; the reply names a replica, and headers for it. Anything
but 200 is a routing failure, and the client gets 503. The replica then gets the request past this
process, which hears of it no more: see ``end_is_untold`` of :class:`llmd_sched.RequestOptions`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

from llmd_sched._core import RequestBody, request_options
from llmd_sched._errors import LlmdError, NoEndpointError, PromptError
from llmd_sched.ray._brain import DeploymentBrain
from llmd_sched.ray._deployments import find_brain

logger = logging.getLogger("llmd_sched.ray")

Headers = Sequence[tuple[bytes, bytes]]

# "received/whole", bytes, where the proxy forwards only the beginning of a body.
TRUNCATED = b"x-body-truncated"
# Where the other legs of a request run, which whoever asked has chosen: they go on to the replica.
LEGS = frozenset((b"x-prefiller-host-port", b"x-encoder-hosts-ports", b"x-data-parallel-rank"))
# By which a replica of Ray Serve knows an adapter.
MULTIPLEXED_MODEL_ID = "serve_multiplexed_model_id"
# What the proxy, which reads a reply by patterns, would take for the end of a header or of all.
UNSAFE = frozenset('"{}\\')


class Picker:
    """Picks replicas of one deployment, whose router is an ``LlmdRouter`` of this process.

    ``session_header``: its name in Ray's configuration. ``base_model``: the id of the model, where
    clients may ask for adapters of it (``base:adapter``).

    Not to be shared between threads. Ray's own thread may change the brain meanwhile: the router
    is safe to share, and of the rest only dictionaries are read.
    """

    def __init__(
        self,
        deployment: str,
        *,
        session_header: str = "x-session-id",
        base_model: str | None = None,
    ) -> None:
        self.deployment = deployment
        self._session_header = hyphened(session_header.lower().encode("latin-1"))
        self._base_model = base_model
        # Of a replica, where it listens, and the reply that names it but for its last bracket.
        self._replies: dict[str, tuple[tuple[str, int], bytes]] = {}
        self._routed = 0
        self._truncated = 0
        self._without_prompt = 0
        self._bad_headers = 0
        self._failed = 0
        self._last_error: str | None = None

    def answer(self, body: bytes, headers: Headers) -> tuple[int, bytes]:
        """Status and JSON of a reply."""
        try:
            reply = self._route(body, headers)
        except PromptError as failed:
            return self._fail(400, str(failed))
        except LlmdError as failed:
            return self._fail(503, str(failed))
        except Exception as failed:
            # Ray would answer 500, and say nothing of why.
            logger.exception("%s: a request is not routed", self.deployment)
            return self._fail(503, f"{type(failed).__name__}: {failed}")
        self._routed += 1
        return 200, reply

    def _route(self, body: bytes, headers: Headers) -> bytes:
        brain = find_brain(self.deployment)
        if brain is None:
            raise NoEndpointError(f"nothing is known of {self.deployment} yet: ask again")
        options = brain.usual_options()
        carried: dict[str, str] = {}
        asked = RequestBody(body, whole_bytes=self._read(headers, options, carried))
        self._truncated += not asked.is_whole
        self._without_prompt += asked.prompt_kind is None
        if asked.model in brain.settings.aliases:
            options["model"] = asked.model
        if adapter := self._adapter(asked.model):
            options["lora"] = carried[MULTIPLEXED_MODEL_ID] = adapter
        decision = brain.router.route(asked, end_is_untold=True, **options)
        reply = self._reply(brain, decision.address)
        if reply is None:
            brain.router.cancel(decision)
            reply = self._route_where_reachable(brain, asked, options)
        if not carried:
            return reply + b"}"
        return b'%b, "request_headers": %b}' % (reply, json.dumps(carried).encode())

    def _read(
        self, headers: Headers, options: dict[str, Any], carried: dict[str, str]
    ) -> int | None:
        """Takes what headers say; returns how long the whole body was, where it is cut off."""
        whole_bytes = None
        try:
            options.update(request_options(headers))
        except PromptError as failed:
            # A failure here would turn the request away, which its replica may well take.
            self._bad_headers += 1
            self._note(str(failed))
        for name, value in headers:
            if name in LEGS:
                text = value.decode("latin-1")
                if text.isprintable() and UNSAFE.isdisjoint(text):
                    carried[name.decode("latin-1")] = text
            elif name == TRUNCATED:
                whole = value.rpartition(b"/")[2]
                whole_bytes = int(whole) if whole.isdigit() else None
            elif hyphened(name) == self._session_header and value:
                options["session_id"] = value.decode("latin-1")
        return whole_bytes

    def _adapter(self, model: str | None) -> str | None:
        """The adapter that is asked for. A model that is none of ours goes to whoever has room: its
        engine says so better than a proxy.
        """
        base = self._base_model
        if base is None or model is None or model == base or not UNSAFE.isdisjoint(model):
            return None
        return model if model.partition(":")[0] == base else None

    def _reply(self, brain: DeploymentBrain, name: str) -> bytes | None:
        """What names a replica; None where it is gone or listens nowhere."""
        endpoint = getattr(brain.replica(name), "backend_http_endpoint", None)
        if endpoint is None:
            return None
        known = self._replies.get(name)
        if known is None or known[0] != endpoint:
            host, port = endpoint
            named = json.dumps({"host": host, "port": port, "replica_id": name})
            known = (endpoint, named.removesuffix("}").encode())
            # Those that are gone stay until then, which are few.
            if len(self._replies) > 2 * len(brain.in_use()):
                self._replies.clear()
            self._replies[name] = known
        return known[1]

    def _route_where_reachable(
        self, brain: DeploymentBrain, asked: RequestBody, options: dict[str, Any]
    ) -> bytes:
        replies = {name: self._reply(brain, name) for name in brain.in_use()}
        if allowed := [name for name, reply in replies.items() if reply is not None]:
            options["allowed"] = allowed
            decision = brain.router.route(asked, end_is_untold=True, **options)
            if reply := replies[decision.address]:
                return reply
        raise NoEndpointError(
            f"no replica of {self.deployment} listens for HTTP: it has to be the ingress of its "
            "application, and RAY_SERVE_ENABLE_HA_PROXY=1 has to be set where Ray Serve starts"
        )

    def _fail(self, status: int, why: str) -> tuple[int, bytes]:
        self._failed += 1
        self._note(why)
        return status, json.dumps({"detail": why}).encode()

    def _note(self, why: str) -> None:
        if why != self._last_error:
            logger.warning("%s: %s", self.deployment, why)
        self._last_error = why

    def counters(self) -> dict[str, Any]:
        """What it did: requests ``routed``, those of them that came ``truncated`` or
        ``without_prompt`` (which go where there is room), ``bad_headers`` that were left out, those
        that ``failed``, and the ``last_error``.
        """
        return {
            "routed": self._routed,
            "truncated": self._truncated,
            "without_prompt": self._without_prompt,
            "bad_headers": self._bad_headers,
            "failed": self._failed,
            "last_error": self._last_error,
        }


def hyphened(name: bytes) -> bytes:
    """A header's name with the sign that some proxies put in place of the other."""
    return name.replace(b"_", b"-")
