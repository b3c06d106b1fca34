"""How vLLM is profiled: it starts and stops; folder and stack were chosen when it was launched.

It answers 200 to a start while it is recording, to a stop while it is not, and to either when it
fails: only the files tell. So two captures of one server at a time cannot be told apart.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from traceq.capturing.server.engine import Engine, Order, ServerSettings, allowed
from traceq.capturing.server.http import Client, StatusError
from traceq.capturing.server.load import Load
from traceq.errors import CaptureError, UsageError

_INFO = ("version", "model", "max_model_len")
_AT_LAUNCH = "vLLM chooses it when it is launched: --profiler-config, torch_profiler_with_stack "


class Vllm(Engine):
    """A running vLLM server."""

    name = "vllm"
    chooses_folder = False
    chooses_activities = False

    def __init__(self, client: Client) -> None:
        super().__init__(client)
        self._salt: str | None = None

    def completed(self, settings: ServerSettings) -> ServerSettings:
        if settings.steps is not None:
            raise UsageError(
                "vLLM cannot count steps",
                hint="--drive prompts=10,input=256,output=10 is a window of 10 forwards; "
                "--seconds records live traffic for a time.",
            )
        if settings.by_stage or settings.prefix:
            raise UsageError("vLLM has no --by-stage and no --prefix", hint="Leave them out.")
        if settings.stack is not None or settings.shapes is not None:
            raise UsageError(
                "what vLLM records cannot be chosen from outside",
                hint=f"{_AT_LAUNCH}and torch_profiler_record_shapes. Leave the option out.",
            )
        return settings

    def info(self) -> dict[str, Any]:
        version = self.client.get("/version")
        values = self.client.json(version, "/version") if version.is_ok else {}
        known = values if isinstance(values, dict) else {}
        model = self._model()
        known = {"version": known.get("version"), "model": model.get("id")}
        return allowed(self.client, known | {"max_model_len": model.get("max_model_len")}, _INFO)

    def ranks(self, info: Mapping[str, Any]) -> int | None:  # noqa: ARG002 - it does not tell
        return None

    def generate(self, load: Load, number: int, timeout: float) -> str | None:
        body: dict[str, Any] = {
            "model": self._model().get("id"),
            "prompt": load.ids(number),
            "max_tokens": load.output,
            "temperature": 0,
            "ignore_eos": True,
            "stream": False,
        }
        if self._salt is not None:
            body["cache_salt"] = self._salt
        path = "/v1/completions"
        values = self.client.json(self.client.post(path, body, timeout=timeout), path)
        self.check_generated(values.get("choices") if isinstance(values, dict) else None, path)
        return None

    def clear_cache(self) -> str | None:
        # The route is there in vLLM's development mode alone. Elsewhere a salt that is new in each
        # capture keeps its prompts apart from the same ones of the capture before.
        if not self.client.post("/reset_prefix_cache").is_ok:
            self._salt = uuid.uuid4().hex
        return None

    def start(self, order: Order) -> None:  # noqa: ARG002 - nothing can be told
        reply = self.client.post("/start_profile")
        if reply.status in (404, 405):
            raise StatusError(
                f"{self.client.address.base} was launched without a profiler",
                hint="Launch vLLM with --profiler-config "
                '\'{"profiler":"torch","torch_profiler_dir":"/abs/dir"}\' (before 0.13: with '
                "VLLM_TORCH_PROFILER_DIR=/abs/dir), and give that folder as --server-dir.",
                status=reply.status,
            )
        self.client.checked(reply, "/start_profile")

    def stop(self, timeout: float) -> bool:
        self.client.checked(self.client.post("/stop_profile", timeout=timeout), "/stop_profile")
        return True

    def is_trace(self, name: str) -> bool:
        # async_llm is the front-end, which runs no model.
        return name.endswith((".trace.json.gz", ".trace.json")) and "async_llm" not in name

    def pattern(self, order: Order) -> str:  # noqa: ARG002 - its names hold no id
        return "*rank*.pt.trace.json.gz"

    def _model(self) -> dict[str, Any]:
        models = listed_models(self.client)
        if not models:
            raise CaptureError(f"{self.client.address.base}/v1/models lists no model")
        return models[0]


def listed_models(client: Client) -> list[dict[str, Any]]:
    """What /v1/models lists, which both engines have."""
    values = client.json(client.get("/v1/models"), "/v1/models")
    models = values.get("data") if isinstance(values, dict) else None
    return [item for item in models if isinstance(item, dict)] if isinstance(models, list) else []
