"""One deployment's size: Ray's context in the rule's terms. It decides nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from llmd_sched._core import SloScaler
from llmd_sched._errors import ConfigError
from llmd_sched.ray.meter import PREFIX

logger = logging.getLogger("llmd_sched.ray")

# What Ray's routers hold back, which no replica has seen.
QUEUED = "ray-queue"


class Sizer:
    """The rule for one deployment, asked at most every ``look_s`` seconds."""

    def __init__(self, *, look_s: float, **settings: Any) -> None:
        if isinstance(look_s, bool) or not isinstance(look_s, (int, float)) or look_s <= 0:
            raise ConfigError(f"look_s is {look_s!r}: give seconds above 0")
        for bound in ("min_replicas", "max_replicas"):
            if bound in settings:
                raise ConfigError(f"{bound} is the autoscaling_config's: leave it out here")
        self._scaler = SloScaler(**settings)
        self._look_s = look_s
        self._began_s: float | None = None
        self._looked_s: float | None = None
        # By replica, the time of its last report that was read.
        self._read_s: dict[str, float] = {}
        self._said: dict[str, Any] = {}
        self._last_error: str | None = None

    def size(self, context: Any) -> tuple[int, dict[str, Any]]:
        """Replicas that there should be, and why."""
        target: int = context.target_num_replicas
        try:
            now_s = context.current_time
            if self._looked_s is not None and 0 <= now_s - self._looked_s < self._look_s:
                return target, self._said
            self._looked_s = now_s
            self._said = self._look(context, now_s)
            return self._said["desired"], self._said
        except Exception as failed:
            # The controller runs this: an error here would stop it from scaling anything.
            said = f"{type(failed).__name__}: {failed}"
            if said != self._last_error:
                logger.warning("%s keeps its size: %s", context.deployment_id, said)
            self._last_error = said
            self._said = {"desired": target, "error": said}
            return target, self._said

    def _look(self, context: Any, now_s: float) -> dict[str, Any]:
        # From the first look on: the rule's times begin at 0.
        if self._began_s is None:
            self._began_s = now_s
        elapsed_s = now_s - self._began_s
        least = max(context.capacity_adjusted_min_replicas, 1)
        self._scaler.set_bounds(least, max(context.capacity_adjusted_max_replicas, least))
        reports = list(self._new_reports(context.raw_metrics or {}))
        for replica, demand in reports:
            self._scaler.read(elapsed_s, replica, demand)
        if reports:
            queued = {"waiting_requests": max(float(context.total_queued_requests or 0.0), 0.0)}
            self._scaler.read(elapsed_s, QUEUED, queued)
        return self._scaler.look(
            elapsed_s, context.current_num_replicas, context.target_num_replicas
        )

    def _new_reports(self, metrics: Mapping[str, Any]) -> Any:
        """Of each replica that has reported since, its counts."""
        of_replica: dict[str, dict[str, float]] = {}
        at_s: dict[str, float] = {}
        for name, by_replica in metrics.items():
            if not name.startswith(PREFIX):
                continue
            for replica, series in by_replica.items():
                if not series:
                    continue
                key = replica.to_full_id_str()
                of_replica.setdefault(key, {})[name.removeprefix(PREFIX)] = series[-1].value
                at_s[key] = max(at_s.get(key, 0.0), series[-1].timestamp)
        new = {key for key, at in at_s.items() if at > self._read_s.get(key, 0.0)}
        self._read_s = at_s
        return ((key, of_replica[key]) for key in sorted(new))
