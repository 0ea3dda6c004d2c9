"""Why it goes there: what is believed and known of each candidate."""

from collections.abc import Mapping
from typing import Any, final

import numpy as np
import numpy.typing as npt
from llmd_sched._core._endpoint import Endpoint
from llmd_sched._types import MatchSourceName

@final
class Explanation:
    """What each filter removed and what each scorer gave; a table in a notebook.

    >>> from llmd_sched import Router
    >>> router = Router()
    >>> _ = router.add_endpoint("http://10.0.0.1:8000")
    >>> explanation = router.explain([1, 2, 3])
    >>> explanation.totals.shape == (len(explanation.candidates),)
    True

    What is expected of the request where it was picked to go, as in :class:`Decision`:

    >>> router = Router({"predict": {"prior_profile": "qwen3-32b_h100_tp2"}})
    >>> _ = router.add_endpoint("http://10.0.0.1:8000")
    >>> explanation = router.explain(range(1000))
    >>> round(explanation.predicted_ttft_ms, 2)  # 3.52 + 0.05025 * 1000 + 1.6e-6 * 1000**2 / 2
    54.57
    >>> explanation.predicted_ttft_ms < explanation.predicted_ttft_p90_ms
    True
    """

    @property
    def profile(self) -> str:
        """Name of the profile."""

    @property
    def chosen(self) -> Endpoint | None:
        """Who was picked; None where nobody could be."""

    @property
    def rejection(self) -> str | None:
        """Why nobody could be picked."""

    @property
    def filters(self) -> tuple[FilterStep, ...]:
        """Filters in the order in which they ran."""

    @property
    def candidates(self) -> tuple[Endpoint, ...]:
        """Who was scored, in slot order."""

    @property
    def scores(self) -> dict[str, npt.NDArray[np.float64]]:
        """A column of scores in [0, 1] for each scorer, one a candidate."""

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each scorer in the sum."""

    @property
    def totals(self) -> npt.NDArray[np.float64]:
        """Weighted sum for each candidate."""

    @property
    def matched_tokens(self) -> npt.NDArray[np.uint32]:
        """Matched tokens for each candidate."""

    @property
    def picker(self) -> str:
        """Name of the picker."""

    @property
    def fallback(self) -> str | None:
        """Why the profile was not followed, where it was not (a scorer failed, say)."""

    @property
    def predicted_ttft_ms(self) -> float | None:
        """:attr:`Decision.predicted_ttft_ms` of :attr:`chosen`; None where there is neither."""

    @property
    def predicted_ttft_p90_ms(self) -> float | None:
        """:attr:`Decision.predicted_ttft_p90_ms` of it."""

    @property
    def predicted_tpot_ms(self) -> float | None:
        """:attr:`Decision.predicted_tpot_ms` of it."""

    @property
    def predicted_tpot_p50_ms(self) -> float | None:
        """:attr:`Decision.predicted_tpot_p50_ms` of it."""

    @property
    def predicted_tpot_p90_ms(self) -> float | None:
        """:attr:`Decision.predicted_tpot_p90_ms` of it."""

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain Python values."""

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Explanation:
        """From what :meth:`to_dict` gave, perhaps in another process."""

    def _repr_html_(self) -> str: ...

@final
class FilterStep:
    """One filter's work."""

    @property
    def name(self) -> str:
        """Name of the filter."""

    @property
    def removed(self) -> tuple[Endpoint, ...]:
        """Whom it removed."""

    @property
    def skipped(self) -> bool:
        """Whether it would have removed everybody, and was therefore skipped."""

@final
class Matches:
    """How much of one prompt each endpoint holds: columns, one row an endpoint, in slot order."""

    @property
    def query_blocks(self) -> int:
        """Full blocks of the prompt."""

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Whose rows these are."""

    @property
    def matched_blocks(self) -> npt.NDArray[np.uint32]:
        """Longest run of blocks from the first that the endpoint holds on any tier."""

    @property
    def matched_tokens(self) -> npt.NDArray[np.uint32]:
        """The same in tokens."""

    @property
    def lower_tier_blocks(self) -> npt.NDArray[np.uint32]:
        """How many of them are below GPU memory: shape (endpoints, 3), CPU, storage, remote."""

    @property
    def sources(self) -> tuple[MatchSourceName, ...]:
        """What each row rests on."""

    def __len__(self) -> int: ...

@final
class Features:
    """What scorers see: one row a candidate, one column a signal.

    ``features["kv_usage"]`` is a ``float64`` array over the candidates, NaN where a signal is
    unknown or stale; ``features.columns`` names them all.
    """

    @property
    def version(self) -> int:
        """Of the state that was read; :meth:`Router.commit` notices where it has changed."""

    @property
    def candidates(self) -> tuple[Endpoint, ...]:
        """Whom to score, in slot order, after the filters."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns."""

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt."""

    @property
    def model(self) -> str:
        """Model asked for."""

    @property
    def lora(self) -> str | None:
        """LoRA adapter asked for."""

    @property
    def session_id(self) -> str | None:
        """Conversation that the request belongs to."""

    @property
    def priority(self) -> int:
        """Priority of the request."""

    def __getitem__(self, column: str, /) -> npt.NDArray[np.float64]: ...
    def __len__(self) -> int: ...
