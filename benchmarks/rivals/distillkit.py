"""DistillKit's compressed logits (https://github.com/arcee-ai/DistillKit), by its own code.

Its checkout is named by SOFTCASK_DISTILLKIT; no registry carries it. A row is the k largest log-
probabilities, sorted: the first `exact_k` as bfloat16, the rest as a polynomial over their rank, and the
classes' numbers bit-packed. As shipped the polynomial is of the rank itself; with `normalize_t` it is of the
rank scaled to 0 to 1.

What a student is given for the other classes follows its `densify` with `symmetric_uniform`: an equal share
of what is left of the mass at T=1. Its default, zero, has an infinite KL at any size.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rivals.base import Kept, Missing, Rows, largest_within

RECIPES: dict[str, dict[str, Any]] = {
    "recommended": {"exact_k": 16, "polynomial_terms": [0, 1, 2, 3, 4, "sqrt"]},
    "budget": {"exact_k": 1, "polynomial_terms": [0, 1, "sqrt"]},
}
"""The two configurations of its README, to which only k is fitted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Rows as it keeps them.

    Attributes:
        name: Recipe, k, and what its polynomial is of.
        compressor: Its `LogprobCompressor`.
        columns: Its packed bytes, by name, a row each.
        classes: C.
    """

    name: str
    compressor: Any
    columns: dict[str, torch.Tensor]
    classes: int

    @property
    def bytes_a_row(self) -> float:
        """As packed. Its Parquet files come to 1 % less as it writes them (snappy); zstd would save 12 %."""
        return float(sum(column.shape[1] for column in self.columns.values()))

    def sparse(self, rows: slice | NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
        """Classes and log-probabilities `[B, k]` of some rows."""
        ids_BK, values_BK = self.compressor.decompress_to_sparse(
            {name: column[rows] for name, column in self.columns.items()}
        )
        return ids_BK, values_BK.float()

    def dense(self, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        """Log-probabilities `[B, C]` at T=1, what is left shared equally."""
        upstream = _upstream()
        symmetric = upstream.missing_probability.MissingProbabilityHandling.SYMMETRIC_UNIFORM
        filled = upstream.densify.densify(*self.sparse(rows), self.classes, missing=symmetric)
        return np.asarray(filled.numpy(), dtype=np.float32)


def variants(rows: Rows, budget: int) -> Iterator[Kept]:
    """The recommended recipe as shipped and with `normalize_t=True`, and the other one; as large as fits.

    Raises:
        Missing: No checkout is named.
    """
    # Only powers above the first are fitted badly over the rank: the budget recipe has none.
    for recipe, normalize_t in (("recommended", False), ("recommended", True), ("budget", True)):
        if (peer := _peer(rows, budget, recipe, normalize_t)) is not None:
            yield Kept(
                name=peer.name,
                bytes_a_row=peer.bytes_a_row,
                decode=lambda at, temperature, peer=peer: peer.dense(at),
            )


def best(rows: Rows, budget: int) -> Peer:
    """The recommended recipe with `normalize_t=True`, the best of its variants where it fits.

    Raises:
        Missing: No checkout is named, or the recipe does not fit the budget.
    """
    if (peer := _peer(rows, budget, "recommended", True)) is None:
        raise Missing(f"DistillKit: its recommended recipe does not fit {budget} bytes")
    return peer


def sparse_kl_div() -> Any:
    """Its KL over the classes it keeps."""
    _upstream()
    from distillkit.lossfuncs import kl

    return kl.sparse_kl_div


def _peer(rows: Rows, budget: int, recipe: str, normalize_t: bool) -> Peer | None:
    least = RECIPES[recipe]["exact_k"] + len(RECIPES[recipe]["polynomial_terms"])
    k = largest_within(
        budget,
        lambda k: _config(rows.classes, max(k, least), recipe, normalize_t).total_bits() / 8,
        rows.ids_NK.shape[1],
    )
    if k is None or k < least:
        return None
    config = _config(rows.classes, k, recipe, normalize_t)
    compressor = _upstream().compressor.LogprobCompressor(config=config)
    ids_NK, log_p_NK = (torch.from_numpy(values[:, :k].copy()) for values in (rows.ids_NK, rows.log_p_NK))
    packed = compressor.compress_from_sparse(ids_NK[None], log_p_NK[None])
    return Peer(
        name=f"DistillKit {recipe}, k {k}, {'normalize_t' if normalize_t else 'as shipped'}",
        compressor=compressor,
        columns={name: column[0] for name, column in packed.items()},
        classes=rows.classes,
    )


def _config(classes: int, k: int, recipe: str, normalize_t: bool) -> Any:
    return _upstream().config.DistributionQuantizationConfig(
        d=classes,
        k=k,
        exact_dtype="bfloat16",
        term_dtype="float32",
        residual_bins=[],
        delta_encoding=False,
        error_diffusion=False,
        normalize_t=normalize_t,
        **_terms(recipe),
    )


def _terms(recipe: str) -> dict[str, Any]:
    special = _upstream().config.SpecialTerm
    terms = RECIPES[recipe]["polynomial_terms"]
    return {
        "exact_k": RECIPES[recipe]["exact_k"],
        "polynomial_terms": [special(term) if isinstance(term, str) else term for term in terms],
    }


def _upstream() -> Any:
    """Its modules.

    Raises:
        Missing: No checkout is named.
    """
    named = os.environ.get("SOFTCASK_DISTILLKIT")
    if not named or not (Path(named) / "distillkit" / "compression").is_dir():
        raise Missing("DistillKit: name a checkout of its repository in SOFTCASK_DISTILLKIT")
    if named not in sys.path:
        sys.path.append(named)
    from types import SimpleNamespace

    import distillkit.missing_probability as missing_probability
    from distillkit.compression import compressor, config, densify

    return SimpleNamespace(
        compressor=compressor, config=config, densify=densify, missing_probability=missing_probability
    )
