"""The native module: the reference of everything that ``llmd_sched`` exports from it.

The docstrings here are the ones that ``help()`` shows; they are compiled in from these files.
"""

from llmd_sched._core._decision import Decision as Decision
from llmd_sched._core._decision import Leg as Leg
from llmd_sched._core._endpoint import Endpoint as Endpoint
from llmd_sched._core._endpoint import KvPosition as KvPosition
from llmd_sched._core._explanation import Explanation as Explanation
from llmd_sched._core._explanation import Features as Features
from llmd_sched._core._explanation import FilterStep as FilterStep
from llmd_sched._core._explanation import Matches as Matches
from llmd_sched._core._gateway import Gateway as Gateway
from llmd_sched._core._internal import _after_fork as _after_fork
from llmd_sched._core._internal import _before_fork as _before_fork
from llmd_sched._core._internal import _read_call as _read_call
from llmd_sched._core._internal import errand_run as errand_run
from llmd_sched._core._internal import explain_body as explain_body
from llmd_sched._core._internal import request_options as request_options
from llmd_sched._core._internal import run_cli as run_cli
from llmd_sched._core._kv_store import KvStore as KvStore
from llmd_sched._core._moe import BalanceWatch as BalanceWatch
from llmd_sched._core._moe import ExpertMap as ExpertMap
from llmd_sched._core._moe import RankScorer as RankScorer
from llmd_sched._core._moe import advise_experts as advise_experts
from llmd_sched._core._moe import noise_floor as noise_floor
from llmd_sched._core._moe import place_experts as place_experts
from llmd_sched._core._moe import plan_migration as plan_migration
from llmd_sched._core._moe import read_expert_load as read_expert_load
from llmd_sched._core._moe import rebalance_experts as rebalance_experts
from llmd_sched._core._moe import simulate_expert_steps as simulate_expert_steps
from llmd_sched._core._moe import simulate_ranks as simulate_ranks
from llmd_sched._core._mounted import Exchange as Exchange
from llmd_sched._core._mounted import Mailbox as Mailbox
from llmd_sched._core._mounted import MountedGateway as MountedGateway
from llmd_sched._core._prompt import PromptKeys as PromptKeys
from llmd_sched._core._prompt import block_keys as block_keys
from llmd_sched._core._prompt import text_block_keys as text_block_keys
from llmd_sched._core._prompt import vllm_block_hashes as vllm_block_hashes
from llmd_sched._core._replay import ReplayReport as ReplayReport
from llmd_sched._core._replay import replay as replay
from llmd_sched._core._request_body import RequestBody as RequestBody
from llmd_sched._core._router import Router as Router
from llmd_sched._core._scaler import SloScaler as SloScaler
from llmd_sched._core._signals import describe_engine as describe_engine
from llmd_sched._core._signals import read_metrics as read_metrics
from llmd_sched._core._sim import Workload as Workload
from llmd_sched._core._sim import builtin_policies as builtin_policies
from llmd_sched._core._sim import capacity_requests_per_s as capacity_requests_per_s
from llmd_sched._core._sim import simulate as simulate
from llmd_sched._core._tokenizer import Tokenizer as Tokenizer
from llmd_sched._core._turn_queue import TurnQueue as TurnQueue

__version__: str
