"""What only the package itself calls."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llmd_sched._types import HeaderOptions, RequestOptions, Tokens
from typing_extensions import Unpack

def request_options(
    headers: Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]],
) -> HeaderOptions:
    """What a request's HTTP headers say about it, as options of :meth:`Router.route`.

    ``headers`` is a mapping or pairs of names and values, as ASGI gives them; names are of any
    case, other headers are passed over, and an empty value says nothing.

    - ``x-slo-ttft-ms``, ``x-slo-tpot-ms`` (llm-d's): ``ttft_slo_ms``, ``tpot_slo_ms``.
    - ``x-session-id`` (llm-d's, Ray Serve's): ``session_id``.
    - ``x-tenant``, or else ``x-gateway-inference-fairness-id``: ``tenant``.
    - ``x-priority``: ``priority``, an integer.
    - ``x-deadline-ms``: ``deadline_ms``, from 1 on.
    - ``x-max-hold-ms``: ``hold_ms``.
    - ``x-expected-output-tokens``: ``expected_output_tokens``, from 1 on.

    Raises :class:`PromptError`, naming the header, its value and what it may say.

    >>> from llmd_sched import request_options
    >>> request_options({"X-SLO-TTFT-ms": "250", "x-tenant": "a", "Accept": "*/*"})
    {'ttft_slo_ms': 250.0, 'tenant': 'a'}
    """

def explain_body(
    tokens: Tokens | None = None,
    *,
    text: str | None = None,
    **options: Unpack[RequestOptions],
) -> bytes:
    """The body of a ``POST /explain`` to a router's admin address."""

def run_cli(arguments: Sequence[str]) -> int:
    """Runs the command tree of ``llmd-sched`` and returns its exit status."""

def errand_run(errand: bytes, number: int) -> bytes:
    """Makes one run of what ``llmd-sched sim --ray`` sends, and returns what it gave.

    Raises :class:`ConfigError` for an errand of another release, or a run that cannot be.
    """

def _read_call(args: Sequence[Any], kwargs: dict[str, Any] | None) -> dict[str, Any]:
    """What :func:`llmd_sched.ray.asked` returns."""

def _before_fork() -> None: ...
def _after_fork(in_child: bool) -> None: ...
