"""Lets a torchvision be imported whose compiled operators were built for another torch than this one.

PyPI's torchvision is linked against a torch with CUDA. Beside a torch for CPUs alone it stops at its import,
because two detection operators, which no classifier calls, are unknown. Tests declare them, without an
implementation; then all of torchvision that is Python works as it does elsewhere. This is for tests and
benchmarks: who labels with torchvision needs one that fits their torch.
"""

from __future__ import annotations

from importlib import import_module

import torch

_DETECTION = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_kept: list[torch.library.Library] = []  # what is declared lasts as long as its library


def mend() -> None:
    """Make `import torchvision` work; does nothing where it does already, or is not installed."""
    try:
        import_module("torchvision")
    except ModuleNotFoundError:
        return
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(operator + _DETECTION)
        _kept.append(library)
        import_module("torchvision")
