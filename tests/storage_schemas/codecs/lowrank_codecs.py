"""Small `lowrank` codecs, made without calibration."""

from __future__ import annotations

import numpy as np

from softcask.storage_schemas.codecs.lowrank.basis import Basis
from softcask.storage_schemas.codecs.lowrank.codec import Lowrank
from softcask.storage_schemas.codecs.lowrank.digits import Digits
from softcask.storage_schemas.codecs.lowrank.settings import Settings


def lowrank(
    classes: int,
    *,
    head: int = 5,
    rank: int = 6,
    bits: int = 7,
    step: float = 0.25,
    coder: str = "zstd",
    limits: tuple[int, ...] = (),
) -> Lowrank:
    """A codec of even weights along random directions."""
    generator = np.random.default_rng(3)
    random_CR = generator.normal(size=(classes, rank))
    directions_CR = np.linalg.qr(random_CR - random_CR.mean(axis=0))[0] * np.sqrt(classes)
    limits_R = np.resize(limits or (300, 40, 9, 4, 2, 1), rank).astype(np.int64)
    basis = Basis(
        mean_C=generator.normal(size=classes).astype(np.float32),
        basis_CR=directions_CR.astype(np.float16).astype(np.float32),
        deviations_R=(np.maximum(limits_R, 1) * step / 3).astype(np.float32),
        ones_R=np.full(rank, 0.9 * step, dtype=np.float32),
        limits_R=limits_R,
        weights_C=np.full(classes, 1 / classes, dtype=np.float32),
    )
    packed = Digits.within(limits_R).bytes if coder == "zstd" else 0
    settings = Settings.from_configuration(
        {
            "num_classes": classes,
            "head_size": head,
            "head_bits": bits,
            "rank": rank,
            "step": step,
            "coder": coder,
            "coefficient_bytes": packed,
        }
    )
    return Lowrank(settings=settings, basis=basis)
