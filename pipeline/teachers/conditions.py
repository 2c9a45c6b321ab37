"""Under what a teacher computes, and what of it lets another run give other bits.

Logits are stored bit for bit, and a store may be made by many machines over weeks: what they computed with is
in each run's record, outside of anything that two equal stores share.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any


def conditions_of(teacher: Any) -> dict[str, Any]:
    """What a loaded teacher computes under, as far as can be told; JSON-able, equal for equal conditions.

    Args:
        teacher: Any teacher; of one that has a `device`, that and torch's settings are told. To be called by
            the thread that computes, for torch keeps its number of threads by thread.
    """
    found: dict[str, Any] = {"machine": platform.machine(), "cpu": _cpu()}
    if getattr(teacher, "is_auto", False):
        found["batch_size"] = "auto"
    teacher = getattr(teacher, "teacher", teacher)  # of one in a wrapper that fits batches to it
    if (reasons := getattr(teacher, "may_differ", None)) is not None:
        found["may_differ"] = list(reasons)  # it knows best
    device = getattr(teacher, "device", None)
    torch = sys.modules.get("torch")  # a teacher that computes by it has loaded it
    if device is None or torch is None:
        return found | {"device": "cpu" if device is None else str(device)}
    kind = str(getattr(device, "type", device))
    held = bool(getattr(teacher, "deterministic", False))
    found |= {
        "device": kind,
        "torch": str(torch.__version__),
        "deterministic": held or bool(torch.are_deterministic_algorithms_enabled()),
        "matmul_precision": str(torch.get_float32_matmul_precision()),
    }
    if kind == "cuda":
        found |= _of_cuda(torch, device)
    elif kind == "cpu":
        # What the thread has is set by the first batch, to what the teacher is given.
        threads = getattr(teacher, "num_threads", None) or getattr(teacher, "_num_threads", None)
        found |= {"threads": int(threads or torch.get_num_threads()), "cpu_kernels": _kernels(torch)}
    return found


def may_differ(conditions: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Why another run over the same rows may give other bits; empty where none of it was seen.

    Args:
        conditions: All the different ones that one teacher's workers told.
    """
    reasons = []
    for field in sorted({name for each in conditions for name in each} - {"may_differ"}):
        values = sorted({str(each.get(field)) for each in conditions})
        if len(values) > 1:
            reasons.append(f"workers differed in {field}: {', '.join(values)}")
    reasons += sorted({reason for each in conditions for reason in each.get("may_differ", ())})
    if any(each.get("batch_size") == "auto" for each in conditions):
        reasons.append("batches had as many rows as fitted (batch_size = auto), which changes last bits")
    silent = [each for each in conditions if "may_differ" not in each]
    if any(each.get("device") == "cuda" and not each.get("deterministic") for each in silent):
        reasons.append(
            "torch chose among CUDA kernels freely, some of which sum in another order each time "
            "(torch.use_deterministic_algorithms was off): last bits may differ"
        )
    if any(each.get("cudnn_benchmark") for each in conditions):
        reasons.append("cuDNN timed its kernels and took the fastest, which may be another next time")
    return tuple(reasons)


def _of_cuda(torch: Any, device: Any) -> dict[str, Any]:
    cudnn = torch.backends.cudnn
    return {
        "gpu": str(torch.cuda.get_device_name(device)),
        "cuda": str(torch.version.cuda),
        "cudnn": str(cudnn.version()),
        "cudnn_benchmark": bool(cudnn.benchmark),
        "cudnn_deterministic": bool(cudnn.deterministic),
        "tf32_convolutions": bool(cudnn.allow_tf32),
    }


def _kernels(torch: Any) -> str:
    backend = getattr(torch.backends, "cpu", None)
    return str(backend.get_cpu_capability()) if backend is not None else ""


@lru_cache(maxsize=1)
def _cpu() -> str:
    """The processor's name: which kernels run, and so which last bits, follows from it."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
