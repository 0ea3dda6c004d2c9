"""What a user says of the store: ``kv_connector_extra_config``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from llmd_sched._core import KvStore
from llmd_sched._errors import ConfigError

GIB = 1 << 30


@dataclass(frozen=True)
class StoreSettings:
    """Keys of ``kv_connector_extra_config``."""

    store: str = "vllm"
    host_gib: float = 4.0
    disk_gib: float = 0.0
    disk_folder: str | None = None
    eviction: str = "density"
    # Whatever else engines that share blocks must have in common: a revision of the weights, say.
    namespace: str = ""
    threads: int = 2

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> StoreSettings:
        """Reads them. Raises :class:`llmd_sched.ConfigError` for what cannot be."""
        known = {it.name for it in fields(cls)}
        for key in given:
            if key not in known:
                raise ConfigError(
                    f"kv_connector_extra_config has no key {key!r}: "
                    f"it has {', '.join(sorted(known))}"
                )
        settings = cls(**given)
        for key, least in (("host_gib", 1e-6), ("disk_gib", 0.0)):
            value = getattr(settings, key)
            if not (isinstance(value, (int, float)) and value >= least):
                raise ConfigError(f"kv_connector_extra_config.{key} is {value!r}: give GiB")
        if bool(settings.disk_gib) != bool(settings.disk_folder):
            raise ConfigError("kv_connector_extra_config needs disk_gib and disk_folder together")
        if not (isinstance(settings.threads, int) and 1 <= settings.threads <= 64):
            raise ConfigError(
                f"kv_connector_extra_config.threads is {settings.threads!r}: give 1 to 64"
            )
        return settings

    def open(self, block_bytes: int, fingerprint: bytes) -> KvStore:
        """The store, as far as blocks of one fingerprint go.

        Raises :class:`llmd_sched.ConfigError` for settings that cannot be or are not the store's,
        ``OSError`` for what the system refuses.
        """
        return KvStore(
            self.store,
            block_bytes=block_bytes,
            host_bytes=int(self.host_gib * GIB),
            disk_bytes=int(self.disk_gib * GIB),
            disk_folder=self.disk_folder,
            eviction=self.eviction,
            fingerprint=fingerprint,
        )
