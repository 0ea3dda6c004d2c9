"""What a deployment's configuration says: the keyword arguments of the router, checked."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict, cast, get_args

from llmd_sched._errors import ConfigError
from llmd_sched.ray._exchange import router_name

KvEvents = Literal["auto", "off"]


class Slo(TypedDict, total=False):
    """Objectives of requests that bring none of their own, milliseconds."""

    ttft_ms: float
    tpot_ms: float


@dataclass(frozen=True)
class Settings:
    """The keywords of :class:`LlmdRouter`, all of which JSON can carry.

    - ``policy``: name of the scheduling profile, see ``docs/policy.md``; without one it is what
      ``config`` says, or ``default``.
    - ``block_size``: tokens a block, best the engines' own.
    - ``kv_events``: ``"auto"`` subscribes to the replicas that tell where they publish KV events,
      and estimates from this router's own decisions what the others hold; ``"off"`` estimates
      it of all.
    - ``slo``: objectives of requests that bring none, ``{"ttft_ms": ..., "tpot_ms": ...}``.
    - ``prompt``: ``"package.module:function"``, called with the arguments and keyword arguments of
      a call whose payload is the application's own. It returns token ids, a string, ``None`` where
      there is no prompt, or a mapping with ``tokens`` or ``text`` and any request options.
    - ``tokenizer``: the folder of the engines' model, on every node that routes, for prompts that
      come as text: the router then goes by the tokens that the engines make of them, where it
      knows those exactly, and by the text where not. See ``docs/tokenizers.md``.
    - ``exchange_ms``: how often this deployment's routers, one in each process that calls it, tell
      each other at most what they have in flight, 1 to 1,000 milliseconds; they are silent while
      nothing is. 0: they tell each other nothing.
    - ``aliases``: models that stand for others, by weight, such as ``{"prod": {"v1": 95, "v2":
      5}}``: a request whose ``model`` is ``prod`` goes to replicas that tell that they serve the
      one that its session, or its prompt, falls to (``docs/aliases.md``).
    - ``config``: any other key of the :class:`llmd_sched.Router`'s configuration.

    Raises :class:`ConfigError` naming the key.

    >>> from llmd_sched.ray import Settings
    >>> Settings.of({"policy": "lmetric", "slo": {"ttft_ms": 500}}).policy
    'lmetric'
    """

    policy: str | None = None
    block_size: int = 16
    kv_events: KvEvents = "auto"
    slo: Slo = field(default_factory=lambda: Slo())
    prompt: str | None = None
    tokenizer: str | None = None
    exchange_ms: float = 10.0
    aliases: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, kwargs: Mapping[str, Any]) -> Settings:
        """The settings that keyword arguments ask for."""
        for key in kwargs:
            if key not in cls.__dataclass_fields__:
                known = ", ".join(cls.__dataclass_fields__)
                raise ConfigError(f"request_router_kwargs has no key {key!r}; it may have: {known}")
        settings = cls(**kwargs)
        settings._check()
        return settings

    def router_config(self) -> dict[str, Any]:
        """The configuration of the :class:`llmd_sched.Router`: what was given, with guesses of the
        first tokens that Ray does not tell of, and a name: the settings of all are the same.
        """
        fleet = {"first_tokens": "guessed", **self.config.get("fleet", {}), "router": router_name()}
        aliases = {name: dict(models) for name, models in self.aliases.items()}
        return {**self.config, "fleet": fleet, "aliases": aliases}

    def request_options(self) -> dict[str, Any]:
        """The options that every request gets unless it says otherwise."""
        named = {"ttft_ms": "ttft_slo_ms", "tpot_ms": "tpot_slo_ms"}
        return {named[key]: float(cast(float, value)) for key, value in self.slo.items()}

    def finder(self) -> Callable[..., Any] | None:
        """The function that ``prompt`` names."""
        if self.prompt is None:
            return None
        module, _, function = self.prompt.partition(":")
        try:
            found = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError, ValueError) as failed:
            raise ConfigError(
                f"prompt: {self.prompt!r} cannot be imported ({failed}); name a function as "
                "'package.module:function' that every router process can import"
            ) from failed
        if not callable(found):
            raise ConfigError(f"prompt: {self.prompt!r} is not a function")
        return cast("Callable[..., Any]", found)

    def _check(self) -> None:
        if self.kv_events not in get_args(KvEvents):
            allowed = " or ".join(repr(name) for name in get_args(KvEvents))
            raise ConfigError(f"kv_events: {self.kv_events!r} is not {allowed}")
        if not isinstance(self.slo, Mapping):
            raise ConfigError(f"slo: {self.slo!r} is not a mapping of ttft_ms and tpot_ms")
        for key, value in self.slo.items():
            if key not in ("ttft_ms", "tpot_ms"):
                raise ConfigError(f"slo: it has no key {key!r}; it may have ttft_ms and tpot_ms")
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
                raise ConfigError(f"slo: {key} is {value!r}; give milliseconds above 0")
        if self.tokenizer is not None and not isinstance(self.tokenizer, str):
            raise ConfigError(f"tokenizer: {self.tokenizer!r} is not the path of a folder")
        if self.tokenizer is not None and self.prompt is not None:
            raise ConfigError(
                "tokenizer: it is for payloads as OpenAI has them; the function that prompt names "
                "can return token ids"
            )
        interval_ms = self.exchange_ms
        if isinstance(interval_ms, bool) or not isinstance(interval_ms, (int, float)):
            raise ConfigError(f"exchange_ms: {interval_ms!r} is not a number")
        if interval_ms != 0 and not 1 <= interval_ms <= 1_000:
            raise ConfigError(
                f"exchange_ms: {interval_ms} ms; give 1 to 1000, or 0 where routers share nothing"
            )
        if not isinstance(self.config, Mapping):
            raise ConfigError(f"config: {self.config!r} is not a mapping")
        for key in ("block_size", "aliases"):
            if key in self.config:
                raise ConfigError(f"config: {key} is a keyword of its own here")
        if not isinstance(self.aliases, Mapping) or not all(
            isinstance(models, Mapping) for models in self.aliases.values()
        ):
            raise ConfigError(
                f"aliases: {self.aliases!r} is not a mapping of names to models with weights"
            )
        fleet = self.config.get("fleet", {})
        if not isinstance(fleet, Mapping):
            raise ConfigError(f"config: fleet is {fleet!r}, not a mapping")
        if "router" in fleet:
            raise ConfigError(
                f"config: fleet.router is {fleet['router']!r}: leave it out. These settings are of "
                "all routers of the deployment, and each needs a name that no other has"
            )
        self.finder()
