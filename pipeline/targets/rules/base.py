"""What a rule is: a function from several teachers' logits to one distribution a row."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Rule(Protocol):
    """Combines the members of an ensemble. Pure: no state, no order between rows."""

    def __call__(
        self, logits_MBC: NDArray[np.float32], weights_M: NDArray[np.float32], temperature: float
    ) -> NDArray[np.float32]:
        """Soft targets `[B, C]` at `temperature`, each row of sum 1.

        Args:
            logits_MBC: Raw logits of M members for B rows and C classes.
            weights_M: The members' weights, positive, of sum 1.
            temperature: T, finite and above 0.
        """
