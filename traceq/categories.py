"""The categories that profilers give to events of GPUs and of their runtimes."""

from __future__ import annotations

GPU_WORK = ("kernel", "gpu_memcpy", "gpu_memset")
"""What counts as GPU time. The GPU's copies of labels (gpu_user_annotation) span kernels and are
never summed with them; synchronisation marks (cuda_sync) are no work."""

RUNTIME = (
    "cuda_runtime",
    "cuda_driver",
    "hip_runtime",
    "hip_driver",
    "xpu_runtime",
    "xpu_driver",
    "privateuse1_runtime",
    "privateuse1_driver",
    "mtia_runtime",
)
"""Calls into the GPU's runtime and driver: the op that launches is the slice around these."""
