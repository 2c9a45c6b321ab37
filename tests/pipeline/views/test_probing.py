"""Probe rows: a view that comes out otherwise is found, whatever its options say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from tests.pipeline.views.test_composition import views
from tests.worlds import TESTS

from softcask.pipeline.factories import add_to_path
from softcask.pipeline.transfer_sets.indexing import content_hashes
from softcask.pipeline.views.composition import Views
from softcask.pipeline.views.pixel_shift import PixelShiftOptions
from softcask.pipeline.views.probing import check_probe, view_manifest
from softcask.pipeline.views.segments import SegmentRows, view_rows
from softcask.storage_schemas.errors import ConfigError, CorruptObject, ManifestMismatch
from softcask.storage_schemas.tables import ROWS

INPUTS = np.random.default_rng(4).normal(size=(50, 6, 5)).astype(np.float32)


def segment(quarantined: tuple[int, ...] = (0, 9)) -> SegmentRows:
    table = pa.table(
        {
            "sample_id": [f"row-{row}" for row in range(50)],
            "content_hash": [bytes(content) for content in content_hashes(INPUTS)],
            "label": [None] * 50,
            "quarantine": ["gone" if row in quarantined else None for row in range(50)],
        },
        schema=ROWS,
    )
    return SegmentRows.of(table)


def read(positions_B: NDArray[np.int64]) -> NDArray[Any]:
    return INPUTS[positions_B]


def pin(what: Views, view: int = 1) -> Any:
    return view_manifest(what, view, "s0000", segment(), read)


SHIFTED = views({"kind": "pixel_shift", "pixels": 1}, {"kind": "mixup"})


def test_probe_rows_are_readable_ones_spread_evenly_with_the_hash_of_how_they_look() -> None:
    pinned = pin(SHIFTED, 3)
    rows = [probe.row for probe in pinned.probe]
    assert len(rows) == 8 and rows == sorted(rows) and not {0, 9} & set(rows) and rows[-1] > 40
    shown = view_rows(SHIFTED, segment(), np.array(rows), 3, read).inputs_B
    assert [probe.content for probe in pinned.probe] == [bytes(each).hex() for each in content_hashes(shown)]
    assert (pinned.row_shape, pinned.row_dtype) == ((6, 5), "float32")
    assert pinned.recorded["versions"]["numpy"] == np.__version__
    check_probe(SHIFTED, pinned, segment(), read, "here")


def test_code_that_gives_other_rows_under_the_same_options_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = pin(SHIFTED)
    original = PixelShiftOptions.apply
    monkeypatch.setattr(
        PixelShiftOptions, "apply", lambda self, rows, drawn: original(self, rows, drawn) + np.float32(1e-6)
    )
    with pytest.raises(ManifestMismatch, match="view 1 of here does not come out.*8 of 8 probe rows differ"):
        check_probe(SHIFTED, pinned, segment(), read, "here")


def test_versions_that_differ_are_told() -> None:
    pinned = pin(SHIFTED)
    old = pinned.model_copy(
        update={
            "recorded": {"versions": {**pinned.recorded["versions"], "numpy": "1.0"}},
            "probe": tuple(each.model_copy(update={"content": "0" * 32}) for each in pinned.probe),
        }
    )
    with pytest.raises(ManifestMismatch, match=rf"numpy {np.__version__} here and 1.0 then"):
        check_probe(SHIFTED, old, segment(), read, "here")


@pytest.mark.parametrize("change", [{"row": 4999}, {"row": 0}, {"sample_id": "another"}])
def test_probe_rows_that_the_segment_does_not_have_are_damage(change: dict[str, Any]) -> None:
    pinned = pin(SHIFTED)
    first = pinned.probe[0].model_copy(update=change)
    with pytest.raises(CorruptObject, match=r"views/v0001\.json of here has probe rows that are not those"):
        check_probe(
            SHIFTED, pinned.model_copy(update={"probe": (first, *pinned.probe[1:])}), segment(), read, "here"
        )


def test_random_numbers_from_elsewhere_are_found_when_a_view_is_pinned() -> None:
    add_to_path([str(TESTS)])
    with pytest.raises(ConfigError, match="came out otherwise when it was made a second time"):
        pin(views({"kind": "callable", "function": "toy_views:careless"}))
    pin(views({"kind": "callable", "function": "toy_views:jitter"}))


def test_a_segment_without_a_readable_row_is_pinned_without_probes() -> None:
    nothing = segment(tuple(range(50)))
    assert view_manifest(SHIFTED, 1, "s0000", nothing, read).probe == ()
