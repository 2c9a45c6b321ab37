"""Random sampling instead of the top k: Sparse Logit Sampling (arXiv 2503.16870). Re-implemented.

Classes are drawn from the teacher's probabilities at T=1 and kept with how often each came up; a draw's share
is its probability. Without bias at T=1, with much noise; tempered like any other probabilities elsewhere. The
paper's 3 bytes a class: 17 bits of its number, 7 of its count.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rivals.base import Kept, Rows

ENTRY_BYTES = 3
MOST_DRAWS = 127


def kept(rows: Rows, budget: int, seed: int = 0) -> Kept | None:
    """As many draws as keep the mean bytes within the budget, or as a count holds."""
    drawn_ND = draw(rows.logits_NC, MOST_DRAWS, np.random.default_rng(seed))

    def bytes_of(draws: int) -> float:
        return ENTRY_BYTES * sum(len(np.unique(row[:draws])) for row in drawn_ND) / len(rows)

    draws = MOST_DRAWS
    while draws > 1 and bytes_of(draws) > budget:
        draws -= max(1, draws // 20)

    def decode(at: slice, temperature: float) -> NDArray[np.float32]:
        log_p_BC = np.full((len(drawn_ND[at]), rows.classes), -np.inf, dtype=np.float32)
        for log_p_C, drawn_D in zip(log_p_BC, drawn_ND[at, :draws], strict=True):
            ids_K, counts_K = np.unique(drawn_D, return_counts=True)
            log_p_C[ids_K] = np.log(counts_K / draws)
        return log_p_BC

    return Kept(name=f"random sampling: {draws} draws", bytes_a_row=bytes_of(draws), decode=decode)


def draw(logits_NC: NDArray[np.float32], draws: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`[N, draws]` classes, drawn independently from softmax(logits)."""
    drawn = []
    for logits_C in logits_NC:
        p_C = np.exp(logits_C.astype(np.float64) - logits_C.max())
        cumulative_C = np.cumsum(p_C)
        drawn.append(np.searchsorted(cumulative_C, rng.random(draws) * cumulative_C[-1], side="right"))
    return np.minimum(np.stack(drawn), logits_NC.shape[1] - 1)
