"""Top-k with an equal share for the rest, as TinyViT keeps it (arXiv 2207.10666).

Its code is at https://github.com/microsoft/Cream. A view is 4 bytes for the seed of its augmentation and 4 a
class: its number, and a float16. TinyViT keeps probabilities; log-probabilities are kept here, which is in
its favour where they are small. Re-implemented.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rivals.base import Kept, Rows, dense, uniform_tail

SEED_BYTES, ENTRY_BYTES = 4, 4


def kept(rows: Rows, budget: int) -> Kept | None:
    """As many classes as the budget holds."""
    classes = rows.classes
    k = min((budget - SEED_BYTES) // ENTRY_BYTES, rows.ids_NK.shape[1])
    if k < 1 or classes > 1 << 16:
        return None
    small_NK, half_NK = rows.ids_NK[:, :k].astype(np.uint16), rows.log_p_NK[:, :k].astype(np.float16)

    def decode(at: slice, temperature: float) -> NDArray[np.float32]:
        log_p_BK = half_NK[at].astype(np.float32)
        return dense(small_NK[at], log_p_BK, classes, uniform_tail(log_p_BK, classes))

    return Kept(
        name=f"TinyViT: top {k}, equal tail",
        bytes_a_row=SEED_BYTES + (small_NK.nbytes + half_NK.nbytes) / len(rows),
        decode=decode,
    )
