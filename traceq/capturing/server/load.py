"""The load that is driven: a batch of made-up prompts, the same in every capture.

Prompts are token ids out of a seeded generator, so no tokenizer is needed. Decoding is greedy and
goes on past end-of-text, so the number of forwards is known: one for the prompts, then one for each
token after the first (more where the server prefills in chunks). How a batch is sent is left to the
engines.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import Any

from traceq.errors import UsageError

# Every model in use has more ids than these; the first ones are often special.
_FIRST_ID, _LAST_ID = 100, 20_000
_MOST_TOKENS = 10_000_000
_HINT = "Write it like prompts=10,input=256,output=32"

MEASURED = 0
"""The round that is recorded; warm-up rounds are numbered from 1."""


@dataclass(frozen=True, slots=True)
class Load:
    """``prompts`` of ``input`` tokens each, decoded to ``output`` tokens, as one batch.

    ``warmup`` rounds of the same shape, with other ids, come before the one that is recorded.
    """

    prompts: int = 10
    input: int = 256
    output: int = 32
    seed: int = 0
    warmup: int = 1

    def __post_init__(self) -> None:
        for name, least in {"prompts": 1, "input": 1, "output": 1, "warmup": 0}.items():
            if getattr(self, name) < least:
                raise UsageError(f"the load's {name} is below {least}", hint=_HINT)
        if self.prompts * (self.input + self.output) > _MOST_TOKENS:
            raise UsageError(f"the load has more than {_MOST_TOKENS:,} tokens", hint=_HINT)

    @classmethod
    def parse(cls, text: str, *, seed: int = 0, warmup: int = 1) -> Load:
        """Read ``prompts=10,input=256,output=32``; what is left out has these values."""
        given: dict[str, int] = {}
        for part in filter(None, text.split(",")):
            name, _, value = (piece.strip() for piece in part.partition("="))
            if name not in ("prompts", "input", "output") or name in given:
                raise UsageError(f"the load has {part!r} in it", hint=_HINT)
            if not (value.isascii() and value.isdigit() and len(value) <= 8):
                raise UsageError(f"the load's {name} is {value!r}, not a number", hint=_HINT)
            given[name] = int(value)
        return cls(**given, seed=seed, warmup=warmup)

    @property
    def forwards(self) -> int:
        """Forwards of the model that one round takes at least."""
        return self.output

    def ids(self, number: int) -> list[list[int]]:
        """The token ids of round ``number``: equal in every capture with the same seed."""
        source = random.Random(f"{self.seed}:{number}")
        return [
            [source.randrange(_FIRST_ID, _LAST_ID) for _ in range(self.input)]
            for _ in range(self.prompts)
        ]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)
