"""Wide expert parallelism: where experts go, and which rank gets a request."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Literal, final

import numpy as np
import numpy.typing as npt

@final
class ExpertMap:
    """Which logical expert each slot of each layer holds, and how tokens divide among replicas.

    Slots are numbered GPU by GPU and GPUs node by node, as vLLM and SGLang number physical
    experts. Made by :func:`place_experts` and :func:`rebalance_experts`.

    >>> import numpy as np
    >>> from llmd_sched.moe import place_experts
    >>> load = np.array([[800, 100, 100, 100, 100, 100, 100, 300]])  # one layer, eight experts
    >>> placed = place_experts(load, slots=12, gpus=4)
    >>> placed
    ExpertMap(1 layers, 8 experts in 12 slots of 4 GPUs on 1 nodes)
    >>> placed.physical_to_logical.shape, placed.balance(load).round(3).tolist()
    ((1, 12), [1.059])
    """

    @property
    def physical_to_logical(self) -> npt.NDArray[np.int64]:
        """Logical expert of each slot, ``layers x slots``; -1 on dead GPUs."""

    @property
    def shares(self) -> npt.NDArray[np.float64]:
        """Share of its expert's tokens that each slot gets, ``layers x slots``."""

    @property
    def shares_from_node(self) -> npt.NDArray[np.float64] | None:
        """The same for the senders of each node, ``layers x nodes x slots``.

        ``None`` where all nodes divide alike.
        """

    def balance(self, load: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Tokens of the fullest GPU over the mean, of each layer, under a load."""

    def remote_share(self, load: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """Share of the tokens that change the node on their way to an expert, of each layer.

        Senders are taken to be spread evenly over the nodes.
        """

    def layer_times(
        self, load: npt.ArrayLike, *, model: Mapping[str, Any] | None = None
    ) -> list[dict[str, float]]:
        """What each layer takes: ``dispatch_us``, ``experts_us`` and ``combine_us``, microseconds.

        ``model`` as in :func:`place_experts`.
        """

def place_experts(
    load: npt.ArrayLike,
    *,
    slots: int,
    gpus: int,
    nodes: int = 1,
    groups: int = 1,
    dead: Sequence[int] = (),
    old: npt.ArrayLike | None = None,
    policy: Literal["balanced", "grouped", "near", "fastest"] = "balanced",
    sharing: Literal["equal", "weighted"] = "equal",
    tolerance: float = 0.003,
    model: Mapping[str, Any] | None = None,
) -> ExpertMap:
    """Places experts for a load: replicas for those with most tokens, and GPUs as even as they go.

    ``load`` is tokens of ``layers x experts``; ``slots`` are all GPUs' together. ``groups`` are
    the router's, for group-limited routing; ``dead`` ranks get nothing. With ``old``
    (``layers x slots``) what stays on a GPU stays in its slot.

    ``policy``: ``"balanced"`` puts experts anywhere; ``"grouped"`` keeps a group's on one node, so
    that fewer nodes get each token; ``"near"`` gives the experts with most tokens a replica on
    every node, for senders there; ``"fastest"`` takes, layer by layer, what ``model`` says is
    fastest. ``sharing``: ``"equal"`` as engines' dispatchers divide tokens, ``"weighted"`` as
    :attr:`ExpertMap.shares` says. The search stops where the fullest GPU has no more than
    ``tolerance`` above the mean.

    ``model``, sizes that a step is modelled by: ``phase`` (``"decode"`` or ``"prefill"``),
    ``tokens_per_gpu`` (128, for prefill 4096), ``top_k`` (8), ``top_groups`` (4), ``hidden``
    (7168), ``expert_bytes`` (44e6), ``weights_gb_s`` (2680), ``token_us`` (0.08, arithmetic of a
    token in an expert) and ``fabric``, whose defaults are fitted to DeepEP's times.

    Equal loads give equal maps on every machine. Raises :class:`llmd_sched.ConfigError`.

    >>> import numpy as np
    >>> from llmd_sched.moe import place_experts
    >>> load = 1000 / np.arange(1, 257)[None, :]
    >>> anywhere = place_experts(load, slots=288, gpus=32, nodes=4)
    >>> near = place_experts(load, slots=288, gpus=32, nodes=4, policy="near")
    >>> [float(it.remote_share(load)[0].round(2)) for it in (anywhere, near)]
    [0.75, 0.44]
    """

def rebalance_experts(
    load: npt.ArrayLike,
    old: npt.ArrayLike,
    *,
    gpus: int,
    nodes: int = 1,
    dead: Sequence[int] = (),
    max_moves_per_layer: int = 16,
    target: float = 1.01,
    sharing: Literal["equal", "weighted"] = "equal",
    anew_gap: float | None = None,
) -> ExpertMap:
    """Mends a map for a new load, changing no more slots of a layer than ``max_moves_per_layer``.

    ``old`` is ``layers x slots``, -1 where nothing is. A layer whose fullest GPU has at most
    ``target`` times the mean is left alone. Experts that were only on ``dead`` ranks get a slot
    elsewhere, which is not counted. A layer that mending leaves more than ``anew_gap`` above what
    placing it anew would give is placed anew. Raises :class:`llmd_sched.ConfigError`.

    >>> import numpy as np
    >>> from llmd_sched.moe import place_experts, rebalance_experts
    >>> rng = np.random.default_rng(0)
    >>> load = rng.lognormal(0, 0.7, (1, 64))
    >>> old = place_experts(load, slots=80, gpus=16).physical_to_logical
    >>> drifted = load * rng.lognormal(0, 0.1, (1, 64))
    >>> new = rebalance_experts(drifted, old, gpus=16, max_moves_per_layer=4, sharing="weighted")
    >>> int((new.physical_to_logical != old).sum()) <= 4
    True
    """

def plan_migration(
    old: npt.ArrayLike,
    new: npt.ArrayLike,
    *,
    gpus: int,
    nodes: int = 1,
    dead: Sequence[int] = (),
    model: Mapping[str, Any] | None = None,
    gain_us_per_step: float = 0.0,
    steps: float = 3000.0,
    stall: float = 1.0,
) -> dict[str, Any]:
    """How weights get from one map to another, and whether that pays.

    ``batches``, each with its ``transfers`` (``layer``, ``expert``, ``from_slot``, ``to_slot``) and
    its ``us``: all of a batch read before any writes, and a GPU sends one and receives one, but
    where a ring of last copies passes it twice. ``bytes``, ``bytes_per_gpu`` (of the GPU that
    receives most), ``ms``, ``moves``, and ``lost``, experts that no living GPU has.

    ``pays`` says whether steps that become ``gain_us_per_step`` shorter make up for it within
    ``steps`` steps, of which ``break_even_steps`` are needed; ``stall`` is the share of it that
    steps wait for. Raises :class:`llmd_sched.ConfigError`.

    >>> from llmd_sched.moe import plan_migration
    >>> plan = plan_migration([[0, 1, 2, 3]], [[1, 0, 2, 3]], gpus=4, gain_us_per_step=0.5)
    >>> plan["moves"], len(plan["batches"]), round(plan["ms"], 2), plan["pays"]
    (2, 1, 0.28, True)
    """

def advise_experts(
    load: npt.ArrayLike,
    *,
    gpus: int,
    nodes: int = 1,
    groups: int = 1,
    extra_slots: int = 3,
    model: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Whether to balance experts, and how many slots a GPU to have for it.

    ``rows``, by slots a GPU from the fewest to ``extra_slots`` more: ``slots_per_gpu``,
    ``redundant``, ``extra_gb_per_gpu``, ``balance``, ``balance_weighted``, ``prefill_ms`` and
    ``decode_ms`` of all expert layers. ``unbalanced`` is the same of experts in their order.
    ``best`` is the row with the fewest slots whose time in the model's phase is within 1 % of the
    least, ``saved`` what that row saves, ``enable`` whether it is 2 % or more;
    ``decode_noise_floor`` what chance alone makes of a perfect map, decoding. ``model`` as in
    :func:`place_experts`. Raises :class:`llmd_sched.ConfigError`.

    >>> import numpy as np
    >>> from llmd_sched.moe import advise_experts
    >>> load = np.random.default_rng(0).lognormal(0, 0.7, (4, 256))
    >>> advice = advise_experts(load, gpus=32, nodes=4)
    >>> advice["enable"], advice["rows"][advice["best"]]["redundant"]
    (True, 32)
    """

def noise_floor(gpus: int, *, tokens_per_gpu: float = 128.0, top_k: int = 8) -> float:
    """Fullest GPU over the mean that chance alone makes of a perfect map.

    >>> from llmd_sched.moe import noise_floor
    >>> round(noise_floor(32), 3)
    1.065
    """

def simulate_expert_steps(
    load: npt.ArrayLike, *, slots: int, gpus: int, nodes: int = 1, groups: int = 1, **world: Any
) -> dict[str, Any]:
    """Plays steps of the expert layers: tokens drawn, loads that drift, maps that age.

    ``world``: ``steps`` (200), ``strategy`` (``"unbalanced"``, ``"once"``, ``"anew"`` or
    ``"mended"``), ``interval_steps`` (50), ``drift`` (0.1, sigma of an expert's load over an
    interval), ``stall`` (1.0), ``pays_within_steps`` (0: any), ``place`` and ``mend`` (settings of
    the two), ``died`` (``[{"step": 20, "rank": 3}]``), ``seed``.

    Returns ``step_us`` and ``balance`` of each step, ``rebalanced`` (``step``, ``moves``, ``ms``,
    ``lost``), ``mean_us``, ``mean_balance`` and ``total_ms``. Equal seeds play equal steps. Raises
    :class:`llmd_sched.ConfigError`.

    >>> import numpy as np
    >>> from llmd_sched.moe import simulate_expert_steps
    >>> load = np.random.default_rng(0).lognormal(0, 0.7, (4, 64))
    >>> ways = {
    ...     strategy: simulate_expert_steps(load, slots=80, gpus=16, steps=20, strategy=strategy)
    ...     for strategy in ("unbalanced", "once")
    ... }
    >>> ways["once"]["mean_us"] < ways["unbalanced"]["mean_us"]
    True
    """

def simulate_ranks(rule: str, **world: Any) -> dict[str, float]:
    """Plays data-parallel ranks in lockstep, a rule choosing the rank of each request.

    ``rule``: ``"round_robin"``, ``"requests"`` (vLLM's), ``"kv_argmin"``, ``"kv_power_of_two"``,
    ``"kv_booked"`` or ``"scored"`` (:class:`RankScorer`). ``world``: ``ranks`` (32),
    ``sequences_per_rank`` (64), ``prompt_tokens`` (2000), ``prompt_sigma`` (1.2), ``prompt_cap``,
    ``output_tokens`` (600), ``output_sigma`` (0.8), ``stale_steps`` (2),
    ``prefill_tokens_per_step`` (0: prefill is elsewhere), ``shared_us`` (0), ``costs`` (those of
    :class:`RankScorer`), ``steps``, ``warmup_steps``, ``seed``.

    Returns ``step_us``, ``kv_imbalance`` and ``sequences_imbalance``, averages over the steps.
    Raises :class:`llmd_sched.ConfigError`.

    >>> from llmd_sched.moe import simulate_ranks
    >>> scored, requests = (simulate_ranks(it, steps=300) for it in ("scored", "requests"))
    >>> scored["step_us"] < 0.9 * requests["step_us"]
    True
    """

@final
class RankScorer:
    """Chooses the data-parallel rank of a request, where all ranks wait for the slowest.

    It goes by tokens of KV, prefill that waits and sequences, in what they add to a step, counts
    what it has sent since a rank's last report, and fills ranks up to a level just above the
    mean: that keeps room on others for long prompts. A cached prefix decides among ranks under
    the level, so that it never makes one rank slow.

    ``costs``: ``kv_token_us``, ``sequence_us``, ``prefill_token_us``, ``most_cached_tokens`` (of a
    prefix, what counts), ``level`` (0.03 above the mean). Raises :class:`llmd_sched.ConfigError`.

    >>> from llmd_sched.moe import RankScorer
    >>> scorer = RankScorer(2)
    >>> scorer.report(0, 1, kv_tokens=90_000, sequences=8)
    >>> scorer.report(1, 1, kv_tokens=20_000, sequences=8)
    >>> scorer.choose(2, 4_000)
    1
    """

    def __new__(cls, ranks: int, **costs: Any) -> RankScorer: ...
    def report(
        self,
        rank: int,
        step: int,
        *,
        kv_tokens: float,
        prefill_tokens: float = 0.0,
        sequences: float = 0.0,
    ) -> None:
        """What a rank had at the end of a step; what was sent up to then is part of it."""

    def choose(
        self,
        step: int,
        prompt_tokens: float,
        *,
        cached_tokens: Sequence[float] = (),
        is_prefilled: bool = False,
    ) -> int:
        """The rank for a request, which counts there from now on.

        ``cached_tokens`` is what each rank has of its prompt; ``is_prefilled`` says that its KV
        comes from elsewhere.
        """

@final
class BalanceWatch:
    """Tells when expert balancing has stopped, or no longer does what was planned.

    ``settings``: ``stale_after_steps`` (6000), ``slack`` (0.05 of the mean), ``window_steps``
    (200).

    >>> from llmd_sched.moe import BalanceWatch
    >>> watch = BalanceWatch()
    >>> watch.planned(0, 1.01)
    >>> for step in range(1, 1000):
    ...     watch.read(step, 1.3, noise_floor=1.065)
    >>> watch.health(1000)["state"], watch.health(9000)["state"]
    ('uneven', 'stale')
    """

    def __new__(cls, **settings: Any) -> BalanceWatch: ...
    def planned(self, step: int, balance: float) -> None:
        """A map went live that is planned to give the fullest GPU so many times the mean."""

    def read(self, step: int, balance: float, *, noise_floor: float = 1.0) -> None:
        """What a step was like, and how much of that chance makes (:func:`noise_floor`)."""

    def health(self, step: int) -> dict[str, Any]:
        """``state``: ``"unknown"``, ``"good"``, ``"stale"`` (with ``steps``), or ``"uneven"``
        (with ``planned`` and ``achieved``)."""

def read_expert_load(path: str | PathLike[str]) -> npt.NDArray[np.float64]:
    """A recorded load, tokens of ``layers x experts``.

    From numpy's ``.npy``, or JSON: SGLang's ``{"logical_count": ...}`` or the array alone. Of three
    dimensions the first, times, is added up. Raises :class:`llmd_sched.ConfigError`.

    >>> import numpy as np, os, tempfile
    >>> from llmd_sched.moe import read_expert_load
    >>> path = os.path.join(tempfile.mkdtemp(), "load.npy")
    >>> np.save(path, np.array([[1, 2, 3]]))
    >>> read_expert_load(path)
    array([[1., 2., 3.]])
    """
