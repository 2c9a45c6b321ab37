"""What a loss costs that learns straight from a codec's columns, beside decoding them first.

One step is the loss and its gradient at a student's logits, hard labels left out; the student itself is not
there. Time is the median of rounds in which all ways take turns; memory is by how much the process grew above
what it held before the step, logits and what came with the batch included in the latter.

    python benchmarks/compressed_loss.py --out benchmarks/results
"""

from __future__ import annotations

import argparse
import ctypes
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import command, in_rounds, machine, median, refuse_if_busy
from numpy.typing import NDArray

from softcask.pipeline.device_codecs.base import to_tensors
from softcask.pipeline.device_codecs.registry import device_codec
from softcask.pipeline.student.losses.compressed_kl import CompressedKL
from softcask.pipeline.student.losses.distillation import Distillation
from softcask.pipeline.targets.compressed import CompressedTargets
from softcask.storage_schemas.codecs.base import Codec
from softcask.storage_schemas.codecs.lowrank.calibration import fit
from softcask.storage_schemas.codecs.topk import Settings, TopK
from softcask.storage_schemas.softmax import softmax

BUDGET, WIDTH, TEMPERATURE = 256, 128, 2.0

Step = Callable[[], None]


def teacher(classes: int, rows: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A random output layer `[C, d]`, and logits `[N, C]` of random hidden states."""
    random = np.random.default_rng(0)
    output_CD = random.standard_normal((classes, WIDTH), dtype=np.float32)
    hidden_ND = random.standard_normal((rows, WIDTH), dtype=np.float32) * np.linspace(0.5, 0.02, WIDTH)
    bias_C = -1.2 * np.log(10 + np.arange(classes))
    return output_CD, (hidden_ND @ output_CD.T + bias_C).astype(np.float32)


def steps(codec: Codec, logits_BC: NDArray[np.float32]) -> tuple[dict[str, Step], int]:
    """Each way to take a step from a codec's columns, and the bytes of a row of them."""
    B, C = logits_BC.shape
    columns, twin = codec.encode(logits_BC), device_codec(codec, "cpu")
    targets = CompressedTargets(columns=columns, codec=codec, num_classes=C)
    student_BC = torch.randn(B, C, generator=torch.Generator().manual_seed(1)).requires_grad_()
    labels_B = torch.full((B,), -1)
    straight, dense = CompressedKL(hard_label_weight=0.0), Distillation(hard_label_weight=0.0)

    def learn(loss: Any, targets: Any) -> None:
        student_BC.grad = None
        loss.compute(student_BC, targets, labels_B, TEMPERATURE).backward()

    def from_device() -> torch.Tensor:
        return (twin.decode(to_tensors(columns, "cpu"), TEMPERATURE) / TEMPERATURE).softmax(dim=1)

    def from_host() -> torch.Tensor:
        return torch.from_numpy(softmax(codec.decode(columns, TEMPERATURE).shifted_BC, TEMPERATURE))

    ways: dict[str, Step] = {
        "compressed_kl": lambda: learn(straight, targets),
        "decoded by torch, distillation": lambda: learn(dense, from_device()),
        "decoded by numpy, distillation": lambda: learn(dense, from_host()),
    }
    return ways, sum(values.nbytes for values in columns.values()) // B


def dense_step(logits_BC: NDArray[np.float32]) -> Step:
    """Distillation from soft targets that are there."""
    p_BC = torch.from_numpy(softmax(logits_BC, TEMPERATURE))
    student_BC = torch.randn(p_BC.shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
    loss, labels_B = Distillation(hard_label_weight=0.0), torch.full((len(p_BC),), -1)

    def step() -> None:
        student_BC.grad = None
        loss.compute(student_BC, p_BC, labels_B, TEMPERATURE).backward()

    return step


def grown(step: Step) -> int:
    """Bytes by which this process is larger at its largest while a step runs than before it."""
    step()
    ctypes.CDLL(None).malloc_trim(0)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the largest size is counted anew
    step()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def main() -> None:
    """Print the table; with `--out`, write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--classes", type=int, default=32_768)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--force", action="store_true", help="although others use the machine")
    parser.add_argument("--out", type=Path, help="folder for compressed_loss.md")
    arguments = parser.parse_args()
    if not arguments.force:
        refuse_if_busy()
    torch.set_num_threads(arguments.threads)
    B, C = arguments.rows, arguments.classes
    output_CD, logits_NC = teacher(C, 12 * WIDTH + B)
    lowrank = fit(
        logits_NC[B + 256 :], logits_NC[B : B + 256], max_bytes=BUDGET, output_layer=output_CD
    ).codec
    topk = TopK(settings=Settings(num_classes=C, head_size=BUDGET // 4))
    ways, row_bytes = {"soft targets in memory, distillation": dense_step(logits_NC[:B])}, [4 * C]
    for name, codec in (("lowrank", lowrank), ("topk", topk)):
        made, size = steps(codec, logits_NC[:B])
        ways |= {f"{name}: {way}": step for way, step in made.items()}
        row_bytes += [size] * len(made)
    costs = in_rounds({name: (step, B) for name, step in ways.items()}, arguments.rounds)
    ctypes.CDLL(None).mallopt(-3, 1 << 20)  # M_MMAP_THRESHOLD: large blocks go back when they are freed
    lines = ["| | bytes a row | us a row | memory, of the logits' |", "| --- | ---: | ---: | ---: |"]
    for (name, step), size in zip(ways.items(), row_bytes, strict=True):
        wall, memory = median(costs[name]).wall, grown(step) / (4 * B * C)
        lines.append(f"| {name} | {size:,} | {wall:,.0f} | {memory:.2f} x |")
    facts = (
        f"{B} rows of {C:,} classes, T = {TEMPERATURE:g}, {arguments.threads} thread(s); lowrank of rank "
        f"{lowrank.settings.rank}, head {lowrank.settings.head_size}; topk of {topk.settings.head_size}. "
        f"{machine()}"
    )
    print(*lines, facts, sep="\n")
    if arguments.out:
        head = ["# A loss straight from a codec's columns", f"`{command()}`", facts]
        (arguments.out / "compressed_loss.md").write_text("\n\n".join([*head, "\n".join(lines)]) + "\n")


if __name__ == "__main__":
    main()
