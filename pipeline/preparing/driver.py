"""Make all blocks of a prepared transfer set that are not there yet, and the manifest when they are.

Ray Data by itself reads everything again after its driver was killed, and leaves two of what it had written.
So it is given the numbers of blocks and nothing else: a block has a name by its number, and one that stands
is never made twice. It does what it is good at: many machines decode, each as fast as it can.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from softcask.pipeline.executors.options import ExecutorOptions
from softcask.pipeline.precompute.config import RunConfig
from softcask.pipeline.preparing.block import BlockRecipe, standing_block
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.writing.publishing import publish_table
from softcask.pipeline.transfer_sets.base import TransferSet
from softcask.pipeline.transfer_sets.indexing import check_rows, refuse_quarantined
from softcask.pipeline.transfer_sets.text import is_text
from softcask.storage_schemas import prepared, tables
from softcask.storage_schemas.errors import ConfigError, ExecutorError, ManifestMismatch, TransferSetError
from softcask.storage_schemas.fingerprint import canonical, differences
from softcask.storage_schemas.prepared import PreparedBlock, PreparedManifest, PreparedPlan

_BLOCK_BYTES = 64 << 20
_MOST_BLOCK_ROWS = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedSummary:
    """What was prepared.

    Attributes:
        path: Where it lies, as `[transfer_set]` names it.
        rows: Rows in it.
        quarantined: Those that cannot be read.
        blocks: Blocks of rows.
        made: Blocks that this call made.
        bytes: Of all blocks.
    """

    path: str
    rows: int
    quarantined: int
    blocks: int
    made: int
    bytes: int


def prepare(
    config: RunConfig,
    into: str,
    *,
    block_rows: int | None = None,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> PreparedSummary:
    """Decode the transfer set of a run into a folder.

    Args:
        config: The run; its teachers and store play no part.
        into: Folder or fsspec URL, empty or begun by an earlier call.
        block_rows: Rows a block; None for what it was begun with, at first as many as 64 MiB hold.
        watch: Called with the rows that are done, and all.

    Raises:
        ConfigError: Rows that need no preparing, or a place that the executor's workers cannot reach.
        ManifestMismatch: The folder was begun from other rows, or with other blocks.
        TransferSetError: The source failed, or changed meanwhile.
        QuarantineExceeded: More rows cannot be read than the run allows.
    """
    into = into if "://" in into or "::" in into else str(Path(into).expanduser().absolute())
    source, objects = config.transfer_set.open(), StoreObjects.at(into)
    _refuse_needless(config, source, into)
    plan = _begun(objects, _plan(config, source, block_rows), keep_length=block_rows is None)
    names = set(objects.names(prepared.BLOCKS))
    missing = [n for n in range(plan.blocks) if f"{n:08d}.json" not in names]
    done = plan.rows - sum(stop - start for start, stop in map(plan.block_range, missing))
    watch(done, plan.rows)
    recipe = BlockRecipe(transfer_set=config.transfer_set, into=into, plan=plan)
    quarantined = 0
    for block in _made(recipe, missing, config.executor):
        done, quarantined = done + block.rows, quarantined + block.quarantined
        watch(done, plan.rows)
        if quarantined > config.transfer_set.max_quarantined * plan.rows:
            rows = tables.from_bytes(objects.read_recorded(block.table), tables.ROWS, block.table.key)
            refuse_quarantined(rows, source, quarantined, plan.rows, config.transfer_set.max_quarantined)
    return _finished(config, objects, plan, source, len(missing))


def _refuse_needless(config: RunConfig, source: TransferSet, into: str) -> None:
    if is_text(source.input_dtype) or config.transfer_set.kind == "prepared":
        what = "text" if is_text(source.input_dtype) else "prepared already"
        raise ConfigError(f"the transfer set's rows are {what}: there is nothing to decode; use it as it is")
    if into.startswith("memory://") and config.executor.kind != "serial":
        raise ConfigError(
            f"{into} is in this process's memory, where no worker sees it: name a folder or a URL, or set "
            'executor.kind = "serial"'
        )


def _plan(config: RunConfig, source: TransferSet, block_rows: int | None) -> PreparedPlan:
    row_bytes = math.prod(source.input_shape) * source.input_dtype.itemsize
    fitting = max(1, min(_MOST_BLOCK_ROWS, _BLOCK_BYTES // row_bytes))
    return PreparedPlan(
        rows=len(source),
        block_rows=block_rows or fitting,
        input_shape=source.input_shape,
        input_dtype=str(source.input_dtype),
        num_classes=len(config.classes.class_names),
        source=canonical(source.describe()),
    )


def _begun(objects: StoreObjects, plan: PreparedPlan, *, keep_length: bool) -> PreparedPlan:
    """The plan that stands in the folder, put there now if it is empty; its blocks may keep their length."""
    if objects.read_if_present(prepared.PLAN) is None and (others := objects.names("")):
        raise ConfigError(
            f"{objects.uri} holds {others[0]!r} and no {prepared.PLAN}: it is not empty, and nothing was "
            "prepared there; name an empty folder"
        )
    objects.publish(prepared.PLAN, plan.to_bytes())
    standing = PreparedPlan.from_bytes(objects.read(prepared.PLAN), prepared.PLAN)
    if keep_length:
        plan = plan.model_copy(update={"block_rows": standing.block_rows})
    if lines := differences(json.loads(plan.model_dump_json()), json.loads(standing.model_dump_json())):
        raise ManifestMismatch(
            f"{objects.uri} was begun otherwise:\n  " + "\n  ".join(lines) + "\nName another folder, or use "
            "the rows and options that it was begun with. Nothing was changed."
        )
    return standing


def _made(recipe: BlockRecipe, numbers: Sequence[int], options: ExecutorOptions) -> Iterator[PreparedBlock]:
    if options.kind == "serial":
        yield from map(recipe.build(), numbers)
        return
    try:
        from softcask.pipeline.executors.ray_data import results
    except ModuleNotFoundError as error:
        raise ExecutorError(
            f'executor.kind = "ray" needs Ray: {error}. Install softcask[engine], or give kind = "serial".'
        ) from error
    objects, source = StoreObjects.at(recipe.into), recipe.transfer_set
    if getattr(source, "threads", 1) is None:  # a worker has one core; the other thread waits for its files
        recipe = replace(recipe, transfer_set=source.model_copy(update={"threads": 2}))
    for number in results(recipe, numbers, options) if numbers else ():
        if (block := standing_block(objects, number)) is None:
            raise TransferSetError(
                f"{recipe.into}: a worker made block {number}, and it is not there. Is this a folder that "
                "every node sees as the same? Name one that is, or a URL, and run this again"
            )
        yield block


def _finished(
    config: RunConfig, objects: StoreObjects, plan: PreparedPlan, source: TransferSet, made: int
) -> PreparedSummary:
    key = prepared.PREPARED
    if (data := objects.read_if_present(key)) is None:
        again = canonical(config.transfer_set.open().describe())
        if lines := differences(again, plan.source):
            raise TransferSetError(
                "the transfer set changed while it was prepared:\n  "
                + "\n  ".join(lines)
                + "\nRestore it and "
                "run this again, or prepare it into another folder."
            )
        blocks = [block for n in range(plan.blocks) if (block := standing_block(objects, n)) is not None]
        parts = [tables.from_bytes(objects.read_recorded(b.table), tables.ROWS, b.table.key) for b in blocks]
        rows = pa.concat_tables(parts).combine_chunks()
        check_rows(rows, source, config.transfer_set.max_quarantined)
        objects.publish(key, _manifest(objects, plan, blocks, rows).to_bytes())
        data = objects.read(key)
    manifest = PreparedManifest.from_bytes(data, key)
    return PreparedSummary(
        path=objects.uri,
        rows=manifest.rows,
        quarantined=manifest.quarantined,
        blocks=plan.blocks,
        made=made,
        bytes=sum(record.size for record in manifest.blocks),
    )


def _manifest(
    objects: StoreObjects, plan: PreparedPlan, blocks: Sequence[PreparedBlock], rows: pa.Table
) -> PreparedManifest:
    described: dict[str, Any] = plan.model_dump(include={"block_rows", "input_shape", "input_dtype"})
    return PreparedManifest(
        rows=len(rows),
        quarantined=len(rows) - rows["quarantine"].null_count,
        labelled=len(rows) - rows["label"].null_count,
        table=publish_table(objects, prepared.ROWS_TABLE, rows)[0],
        blocks=tuple(block.inputs for block in blocks),
        **described,
    )
