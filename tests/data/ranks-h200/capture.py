"""How the four captures beside this were made: two ranks, of which rank 1 has more to do.

``python -m torch.distributed.run --nproc_per_node 2 capture.py FOLDER`` on two H200 of one host,
torch 2.11. Before, rank 1 does three times the work of rank 0 in each block; after, twice.
"""

from __future__ import annotations

import os
import sys

import torch
import torch.distributed as dist
from torch.profiler import ProfilerActivity, profile, record_function


class Block(torch.nn.Module):
    """Some work of this rank, then a sum over all ranks, for which the quicker one waits."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = torch.nn.Linear(2048, 4096), torch.nn.Linear(4096, 2048)

    def forward(self, x: torch.Tensor, times: int) -> torch.Tensor:
        for _ in range(times):
            x = x + self.down(torch.nn.functional.gelu(self.up(x))) * 1e-3
        dist.all_reduce(x)
        return x / dist.get_world_size()


def main() -> None:
    rank = int(os.environ["RANK"])
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl")
    model = torch.nn.Sequential(*(Block() for _ in range(4))).cuda()
    inputs = torch.randn(1024, 2048, device="cuda")

    def step(extra: int) -> None:
        x = inputs
        for block in model:
            x = block(x, 1 + extra * (rank == 1))

    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    for name, extra in (("before", 2), ("after", 1)):
        with torch.no_grad():
            for _ in range(5):
                step(extra)
            torch.cuda.synchronize()
            dist.barrier()
            with profile(activities=activities, with_stack=True, record_shapes=True) as recorded:
                for _ in range(4):
                    with record_function("step"):
                        step(extra)
                torch.cuda.synchronize()
        recorded.export_chrome_trace(f"{sys.argv[1]}/{name}-rank{rank}.json.gz")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
