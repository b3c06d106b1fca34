"""Tells which engine a server runs, by questions that run no forward."""

from __future__ import annotations

from traceq.capturing.server.engine import Engine
from traceq.capturing.server.http import Client, StatusError
from traceq.capturing.server.sglang import Sglang, server_info
from traceq.capturing.server.vllm import Vllm, listed_models
from traceq.capturing.server.words import few, sound
from traceq.errors import CaptureError, UsageError

ENGINES: dict[str, type[Engine]] = {"sglang": Sglang, "vllm": Vllm}


def recognise(client: Client, name: str | None = None) -> Engine:
    """The engine behind ``client``, or the one called ``name`` without asking."""
    if name is not None:
        if name not in ENGINES:
            known = ", ".join(ENGINES)
            raise UsageError(f"no engine is called {name!r}", hint=f"It is one of {known}.")
        return ENGINES[name](client)
    owners = _owners(client)
    for known, engine in ENGINES.items():
        if known in owners:
            return engine(client)
    if server_info(client) is not None:
        return Sglang(client)
    what = f"its models are owned by {few(owners)}" if owners else "it does not say"
    raise CaptureError(
        f"{client.address.base} is neither sglang nor vLLM, as far as it tells ({what})",
        hint="If it is one of them: --server sglang or --server vllm.",
    )


def _owners(client: Client) -> set[str]:
    try:
        models = listed_models(client)
    except StatusError as error:
        if error.status != 404:
            raise
        return set()
    return {client.excerpt(sound(str(model.get("owned_by"))).encode()) for model in models}
