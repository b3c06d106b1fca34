"""What traceq needs of a serving engine; :mod:`.sglang` and :mod:`.vllm` say how each does it."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from traceq.capturing.server.http import Client
from traceq.capturing.server.load import Load
from traceq.capturing.server.words import sound
from traceq.errors import CaptureError

_LONGEST = 500
_LARGEST = 1 << 63


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What is to be recorded. None: not said, the engine's own choice or traceq's default."""

    steps: int | None = None
    seconds: float | None = None
    stack: str | None = None
    shapes: bool | None = None
    by_stage: bool = False
    prefix: str | None = None
    activities: tuple[str, ...] = ("CPU", "GPU")


@dataclass(frozen=True, slots=True)
class Order:
    """A profile to be started: the folder on the server's disk, and the id in its files' names."""

    folder: str
    id: str
    settings: ServerSettings


class Engine(ABC):
    """A running server of one kind."""

    name: str
    chooses_folder: bool
    """Whether a profile's folder is named when it is started, not when the server was launched."""
    chooses_activities: bool
    """The same of what it records."""

    def __init__(self, client: Client) -> None:
        self.client = client

    @abstractmethod
    def completed(self, settings: ServerSettings) -> ServerSettings:
        """The settings as they will hold; UsageError where this engine cannot do them."""

    @abstractmethod
    def info(self) -> dict[str, Any]:
        """What is known of the server: an allow-list, with no key in it."""

    @abstractmethod
    def ranks(self, info: Mapping[str, Any]) -> int | None:
        """How many processes write a trace, if that is known."""

    @abstractmethod
    def generate(self, load: Load, number: int, timeout: float) -> str | None:
        """Run one round of the load to its end; a warning, if its prefill was cut by a cache."""

    @abstractmethod
    def clear_cache(self) -> str | None:
        """Empty the prefix cache; a warning if it could not be."""

    @abstractmethod
    def start(self, order: Order) -> None:
        """Start the profile. StatusError: it was not started."""

    @abstractmethod
    def stop(self, timeout: float) -> bool:
        """Stop it, and wait until the server has written the files; False: none was running."""

    def disarm(self) -> None:  # noqa: B027 - an engine that starts at once has nothing to do
        """Take back a profile that waits for its first forward."""

    @abstractmethod
    def is_trace(self, name: str) -> bool:
        """Whether a file of this name is a rank's trace."""

    @abstractmethod
    def pattern(self, order: Order) -> str:
        """The names of the files of a profile, as a shell would match them."""

    def check_generated(self, values: Any, what: str) -> list[Any]:
        """The list that a reply to a batch has to be."""
        if isinstance(values, list) and values and all(isinstance(item, dict) for item in values):
            return values
        raise CaptureError(f"{self.client.address.base}{what} replied with no list of results")


def allowed(client: Client, info: Mapping[str, Any], keys: Iterable[str]) -> dict[str, Any]:
    """The plain values under ``keys`` alone: whole answers of servers have API keys in them."""
    return {key: _plain(client, info[key]) for key in keys if info.get(key) is not None}


def _plain(client: Client, value: Any) -> Any:
    """Numbers and switches as they are, all else as a short text that JSON can carry."""
    if isinstance(value, bool) or (isinstance(value, int) and abs(value) < _LARGEST):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    try:
        text = str(value)
    except RecursionError:  # as deep as a reply may be, its text takes a level more
        return None
    return client.without_secrets(sound(text))[:_LONGEST]
