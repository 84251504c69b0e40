"""Where a run computes and in what precision: decided once, with the reason said."""

import os
import platform
from dataclasses import dataclass

import torch
import torch.distributed as dist


@dataclass(frozen=True)
class Runtime:
    device: torch.device
    dtype: torch.dtype
    reason: str  # one line for the reader

    @property
    def is_main(self) -> bool:
        """True in the process that prints and saves."""
        return not dist.is_initialized() or dist.get_rank() == 0


def resolve(device: str = "auto", dtype: str = "auto", wanted_dtype: str = "float32") -> Runtime:
    """Choose device and dtype. `wanted_dtype` is what the preset would like on a GPU.

    Raises ValueError, one sentence, for what this machine does not have.
    """
    has = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device == "auto":
        device = next(name for name in ("cuda", "mps", "cpu") if has[name])
        why_device = f"{device}: " + ("the fastest found here" if device != "cpu" else "no GPU was found")
    elif device not in has:
        raise ValueError(f"there is no device {device!r}: choose auto, cpu, cuda or mps")
    elif not has[device]:
        raise ValueError(f"this machine has no usable {device}: choose --device cpu or auto")
    else:
        why_device = f"{device}: you asked for it"
    if dtype == "auto":
        bf16 = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        dtype = "bfloat16" if wanted_dtype == "bfloat16" and bf16 else "float32"
        why_dtype = "the preset's choice for a GPU" if dtype == "bfloat16" else "exact and tested everywhere"
    elif dtype not in ("float32", "bfloat16"):
        raise ValueError(f"there is no dtype {dtype!r} here: choose auto, float32 or bfloat16")
    else:
        why_dtype = "you asked for it"
    local = int(os.environ.get("LOCAL_RANK", 0))
    target = torch.device(device, local) if device == "cuda" else torch.device(device)
    return Runtime(target, getattr(torch, dtype), f"{why_device} · {dtype}: {why_dtype}")


def join_processes(device: torch.device) -> int:
    """Under torchrun, meet the other processes. Returns how many there are (1 without torchrun)."""
    world = int(os.environ.get("WORLD_SIZE", 1))
    if world > 1 and not dist.is_initialized():
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return world


def machine() -> dict[str, str | int]:
    """What a recorded figure must say about where it was measured."""
    gpu = {"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {}
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        **gpu,
    }


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"
