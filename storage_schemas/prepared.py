"""A prepared transfer set on disk: decoded rows in blocks of plain `.npy`, and the documents beside them.

`plan.json` says what is to be, and is written first; a block is `NUMBER.npy` and its rows' table, and counts
once `NUMBER.json` stands, which is written last; `prepared.json` is written when all blocks stand.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from softcask.storage_schemas.manifest import Count, Facts, Manifest, ObjectRecord

PLAN = "plan.json"
PREPARED = "prepared.json"
ROWS_TABLE = "rows.parquet"
BLOCKS = "blocks"


def block_key(number: int, ending: str) -> str:
    """Where an object of a block lies: `blocks/00000042.npy`."""
    return f"{BLOCKS}/{number:08d}.{ending}"


class PreparedPlan(Manifest):
    """`plan.json`: which rows come into which block.

    Attributes:
        rows: Rows of the source, unreadable ones among them.
        block_rows: Rows a block, the last one apart.
        input_shape: Shape of one row.
        input_dtype: numpy dtype of the rows.
        num_classes: Labels are below this.
        source: What the source said of itself.
    """

    softcask: ClassVar[str] = "prepared-plan"
    rows: Count
    block_rows: Annotated[int, Field(ge=1)]
    input_shape: tuple[int, ...]
    input_dtype: str
    num_classes: Count
    source: Facts

    @property
    def blocks(self) -> int:
        """How many blocks there are."""
        return -(-self.rows // self.block_rows)

    def block_range(self, number: int) -> tuple[int, int]:
        """First row of a block, and the one behind its last."""
        start = number * self.block_rows
        return start, min(start + self.block_rows, self.rows)


class PreparedBlock(Manifest):
    """`blocks/NUMBER.json`: that a block is complete.

    Attributes:
        rows: Rows in it.
        quarantined: Those that could not be read; their numbers are zeros.
        inputs: The rows' numbers.
        table: Their ids, hashes, labels and reasons.
    """

    softcask: ClassVar[str] = "prepared-block"
    rows: Count
    quarantined: Count
    inputs: ObjectRecord
    table: ObjectRecord


class PreparedManifest(Manifest):
    """`prepared.json`: that all is complete.

    Attributes:
        rows: Rows, unreadable ones among them.
        quarantined: Those that could not be read.
        labelled: Rows with a label.
        block_rows: Rows a block, the last one apart.
        input_shape: Shape of one row.
        input_dtype: numpy dtype of the rows.
        table: Ids, hashes, labels and reasons of all rows.
        blocks: The numbers of each block's rows.
    """

    softcask: ClassVar[str] = "prepared"
    rows: Count
    quarantined: Count
    labelled: Count
    block_rows: Annotated[int, Field(ge=1)]
    input_shape: tuple[int, ...]
    input_dtype: str
    table: ObjectRecord
    blocks: tuple[ObjectRecord, ...]
