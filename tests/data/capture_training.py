"""Captures training-h100.json.gz: two steps of training of a small Qwen3.5-shaped model on a GPU.

Run on a machine with a GPU, torch and transformers: ``python capture_training.py OUT_DIR``. Random
weights, nothing is downloaded. Beside the trace it writes what torch.profiler itself makes of the
same capture (``key_averages()``), so that the two can be compared event by event.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule
from transformers import Qwen3_5TextConfig
from transformers.models.qwen3_5.modeling_qwen3_5 import Qwen3_5ForCausalLM

WARM_UP, ACTIVE = 3, 2


def build() -> Qwen3_5ForCausalLM:
    """Four layers, of which three are GatedDeltaNet."""
    config = Qwen3_5TextConfig(
        vocab_size=512,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        linear_num_key_heads=2,
        linear_num_value_heads=4,
        linear_key_head_dim=32,
        linear_value_head_dim=32,
        use_cache=False,
    )
    torch.manual_seed(0)
    return Qwen3_5ForCausalLM(config).to("cuda", torch.bfloat16).train()


def step(model: Qwen3_5ForCausalLM, optimizer: torch.optim.Optimizer, tokens: torch.Tensor) -> None:
    loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def main(out: Path) -> None:
    model = build()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    tokens = torch.randint(0, 512, (2, 64), device="cuda")
    with profile(
        activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA],
        schedule=schedule(wait=0, warmup=WARM_UP, active=ACTIVE, repeat=1),
        record_shapes=True,
        with_stack=True,
        acc_events=True,
    ) as profiler:
        for _ in range(WARM_UP + ACTIVE):
            step(model, optimizer, tokens)
            torch.cuda.synchronize()
            profiler.step()
    profiler.export_chrome_trace(str(out / "training.json"))
    # Where it was written is nobody's business.
    raw = (out / "training.json").read_bytes().replace(str(out).encode() + b"/", b"")
    (out / "training.json").unlink()
    (out / "training-h100.json.gz").write_bytes(gzip.compress(raw, 9, mtime=0))
    averages = [
        {
            "key": item.key,
            "device": str(item.device_type),
            "count": item.count,
            "self_cpu": item.self_cpu_time_total,
            "cpu": item.cpu_time_total,
            "self_gpu": item.self_device_time_total,
            "gpu": item.device_time_total,
        }
        for item in profiler.key_averages()
    ]
    (out / "training-h100-averages.json").write_text(json.dumps(averages, indent=0))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
