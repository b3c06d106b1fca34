"""How sglang is profiled: the folder, the steps and the stack are told with each start.

``/health`` is never asked: it runs a request, whose forwards would be in the trace.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from traceq.capturing.server.engine import Engine, Order, ServerSettings, allowed
from traceq.capturing.server.http import Client, Reply, StatusError
from traceq.capturing.server.load import Load
from traceq.errors import CaptureError, UsageError

_INFO = (
    "version", "model_path", "served_model_name", "revision", "dtype", "quantization",
    "kv_cache_dtype", "tp_size", "dp_size", "pp_size", "ep_size", "nnodes", "enable_dp_attention",
    "attention_backend", "linear_attn_backend", "linear_attn_prefill_backend",
    "linear_attn_decode_backend", "mamba_backend", "cuda_graph_config", "disable_cuda_graph",
    "disable_overlap_schedule", "disable_radix_cache", "chunked_prefill_size",
    "max_running_requests", "max_total_num_tokens", "mem_fraction_static", "enable_torch_compile",
    "speculative_algorithm", "random_seed",
)  # fmt: skip

_FLUSH_PAUSES = (0.0, 0.1, 0.3, 0.6)
_NEVER = 1 << 40  # a forward that no server reaches
_MOST_RANKS = 1 << 16
_MOST_TOKENS = 1 << 40


class Sglang(Engine):
    """A running sglang server."""

    name = "sglang"
    chooses_folder = True
    chooses_activities = True

    def completed(self, settings: ServerSettings) -> ServerSettings:
        if settings.stack == "modules":
            raise UsageError(
                "labels of modules cannot be asked for from outside of the server",
                hint="--stack python has them, with every Python frame.",
            )
        if settings.by_stage and settings.steps is None:
            # Without a number, 0.5.23 adds 1 to None in its scheduler, which ends the server.
            raise UsageError("--by-stage counts steps", hint="Give --steps too.")
        stack = settings.stack or "python"
        return replace(settings, stack=stack, shapes=settings.shapes is not False)

    def info(self) -> dict[str, Any]:
        return allowed(self.client, server_info(self.client) or {}, _INFO)

    def ranks(self, info: Mapping[str, Any]) -> int | None:
        sizes = [info.get("tp_size"), info.get("pp_size", 1)]
        if not info.get("enable_dp_attention"):  # with it, the dp groups share the tp ranks
            sizes.append(info.get("dp_size", 1))
        if info.get("nnodes", 1) != 1:  # each host has a disk of its own
            return None
        count = 1
        for size in sizes:
            if not isinstance(size, int) or not 1 <= size <= _MOST_RANKS:
                return None
            count *= size
        return count

    def generate(self, load: Load, number: int, timeout: float) -> str | None:
        sampling = {"max_new_tokens": load.output, "temperature": 0, "ignore_eos": True}
        body = {"input_ids": load.ids(number), "sampling_params": sampling, "stream": False}
        reply = self.client.post("/generate", body, timeout=timeout)
        results = self.check_generated(self.client.json(reply, "/generate"), "/generate")
        metas = [item.get("meta_info") for item in results]
        cached = sum(_number(meta, "cached_tokens") for meta in metas)
        if cached == 0:
            return None
        return f"{cached} tokens of the prompts came from the prefix cache: the prefill is smaller"

    def clear_cache(self) -> str | None:
        for pause in _FLUSH_PAUSES:  # the scheduler may still be clearing up after the warm-up
            time.sleep(pause)
            reply = self.client.post("/flush_cache")
            if reply.is_ok:
                return None
        return (
            f"the prefix cache could not be flushed (HTTP {reply.status}): other requests run, "
            "and will be in the trace"
        )

    def start(self, order: Order) -> None:
        reply = self.client.post("/start_profile", _start_body(order))
        if reply.status == 500:
            url = self.client.address.base
            raise StatusError(
                f"{url} refused to start a profile: one is already running, or was left running",
                hint=f"Wait for its end, or end it: curl -X POST {url}/stop_profile . The "
                "server's log has the reason, should it be another.",
                status=reply.status,
            )
        self.client.checked(reply, "/start_profile")

    def stop(self, timeout: float) -> bool:
        reply = self.client.post("/stop_profile", timeout=timeout)
        if reply.status == 500:  # what it says where none is running: it ended by itself
            return False
        self.client.checked(reply, "/stop_profile")
        return True

    def disarm(self) -> None:
        # With start_step, a profile waits for the next forward. Until then /stop_profile knows of
        # none, and the one that waits would record somebody's requests later: put it off for ever.
        body = {"start_step": _NEVER, "num_steps": 1, "activities": ["CPU"]}
        self.client.post("/start_profile", body)

    def is_trace(self, name: str) -> bool:
        return name.endswith((".trace.json.gz", ".trace.json")) and not name.startswith("merged-")

    def pattern(self, order: Order) -> str:
        prefix = f"{order.settings.prefix}-" if order.settings.prefix else ""
        return f"{prefix}{order.id}-TP-*.trace.json.gz"


def _start_body(order: Order) -> dict[str, Any]:
    settings = order.settings
    body: dict[str, Any] = {
        "output_dir": order.folder,
        "profile_id": order.id,
        "activities": list(settings.activities),
        "with_stack": settings.stack == "python",
        "record_shapes": settings.shapes,
    }
    if settings.by_stage:
        body["profile_by_stage"] = True
    else:
        # Only starts of a later step are refused (500) while a profile is running; a plain one is
        # answered with 200 and silently destroys what is being recorded. Steps count from the
        # server's launch, and one that is past means the next: 1 starts as soon as a plain one.
        body["start_step"] = 1
    if settings.steps is not None:
        body["num_steps"] = settings.steps
    if settings.prefix:
        body["profile_prefix"] = settings.prefix
    return body


def server_info(client: Client) -> dict[str, Any] | None:
    """All that an sglang server says of itself; None where it is none, or says nothing."""
    for path in ("/server_info", "/get_server_info"):  # today's name, and that of old servers
        reply = client.get(path)
        if reply.is_ok:
            info = _json_object(client, reply, path)
            return info if "tp_size" in info or "internal_states" in info else None
    return None


def _json_object(client: Client, reply: Reply, path: str) -> dict[str, Any]:
    try:
        values = client.json(reply, path)
    except CaptureError:
        return {}
    return values if isinstance(values, dict) else {}


def _number(values: Any, key: str) -> int:
    number = values.get(key) if isinstance(values, dict) else 0
    return number if isinstance(number, int) and 0 <= number < _MOST_TOKENS else 0
