"""One block: its rows read, decoded, hashed and written; there as a whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.writing.publishing import publish_table
from softcask.pipeline.transfer_sets.base import SourceOptions, TransferSet
from softcask.pipeline.transfer_sets.indexing import identified_batches
from softcask.storage_schemas import npy
from softcask.storage_schemas.manifest import ObjectRecord
from softcask.storage_schemas.prepared import PreparedBlock, PreparedPlan, block_key
from softcask.storage_schemas.tables import ROWS


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockRecipe:
    """All it takes to make blocks in whatever process it is sent to; picklable.

    Attributes:
        transfer_set: Where the rows come from.
        into: Folder or URL of the prepared set.
        plan: Which rows come into which block.
    """

    transfer_set: SourceOptions
    into: str
    plan: PreparedPlan

    def build(self) -> Callable[[int], PreparedBlock]:
        """What makes a block by its number, and says what it made."""
        source, objects = self.transfer_set.open(), StoreObjects.at(self.into)
        return lambda number: make_block(source, objects, self.plan, number)


def make_block(source: TransferSet, objects: StoreObjects, plan: PreparedPlan, number: int) -> PreparedBlock:
    """Make a block, unless it stands already; two at once make the same one.

    Raises:
        TransferSetError: The source failed, or a label is out of range.
        StoreAccess: The place cannot be written to.
    """
    if (standing := standing_block(objects, number)) is not None:
        return standing
    start, stop = plan.block_range(number)
    inputs_N = np.zeros((stop - start, *plan.input_shape), plan.input_dtype)
    parts, filled = [], 0
    for batch, rows in identified_batches(source, start, stop, num_classes=plan.num_classes):
        inputs_N[filled : filled + len(rows)] = batch.inputs_B
        parts.append(rows)
        filled += len(rows)
    table = pa.Table.from_batches(parts, ROWS).combine_chunks()
    data, key = npy.to_bytes(inputs_N), block_key(number, "npy")
    if not objects.publish(key, data) and objects.read(key) != data:
        objects.replace(key, data)  # of a writer that died before its receipt
    made = PreparedBlock(
        rows=len(table),
        quarantined=len(table) - table["quarantine"].null_count,
        inputs=ObjectRecord.of(key, data),
        table=publish_table(objects, block_key(number, "parquet"), table)[0],
    )
    receipt = block_key(number, "json")
    if not objects.publish(receipt, made.to_bytes()):
        return PreparedBlock.from_bytes(objects.read(receipt), receipt)
    return made


def standing_block(objects: StoreObjects, number: int) -> PreparedBlock | None:
    """The receipt of a block that is complete; None of any other."""
    key = block_key(number, "json")
    data = objects.read_if_present(key)
    return None if data is None else PreparedBlock.from_bytes(data, key)
