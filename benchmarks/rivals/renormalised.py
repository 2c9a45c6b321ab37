"""Top-k alone, renormalised: what MaxText, Axolotl and most hand-written scripts keep. Re-implemented.

Two bytes for a class's number (as few as hold it) and a float16. The other classes get no probability, so the
KL is infinite; the error of the gradient is finite and shown.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from rivals.base import Kept, Rows, dense


def kept(rows: Rows, budget: int) -> Kept | None:
    """As many classes as the budget holds."""
    classes = rows.classes
    number = np.uint16 if classes <= 1 << 16 else np.uint32
    k = min(budget // (np.dtype(number).itemsize + 2), rows.ids_NK.shape[1])
    if k < 1:
        return None
    small_NK, half_NK = rows.ids_NK[:, :k].astype(number), rows.log_p_NK[:, :k].astype(np.float16)

    def decode(at: slice, temperature: float) -> NDArray[np.float32]:
        nothing_B = np.full(len(small_NK[at]), -np.inf, dtype=np.float32)
        return dense(small_NK[at], half_NK[at].astype(np.float32), classes, nothing_B)

    return Kept(
        name=f"top {k}, renormalised",
        bytes_a_row=(small_NK.nbytes + half_NK.nbytes) / len(rows),
        decode=decode,
    )
