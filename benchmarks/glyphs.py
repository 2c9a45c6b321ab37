"""A classifier with 1,000 classes that trains in a minute: the glyphs of a font, turned, moved and noisy.

The font is DejaVu Sans, which matplotlib ships. Glyphs resemble each other in families (accents, scripts), so
that what the teacher gives the wrong classes has the structure of a real classifier's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import nn

CLASSES = 1_000
SIDE = 24
TRAIN_ROWS = 60_000
EPOCHS = 8
LABEL_SMOOTHING = 0.1
"""As ImageNet recipes have it. Without it this net's logits spread five times as wide (deviation 13 nats)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GlyphTeacher:
    """A trained network.

    Attributes:
        masters_CSS: One clean image a class, uint8.
        body: Images to hidden states.
        output_CD: Output layer.
        bias_C: Its bias.
        accuracy: Top-1 on new images.
    """

    masters_CSS: NDArray[np.uint8]
    body: nn.Module
    output_CD: NDArray[np.float32]
    bias_C: NDArray[np.float32]
    accuracy: float

    def hidden(self, *, rows: int, seed: int) -> NDArray[np.float32]:
        """Hidden states of `rows` new images."""
        images, _ = render(self.masters_CSS, rows, seed)
        with torch.inference_mode():
            states = self.body(torch.from_numpy(images))
        return np.asarray(states.numpy(), dtype=np.float32)

    def logits(self, hidden_ND: NDArray[np.float32]) -> NDArray[np.float32]:
        """`[N, C]`."""
        return hidden_ND @ self.output_CD.T + self.bias_C


def train(seed: int = 0) -> GlyphTeacher:
    """Render, train, measure."""
    torch.manual_seed(seed)
    masters_CSS = masters()
    images, labels = (torch.from_numpy(values) for values in render(masters_CSS, TRAIN_ROWS, seed))
    body = nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU())
    output = nn.Linear(256, CLASSES)
    parameters = [*body.parameters(), *output.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=2e-3)
    steps = EPOCHS * (TRAIN_ROWS // 256)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=2e-3, total_steps=steps)
    for _ in range(steps):
        batch = torch.randint(TRAIN_ROWS, (256,))
        loss = nn.functional.cross_entropy(
            output(body(images[batch])), labels[batch], label_smoothing=LABEL_SMOOTHING
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    new, truth = render(masters_CSS, 4_000, seed + 100)
    with torch.inference_mode():
        correct = output(body(torch.from_numpy(new))).argmax(dim=1).numpy() == truth
    return GlyphTeacher(
        masters_CSS=masters_CSS,
        body=body.eval(),
        output_CD=output.weight.detach().numpy(),
        bias_C=output.bias.detach().numpy(),
        accuracy=float(correct.mean()),
    )


def masters() -> NDArray[np.uint8]:
    """`[CLASSES, 2 SIDE, 2 SIDE]`: the first glyphs of the font that are neither empty nor alike."""
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    font = ImageFont.truetype(str(path), int(1.4 * SIDE), layout_engine=ImageFont.Layout.BASIC)
    seen: dict[bytes, NDArray[np.uint8]] = {}
    for code in range(0x21, 0x3000):
        image = Image.new("L", (2 * SIDE, 2 * SIDE))
        ImageDraw.Draw(image).text((SIDE, SIDE), chr(code), fill=255, font=font, anchor="mm")
        pixels = np.asarray(image)
        if pixels.any():
            seen.setdefault(pixels.tobytes(), pixels)
        if len(seen) == CLASSES:
            break
    return np.stack(list(seen.values()))


def render(
    masters_CSS: NDArray[np.uint8], rows: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Images `[rows, SIDE, SIDE]` of random classes, each turned, scaled, moved and with noise; labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(len(masters_CSS), size=rows)
    images = np.empty((rows, SIDE, SIDE), dtype=np.float32)
    for image, label in zip(images, labels, strict=True):
        angle, scale = rng.normal(0, 0.12), 2 * rng.uniform(0.85, 1.15)
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        x, y = rng.normal(SIDE, 1.0, size=2)
        half = SIDE / 2
        affine = (cos, -sin, x - cos * half + sin * half, sin, cos, y - sin * half - cos * half)
        glyph = Image.fromarray(masters_CSS[label])
        turned = glyph.transform((SIDE, SIDE), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
        image[:] = np.asarray(turned, dtype=np.float32) / 255
    images += rng.normal(0, 0.15, size=images.shape).astype(np.float32)
    return images, labels
