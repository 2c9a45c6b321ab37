"""Trains the demo's three teachers and writes `weights/`, so that the committed weights can be made again.

Run once by hand, `python train_teachers.py`; the demo itself only reads `weights/`. The schedule is fixed
beforehand and the last epoch's weights are kept: the test rows are counted at the end and choose nothing.
"""

from __future__ import annotations

import argparse
import gzip
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from models import conv_net, fold_batch_norm
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

HERE = Path(__file__).resolve().parent
WEIGHTS = HERE / "weights"
BATCH_SIZE = 128
PEAK_LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One member of the ensemble: what makes it differ from the others."""

    name: str
    width: int
    seed: int


MEMBERS = (
    Member(name="conv-a", width=48, seed=1),
    Member(name="conv-b", width=48, seed=2),
    Member(name="conv-c", width=64, seed=3),
)


def read_images(path: Path) -> Tensor:
    """Returns the images of a gzipped IDX file as float32 [B, 1, 28, 28] in [0, 1]."""
    pixels = np.frombuffer(gzip.decompress(path.read_bytes()), dtype=np.uint8, offset=16)
    return torch.tensor(pixels, dtype=torch.float32).div_(255).reshape(-1, 1, 28, 28)


def read_labels(path: Path) -> Tensor:
    """Returns the labels of a gzipped IDX file as int64 [B]."""
    labels = np.frombuffer(gzip.decompress(path.read_bytes()), dtype=np.uint8, offset=8)
    return torch.tensor(labels, dtype=torch.int64)


def augment(images_B1HW: Tensor, random: torch.Generator) -> Tensor:
    """Returns each image under its own small random rotation, scaling, shear and shift."""
    uniform_B6 = torch.rand(len(images_B1HW), 6, generator=random) * 2 - 1
    angle, scale_x, scale_y, shear, shift_x, shift_y = uniform_B6.mul(
        # 12 degrees, 12 %, 12 %, 0.15, and 2 pixels in the sampler's units of half an image.
        torch.tensor([math.radians(12), 0.12, 0.12, 0.15, 2 / 14, 2 / 14])
    ).unbind(1)
    cos, sin = angle.cos(), angle.sin()
    row_x = torch.stack([cos * (1 + scale_x), -sin + shear, shift_x], dim=1)
    row_y = torch.stack([sin, cos * (1 + scale_y), shift_y], dim=1)
    affine_B23 = torch.stack([row_x, row_y], dim=1)
    grid = functional.affine_grid(affine_B23, list(images_B1HW.shape), align_corners=False)
    return functional.grid_sample(images_B1HW, grid, align_corners=False)


def autocast(enabled: bool) -> AbstractContextManager[None]:
    """Returns the context in which matrix products run in bfloat16, if `enabled`."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled)


def bfloat16_is_faster() -> bool:
    """Times a few passes both ways: processors without bfloat16 instructions emulate them, slowly."""
    model, images = conv_net(batch_norm=True), torch.rand(BATCH_SIZE, 1, 28, 28)

    def seconds(enabled: bool) -> float:
        return min(_timed(lambda: _backward(model, images, enabled)) for _ in range(4))

    return seconds(True) < seconds(False)


