"""Which input belongs to which stored row: settled by `sample_id` before anything is trained.

A student fed rows that its targets do not describe trains without complaint, and badly. So everything but an
exact match is an error, unless the caller asks for the intersection.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from softcask.storage_schemas.errors import MisalignedRows, TransferSetError
from softcask.storage_schemas.tables import HASH_BYTES

if TYPE_CHECKING:
    from softcask.pipeline.student.loading.inputs import InputRows
    from softcask.pipeline.targets.soft_targets import LogitSource, SoftTargets

Coverage = Literal["all", "intersection"]
"""`all`: inputs and stored rows must be the same; `intersection`: train on what both have."""
Match = Literal["content", "id"]
"""`content`: an id is trusted where the content under it is what the teachers saw; `id`: also where the store
does not know what they saw, as of imported logits."""

_SHOWN = 3
NO_HASH = np.void(bytes(HASH_BYTES))
"""What stands for the content of a row that the store knows by id alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinedRows:
    """Rows that a student trains on, in the order of its inputs.

    Attributes:
        positions_N: Positions in the student's inputs.
        rows_N: The same rows' numbers in the store.
        labels_N: Class indices, -1 where neither side has a label.
    """

    positions_N: NDArray[np.int64]
    rows_N: NDArray[np.int64]
    labels_N: NDArray[np.int64]

    def __len__(self) -> int:
        """N."""
        return len(self.positions_N)

    def chosen(self, chosen_N: NDArray[np.bool_]) -> JoinedRows:
        """Those of the rows that are chosen."""
        return JoinedRows(
            positions_N=self.positions_N[chosen_N],
            rows_N=self.rows_N[chosen_N],
            labels_N=self.labels_N[chosen_N],
        )


def join(inputs: InputRows | None, targets: SoftTargets, coverage: Coverage = "all") -> JoinedRows:
    """Match a student's inputs with a store's rows; without inputs, all rows of the store.

    Inputs that the store quarantined and that cannot be read here either are left out, and so are, under
    `intersection`, rows of a partial store that a teacher has not labelled yet.

    Raises:
        MisalignedRows: Rows that only one side has (under `all`), no common row, or labels that differ.
        TransferSetError: An id that repeats, or a label out of range.
    """
    store = targets.store
    if inputs is None:
        return _stored(targets, coverage)
    ids = inputs.ids()
    _refuse_repeated(ids)
    rows = store.rows.find(ids)
    if coverage == "intersection":
        rows = np.where(np.append(targets.available(), False)[rows], rows, -1)
    positions = np.flatnonzero(rows >= 0)
    if coverage == "all" or not len(positions):
        _refuse_unmatched(inputs, store, ids, rows)
    labels = _labels(inputs, store, ids, rows)
    return JoinedRows(positions_N=positions, rows_N=rows[positions], labels_N=labels[positions])


def _stored(targets: SoftTargets, coverage: Coverage) -> JoinedRows:
    rows = targets.store.rows
    chosen = targets.available() if coverage == "intersection" else np.ones(len(rows), dtype=np.bool_)
    if not chosen.any():
        raise MisalignedRows(f"{targets.store.uri} has no row that {', '.join(targets.teachers)} labelled")
    numbers_N = np.flatnonzero(chosen)
    return JoinedRows(positions_N=numbers_N, rows_N=numbers_N, labels_N=rows.labels[numbers_N])


def refuse_unknown_content(store: LogitSource, rows: JoinedRows) -> None:
    """Refuse rows of which the store does not know what the teachers saw.

    Raises:
        MisalignedRows: There are some; says how to allow them.
    """
    unknown = store.rows.content_hashes[rows.rows_N] == NO_HASH
    if unknown.any():
        names = store.rows.sample_ids[rows.rows_N[unknown][:_SHOWN]].tolist()
        raise MisalignedRows(
            f"{store.uri} does not know the content of {np.count_nonzero(unknown)} of {len(rows)} rows "
            f"({shown(names)}): their logits were imported, so only the ids say that these inputs are what "
            'the teacher saw. If you know that they are, set match = "id" in the student\'s file'
        )


