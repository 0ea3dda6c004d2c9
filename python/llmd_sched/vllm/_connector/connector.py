"""The class that vLLM makes; it only hands over."""

from __future__ import annotations

from typing import Any

from llmd_sched._core import KvStore
from llmd_sched._errors import ConfigError
from llmd_sched.vllm._borrowed import borrowed, lacks
from llmd_sched.vllm._connector.announcing import Announcer
from llmd_sched.vllm._connector.groups import fingerprint, model_of
from llmd_sched.vllm._connector.moving import Mover
from llmd_sched.vllm._connector.planning import Plan, Planner
from llmd_sched.vllm._connector.settings import StoreSettings

_BASE = "vllm.distributed.kv_transfer.kv_connector.v1.base"
[_Base, _Metadata, _Role, _SupportsHMA] = borrowed(
    _BASE, "KVConnectorBase_V1", "KVConnectorMetadata", "KVConnectorRole", "SupportsHMA"
)

# Where it is not called, blocks would be saved while others write to them.
if not hasattr(_Base, "handle_preemptions"):
    raise lacks("KVConnectorBase_V1.handle_preemptions", _BASE)


class LlmdMetadata(_Metadata):  # type: ignore[misc, valid-type]  # vLLM's
    """A step's plan, on its way from the scheduler to the workers."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan


class LlmdConnector(_Base, _SupportsHMA):  # type: ignore[misc, valid-type]  # vLLM's
    """Keeps KV blocks in a store that all engines of a node share::

        vllm serve MODEL --kv-transfer-config '{"kv_connector": "LlmdConnector",
          "kv_connector_module_path": "llmd_sched.vllm", "kv_role": "kv_both",
          "kv_connector_extra_config": {"store": "vllm", "host_gib": 64}}'

    Blocks are saved as they fill, and a prompt that any engine has computed is loaded instead of
    being computed again, between steps, while others run. What is lost meanwhile (given up for
    others, damaged, its writer killed) is computed: ``kv_load_failure_policy`` is set to
    ``recompute``.

    Full and sliding-window attention, alone or mixed; KV caches in the CPU's memory. Those of GPUs
    need a copy that has not been written. Pipeline parallelism is refused.
    """

    def __init__(self, vllm_config: Any, role: Any, kv_cache_config: Any = None) -> None:
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        transfer = vllm_config.kv_transfer_config
        transfer.kv_load_failure_policy = "recompute"
        self._settings = StoreSettings.of(transfer.kv_connector_extra_config or {})
        parallel = vllm_config.parallel_config
        if parallel.pipeline_parallel_size != 1:
            raise ConfigError(
                f"LlmdConnector does not serve pipeline_parallel_size="
                f"{parallel.pipeline_parallel_size}: use 1"
            )
        self._model = model_of(kv_cache_config)
        self._num_blocks = kv_cache_config.num_blocks
        self._planner: Planner | None = None
        self._mover: Mover | None = None
        self._missing: set[int] = set()
        if role == _Role.SCHEDULER:
            ranks = range(parallel.tensor_parallel_size)
            stores = [self._stores(rank) for rank in ranks]
            events = vllm_config.kv_events_config
            wants_events = events is not None and events.enable_kv_cache_events
            announcer = Announcer(self._model.groups, stores) if wants_events else None
            self._planner = Planner(self._model, stores, announcer)

    def _stores(self, rank: int) -> list[KvStore]:
        """The blocks of a worker, of each group: hashes of two groups may be the same."""
        settings, model = self._settings, self._model
        worker = fingerprint(self._vllm_config, model, settings.namespace, rank)
        numbers = (group.number.to_bytes(2, "little") for group in model.groups)
        return [settings.open(model.block_bytes, worker + number) for number in numbers]

    # Beside the scheduler.

    def get_num_new_matched_tokens(
        self, request: Any, num_computed_tokens: int
    ) -> tuple[int, bool]:
        """Tokens that the store has beyond those of the engine, loaded between steps."""
        assert self._planner is not None
        found = self._planner.matched_tokens(request, num_computed_tokens)
        return found, found > 0

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        """Where the tokens are to be loaded."""
        assert self._planner is not None
        self._planner.placed(request, blocks.get_block_ids(), num_external_tokens)

    def build_connector_meta(self, scheduler_output: Any) -> LlmdMetadata:
        """A step's plan."""
        assert self._planner is not None
        return LlmdMetadata(self._planner.plan(scheduler_output))

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, None]:
        """Blocks may be freed: saves of them are over before the next step."""
        return self.request_finished_all_groups(request, (block_ids,))

    def request_finished_all_groups(
        self, request: Any, _block_ids: tuple[list[int], ...]
    ) -> tuple[bool, None]:
        """As :meth:`request_finished`."""
        assert self._planner is not None
        self._planner.finished(request.request_id)
        return False, None

    def take_events(self) -> list[Any]:
        """KV events of the tier below the engine's memory."""
        return [] if self._planner is None else self._planner.events()

    # In a worker.

    def register_kv_caches(self, kv_caches: dict[str, Any]) -> None:
        """Where the KV cache is."""
        [rank] = borrowed("vllm.distributed", "get_tensor_model_parallel_rank")
        device = next(iter(kv_caches.values())).device
        if device.type != "cpu":
            raise ConfigError(f"LlmdConnector serves KV caches of CPUs, not of {device}")
        stores, threads = self._stores(rank()), self._settings.threads
        self._mover = Mover(self._model, stores, kv_caches, self._num_blocks, threads)

    def handle_preemptions(self, kv_connector_metadata: Any) -> None:
        """A step begins: blocks that were freed may be overwritten from here on.

        Not first when its metadata is bound: vLLM has zeroed the step's new blocks by then.
        """
        if self._mover is not None:
            self._mover.wait_for_saves()

    def start_load_kv(self, forward_context: Any, **_: Any) -> None:
        """Begins the loads, for later steps."""
        if self._mover is not None:
            self._mover.start(self._get_connector_metadata().plan)

    def wait_for_layer_load(self, layer_name: str) -> None:
        """A request runs when all of it is there."""

    def save_kv_layer(self, layer_name: str, kv_layer: Any, attn_metadata: Any, **_: Any) -> None:
        """Blocks are saved whole, when all layers are there."""

    def wait_for_save(self) -> None:
        """Begins the saves."""
        if self._mover is not None:
            self._mover.save(self._get_connector_metadata().plan)

    def get_finished(self, finished_req_ids: set[str]) -> tuple[None, set[str]]:
        """Requests whose loads are over."""
        done, self._missing = self._mover.loaded() if self._mover is not None else (set(), set())
        return None, done

    def get_block_ids_with_load_errors(self) -> set[int]:
        """Their blocks that were not there."""
        missing, self._missing = self._missing, set()
        return missing

    def shutdown(self) -> None:
        """Ends the threads."""
        if self._mover is not None:
            self._mover.wait_for_saves()
            self._mover.close()
            self._mover = None