def _timed(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _backward(model: nn.Module, images: Tensor, bfloat16: bool) -> None:
    with autocast(bfloat16):
        logits = model(images)
    logits.float().logsumexp(1).mean().backward()


def shuffled_batches(
    images: Tensor, labels: Tensor, random: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields one epoch of augmented batches; the incomplete last one is dropped."""
    order = torch.randperm(len(images), generator=random)
    for rows in torch.split(order[: len(order) // BATCH_SIZE * BATCH_SIZE], BATCH_SIZE):
        yield augment(images[rows], random), labels[rows]


def train(
    member: Member, images: Tensor, labels: Tensor, *, epochs: int, bfloat16: bool
) -> dict[str, Tensor]:
    """Returns the state dict of `conv_net(width=member.width)` after the fixed schedule."""
    torch.manual_seed(member.seed)
    random = torch.Generator().manual_seed(member.seed)
    model = conv_net(width=member.width, batch_norm=True).train()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=PEAK_LEARNING_RATE, total_steps=epochs * (len(images) // BATCH_SIZE)
    )
    for epoch in range(epochs):
        total = 0.0
        for batch, targets in shuffled_batches(images, labels, random):
            with autocast(bfloat16):
                logits = model(batch)
            loss = functional.cross_entropy(logits.float(), targets)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(
            f"{member.name} epoch {epoch + 1}/{epochs}: loss {total * BATCH_SIZE / len(images):.4f}",
            flush=True,
        )
    return fold_batch_norm(model.eval())


def probabilities(member: Member, images: Tensor) -> Tensor:
    """Returns the class probabilities [B, 10] that the member's committed weights give, in float32."""
    model = conv_net(width=member.width).eval()
    model.load_state_dict(load_file(WEIGHTS / f"{member.name}.safetensors"))
    with torch.inference_mode():
        return torch.cat([model(batch).softmax(1) for batch in torch.split(images, 500)])


def write_readme(images: Tensor, labels: Tensor) -> None:
    """Measures the committed weights on the test rows and writes `weights/README.md`."""
    of_members = [probabilities(member, images) for member in MEMBERS]
    rows = [_readme_row(member, errors_of(p, labels)) for member, p in zip(MEMBERS, of_members, strict=True)]
    ensemble = errors_of(torch.stack(of_members).mean(0), labels)
    (WEIGHTS / "README.md").write_text(
        "# Teachers' weights\n\n"
        "Written by `python train_teachers.py` in `examples/mnist/`; the last epoch of a fixed schedule "
        f"(AdamW, one-cycle to {PEAK_LEARNING_RATE}, batches of {BATCH_SIZE}, random affine augmentation), "
        "measured on the 10,000 test rows in float32. Load with `models:conv_net` and the width given.\n\n"
        "| teacher | width | seed | parameters | epochs | run in | CPU seconds (1 thread) | errors |\n"
        "|---|---|---|---|---|---|---|---|\n" + "".join(rows) + "\n"
        f"The ensemble (arithmetic mean of the three's probabilities) makes **{ensemble}** test errors.\n"
    )
    print(f"ensemble: {ensemble} test errors; weights/README.md written")


def errors_of(probabilities_BC: Tensor, labels_B: Tensor) -> int:
    """Returns how many rows have another class than their label on top."""
    return int((probabilities_BC.argmax(1) != labels_B).sum())


def _readme_row(member: Member, errors: int) -> str:
    with safe_open(WEIGHTS / f"{member.name}.safetensors", framework="pt") as file:
        facts = file.metadata()
        names = list(file.keys())
        parameters = sum(math.prod(file.get_slice(name).get_shape()) for name in names)
    cells = [member.name, member.width, member.seed, f"{parameters:,}"]
    cells += [facts["epochs"], facts["training"], facts["cpu_seconds"], errors]
    return "| " + " | ".join(map(str, cells)) + " |\n"


def main() -> None:
    """Trains the members asked for, one after another, then measures all that `weights/` holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="members to train (all of them, if none is named)")
    parser.add_argument("--epochs", type=int, default=16)
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - {member.name for member in MEMBERS}:
        parser.error(f"no member {sorted(unknown)}; known: {[member.name for member in MEMBERS]}")
    torch.set_num_threads(1)
    bfloat16 = bfloat16_is_faster()
    images = read_images(HERE / "data" / "train-images-idx3-ubyte.gz")
    labels = read_labels(HERE / "data" / "train-labels-idx1-ubyte.gz")
    WEIGHTS.mkdir(exist_ok=True)
    for member in MEMBERS:
        if arguments.names and member.name not in arguments.names:
            continue
        start = time.process_time()
        state = train(member, images, labels, epochs=arguments.epochs, bfloat16=bfloat16)
        facts = {"epochs": str(arguments.epochs), "training": "bfloat16 autocast" if bfloat16 else "float32"}
        facts["cpu_seconds"] = f"{time.process_time() - start:.0f}"
        save_file(state, WEIGHTS / f"{member.name}.safetensors", metadata=facts)
    if all((WEIGHTS / f"{member.name}.safetensors").exists() for member in MEMBERS):
        test_images = read_images(HERE / "data" / "t10k-images-idx3-ubyte.gz")
        write_readme(test_images, read_labels(HERE / "data" / "t10k-labels-idx1-ubyte.gz"))


if __name__ == "__main__":
    main()
