"""Rows blended with their partners: mixup (Zhang et al., arXiv 1710.09412)."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from softcask.pipeline.views.base import MixingOptions
from softcask.pipeline.views.draws import Draws
from softcask.pipeline.views.images import cast_back
from softcask.storage_schemas.errors import ConfigError


class MixupOptions(MixingOptions):
    """`kind = "mixup"`: share * row + (1 - share) * partner; of whole numbers, rounded."""

    kind: Literal["mixup"] = "mixup"

    def mix(
        self, inputs_B: NDArray[Any], partners_B: NDArray[Any], draws: Draws
    ) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """See `MixingOptions.mix`."""
        if inputs_B.dtype.kind not in "biuf":
            raise ConfigError(f"a view's step 'mixup' takes numbers; these rows are {inputs_B.dtype}")
        # A byte times a share, of 16 bits, is exact in float32.
        wide = inputs_B.dtype.itemsize > (1 if inputs_B.dtype.kind in "iu" else 4)
        exact: Any = np.float64 if wide else np.float32
        share_B = self._shares(draws)
        shares = share_B.astype(exact).reshape(-1, *[1] * (inputs_B.ndim - 1))
        # One operation after another, each rounded once: all processors give the same bits.
        mixed_B: NDArray[Any] = inputs_B.astype(exact)
        mixed_B *= shares
        rest_B: NDArray[Any] = partners_B.astype(exact)
        rest_B *= 1 - shares
        mixed_B += rest_B
        return cast_back(mixed_B, inputs_B.dtype), share_B.astype(np.float32)
