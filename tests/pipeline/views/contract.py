"""What every step of a view must do: a new step's tests subclass this."""

from __future__ import annotations

import json
import pickle
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from softcask.pipeline.views.base import MixingOptions, StepOptions
from softcask.pipeline.views.draws import Draws, row_keys
from softcask.storage_schemas.fingerprint import canonical

ROWS = 40


def draws(ids: list[str], *, seed: int = 0, view: int = 1, step: int = 0) -> Draws:
    """What a step draws for rows of these ids."""
    return Draws(ids, row_keys(ids, seed), view, step)


def names(rows: int = ROWS) -> list[str]:
    return [f"row-{row}" for row in range(rows)]


class StepContract(ABC):
    """Subclass with `step`; give other `rows` where it takes none of 12 x 10 x 3 bytes."""

    @abstractmethod
    def step(self) -> StepOptions:
        """The step, with options that let it change most rows."""

    def rows(self) -> NDArray[Any]:
        """Rows `[40, *row]`, all different."""
        return np.random.default_rng(0).integers(0, 256, (ROWS, 12, 10, 3)).astype(np.uint8)

    def apply(self, inputs_B: NDArray[Any], ids: list[str], **place: int) -> NDArray[Any]:
        """The step over rows, whose partners, if it mixes, are those after them."""
        step = self.step()
        if isinstance(step, MixingOptions):
            partners_B = self.rows()[[(int(name[4:]) + 1) % ROWS for name in ids]]
            return step.mix(inputs_B, partners_B, draws(ids, **place))[0]
        return step.apply(inputs_B, draws(ids, **place))

    def test_a_row_comes_out_the_same_alone_and_in_any_batch(self) -> None:
        rows, ids = self.rows(), names()
        whole = self.apply(rows, ids)
        order = np.random.default_rng(1).permutation(ROWS)
        shuffled = self.apply(rows[order], [ids[row] for row in order])
        np.testing.assert_array_equal(shuffled, whole[order])
        for row in (0, 7, ROWS - 1):
            np.testing.assert_array_equal(self.apply(rows[row : row + 1], [ids[row]])[0], whole[row])

    def test_rows_are_left_as_they_are_and_most_come_out_otherwise(self) -> None:
        rows = self.rows()
        made = self.apply(rows, names())
        np.testing.assert_array_equal(rows, self.rows())
        changed = [row for row in range(ROWS) if not np.array_equal(made[row], rows[row])]
        assert len(changed) > ROWS // 2

    @pytest.mark.parametrize("other", [{"seed": 1}, {"view": 2}, {"step": 1}])
    def test_another_seed_view_or_step_draws_anew(self, other: dict[str, int]) -> None:
        rows = self.rows()
        assert not np.array_equal(self.apply(rows, names()), self.apply(rows, names(), **other))

    def test_what_is_pinned_is_json_and_gives_the_step_again(self) -> None:
        step = self.step()
        facts = json.loads(json.dumps(canonical(step.facts())))
        assert facts.pop("kind") == step.kind and facts.pop("version") == type(step).version
        assert type(step)(**facts) == step

    def test_it_travels_to_other_processes(self) -> None:
        assert pickle.loads(pickle.dumps(self.step())) == self.step()  # noqa: S301
