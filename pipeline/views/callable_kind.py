"""A step that calls a function of the user's, a row at a time."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from softcask.pipeline.factories import FactoryTarget, find_source, resolve
from softcask.pipeline.views.base import StepOptions, row_by_row
from softcask.pipeline.views.draws import Draws


class CallableOptions(StepOptions):
    """`kind = "callable"`: `function(row, generator, **kwargs)` gives the augmented row.

    `row` is an array of the function's own, or a `str` of a row of text; `generator` is a
    `numpy.random.Generator` that is the same for the same row and view wherever it is called, and must be
    all that is random.

    Attributes:
        function: `module:function`.
        kwargs: Its further arguments.
        code_version: Stated by the user; change it when the function comes to give other rows.
    """

    kind: Literal["callable"] = "callable"
    imports_code: ClassVar[bool] = True
    function: FactoryTarget
    kwargs: dict[str, Any] = Field(default_factory=dict)
    code_version: str = ""

    def apply(self, inputs_B: NDArray[Any], draws: Draws) -> NDArray[Any]:
        """See `StepOptions.apply`."""
        function = resolve(self.function)

        def augment(row: Any, generator: np.random.Generator) -> Any:
            return function(row if isinstance(row, str) else np.array(row), generator, **self.kwargs)

        what = f"a view's function {self.function}"
        return row_by_row(augment, inputs_B, draws.generators(), draws.sample_ids, what)

    def recorded(self) -> dict[str, Any]:
        """See `StepOptions.recorded`."""
        return {self.function: source_digest(self.function)}


def source_digest(target: str) -> str | None:
    """`sha256:...` of the source file of a `module:function`; None where there is none to read."""
    path = find_source(target)
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" if path is not None else None