def refuse_other_content(
    store: LogitSource, rows_B: NDArray[np.int64], hashes_B: NDArray[np.void], of: str
) -> None:
    """Refuse rows whose content is not what the teachers saw, where the store knows that.

    Args:
        store: Knows the content of its rows.
        rows_B: Their numbers in it.
        hashes_B: The content that they have here.
        of: What they are, for the message.

    Raises:
        MisalignedRows: Some have other content.
    """
    stored_B = store.rows.content_hashes[rows_B]
    differing = (hashes_B != stored_B) & (stored_B != NO_HASH)
    if differing.any():
        names = store.rows.sample_ids[rows_B[differing]].tolist()
        raise MisalignedRows(
            f"{len(names)} of the {len(rows_B)} rows of {of} have other content here than the "
            f"teachers saw ({shown(names)}), though {store.uri} has their ids. Point the student at the "
            "very inputs that the store was made from: same files, same order, same dtype"
        )


def _refuse_repeated(ids: Sequence[str]) -> None:
    if len(set(ids)) < len(ids):
        twice = [name for name, count in Counter(ids).items() if count > 1]
        raise TransferSetError(
            f"{len(twice)} sample ids of the student's inputs repeat ({shown(twice)}); expected each once"
        )


def _refuse_unmatched(
    inputs: InputRows, store: LogitSource, ids: Sequence[str], rows: NDArray[np.int64]
) -> None:
    unmatched = np.flatnonzero(rows < 0)
    missing = [ids[at] for at in unmatched.tolist()] if inputs.any_readable(unmatched) else []
    unused_mask = np.ones(len(store.rows), dtype=bool)
    unused_mask[rows[rows >= 0]] = False
    unused = store.rows.sample_ids[unused_mask].tolist()
    if not missing and not unused and len(unmatched) < len(ids):
        return
    problems = [
        f"{len(missing)} of {len(ids)} inputs have no row in {store.uri} ({shown(missing)})"
        if missing
        else "",
        f"{len(unused)} of {len(store.rows)} stored rows have no input here ({shown(unused)})"
        if unused
        else "",
    ]
    raise MisalignedRows(
        f"{'; '.join(filter(None, problems)) or 'no input can be read'}. Expected the same sample ids on "
        "both sides. Name the transfer set that the store was made from, with the same id_prefix; or set "
        'rows = "intersection" (in Python coverage="intersection") to train on the rows that both have'
    )


def _labels(
    inputs: InputRows, store: LogitSource, ids: Sequence[str], rows: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Labels `[len(inputs)]`: the student's own, else the store's, else -1."""
    stored = np.where(rows >= 0, store.rows.labels[rows], -1)
    own = inputs.labels()
    if own is None:
        return stored
    check_labels(own, len(store.class_names), ids)
    differing = np.flatnonzero((rows >= 0) & (own >= 0) & (stored >= 0) & (own != stored))
    if len(differing):
        examples = shown([f"{ids[at]}: {own[at]} here, {stored[at]} stored" for at in differing[:_SHOWN]])
        raise MisalignedRows(
            f"{len(differing)} rows have another label here than in {store.uri} ({examples}). Use the labels "
            "that the store was made with, or leave the student's out"
        )
    return np.where(own >= 0, own, stored)


def check_labels(labels: NDArray[np.int64], num_classes: int, ids: Sequence[str]) -> None:
    """Refuse class indices outside -1 (none) to C - 1.

    Raises:
        TransferSetError: One is out of range; names the first.
    """
    bad = np.flatnonzero((labels < -1) | (labels >= num_classes))
    if len(bad):
        raise TransferSetError(
            f"{len(bad)} labels are out of range ({ids[bad[0]]}: {labels[bad[0]]}); expected 0 to "
            f"{num_classes - 1}, or -1 for none"
        )


def shown(names: Sequence[str]) -> str:
    """The first few of many names."""
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
