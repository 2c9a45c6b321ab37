"""What a student used of teachers' passes instead of running them, written beside it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from softcask.pipeline.store.ledger import reuse, spent_by_teacher, store_identity
from softcask.storage_schemas.errors import StoreError
from softcask.storage_schemas.runs import StudentSavings

if TYPE_CHECKING:
    from softcask.pipeline.store.reading.reader import Store

SAVINGS = "savings.json"

_LOG = logging.getLogger(__name__)


def savings_of(store: Store, teachers: Sequence[str], *, rows: int, epochs: int) -> StudentSavings:
    """What a training reused.

    Args:
        store: Where its soft targets came from.
        teachers: Entries that it read; none where it learnt from labels alone.
        rows: Rows an epoch.
        epochs: Epochs it was trained.
    """
    try:
        spent = spent_by_teacher(store.objects)
    except StoreError as error:
        # A training that is done is not lost for want of what its targets cost.
        _LOG.warning("what the teachers' passes cost cannot be read from %s: %s", store.uri, error)
        spent = {}
    return StudentSavings(
        store=store_identity(store.objects),
        written=datetime.now(UTC).isoformat(),
        epochs=epochs,
        teachers=reuse(store.teachers, teachers, spent, rows),
    )
