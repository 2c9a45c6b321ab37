"""Which rows a student learns from: by id, by class, by what the teachers think of them, or by SQL over that.

What teachers think is in their statistics (`stats/`), at T=1, so that no logits are read to choose rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, FiniteFloat, ValidationError, model_validator

from softcask.pipeline.parts import Options
from softcask.pipeline.student.loading.joining import JoinedRows, shown
from softcask.storage_schemas.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from softcask.pipeline.store.reading.reader import Store
    from softcask.pipeline.targets.soft_targets import SoftTargets


class Between(Options):
    """A range that includes its ends.

    Attributes:
        at_least: Its lower end; None: none.
        at_most: Its upper end; None: none.
    """

    at_least: FiniteFloat | None = None
    at_most: FiniteFloat | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        low, high = self.at_least, self.at_most
        if low is None and high is None:
            raise ConfigError("says neither at_least nor at_most")
        if low is not None and high is not None and low > high:
            raise ConfigError(f"no number is at least {low:g} and at most {high:g}")
        return self

    def holds(self, values_N: NDArray[Any]) -> NDArray[np.bool_]:
        """Which values are in it."""
        low = -np.inf if self.at_least is None else self.at_least
        high = np.inf if self.at_most is None else self.at_most
        inside: NDArray[np.bool_] = (values_N >= low) & (values_N <= high)
        return inside


class Selection(Options):
    """Rows for which all that is said here holds; statistics are means over the teachers learned from.

    Attributes:
        ids: Sample ids; each must be there.
        classes: Labels, by index or name; rows without a label are none of them.
        confidence: The largest class's probability.
        entropy: In nats.
        margin: Difference of the two largest probabilities.
        sql: A query in DuckDB's SQL that gives a column `sample_id`, or a condition alone, over the table
            `stats`: a line a row and teacher, with `sample_id`, `label`, `teacher`, `top_class`,
            `confidence`, `entropy`, `margin`, `logsumexp`, and lists `top_classes`, `top_log_probs`. Needs
            `pip install 'softcask[sql]'`.
    """

    ids: tuple[str, ...] | None = Field(default=None, min_length=1)
    classes: tuple[int | str, ...] | None = Field(default=None, min_length=1)
    confidence: Between | None = None
    entropy: Between | None = None
    margin: Between | None = None
    sql: str | None = Field(default=None, min_length=1)

    def of(self, rows: JoinedRows, targets: SoftTargets) -> JoinedRows:
        """The chosen ones of joined rows, in their order.

        Raises:
            ConfigError: An unknown id or class, SQL that fails, or duckdb is missing.
            StoreError: No row is left, or a teacher keeps no statistics.
        """
        store: Any = targets.store
        stored_N = self._of_store(store, targets.teachers)
        chosen_N = stored_N[rows.rows_N]
        if self.classes is not None:
            numbers = [_class_number(each, store.class_names) for each in self.classes]
            chosen_N &= np.isin(rows.labels_N, numbers)
        if not chosen_N.any():
            raise StoreError(
                f"none of the {len(rows)} rows is left of {store.uri} by "
                f"{self.model_dump(exclude_none=True)}; choose by less"
            )
        return rows.chosen(chosen_N)

    def _of_store(self, store: Store, teachers: tuple[str, ...]) -> NDArray[np.bool_]:
        """Which rows of the store are chosen, classes apart."""
        chosen_N = np.ones(len(store.rows), dtype=np.bool_)
        if self.ids is not None:
            found = store.rows.find(self.ids)
            if (found < 0).any():
                unknown = [name for name, row in zip(self.ids, found, strict=True) if row < 0]
                raise ConfigError(
                    f"{len(unknown)} of {len(self.ids)} ids to select are not in {store.uri} "
                    f"({shown(unknown)})"
                )
            chosen_N &= np.isin(np.arange(len(chosen_N)), found)
        ranges = {"confidence": self.confidence, "entropy": self.entropy, "margin": self.margin}
        asked = {name: between for name, between in ranges.items() if between is not None}
        if not asked and self.sql is None:
            return chosen_N
        stats = [statistics(store, name) for name in teachers]
        for name, between in asked.items():
            chosen_N &= between.holds(np.mean([_by_row(store, each, name) for each in stats], axis=0))
        if self.sql is not None:
            chosen_N &= _by_sql(store, pa.concat_tables(stats), self.sql)
        return chosen_N


def selection_of(given: Selection | Mapping[str, Any]) -> Selection:
    """A selection, or what it is made of.

    Raises:
        ConfigError: It is not valid.
    """
    if isinstance(given, Selection):
        return given
    try:
        return Selection.model_validate(given)
    except ValidationError as error:
        raise ConfigError(f"select is not valid: {error}") from error


def statistics(store: Store, teacher: str) -> pa.Table:
    """A teacher's statistics, with its name, the largest class and its probability as columns.

    Raises:
        StoreError: It keeps none.
    """
    if not store.teacher(teacher).stats:
        raise StoreError(
            f"teacher {teacher!r} of {store.uri} keeps no statistics (store.stats was off, or it was "
            "imported); select by ids or classes"
        )
    table = store.stats(teacher)
    top_log_probs = pc.list_element(table["top_log_probs"], 0)
    return (
        table.drop_columns(["row"])
        .append_column("teacher", pa.array([teacher] * len(table), pa.string()))
        .append_column("top_class", pc.list_element(table["top_classes"], 0))
        .append_column("confidence", pc.exp(top_log_probs))
    )


def _by_row(store: Store, stats: pa.Table, name: str) -> NDArray[np.float64]:
    """A statistic `[N]` of all rows of the store; NaN, which is in no range, where a row has none."""
    values_N = np.full(len(store.rows), np.nan)
    rows = _row_numbers(store, stats["sample_id"])
    values_N[rows] = stats[name].to_numpy()
    return values_N


def _row_numbers(store: Store, ids: Any) -> NDArray[np.int64]:
    """Numbers of rows by id, -1 where the store has none."""
    known = pa.array(store.rows.sample_ids, pa.string())
    found = pc.index_in(ids, value_set=known).fill_null(-1)
    numbers: NDArray[np.int64] = found.to_numpy(zero_copy_only=False).astype(np.int64)
    return numbers


def _by_sql(store: Store, stats: pa.Table, sql: str) -> NDArray[np.bool_]:
    try:
        import duckdb
    except ModuleNotFoundError as error:
        raise ConfigError(
            "select.sql needs duckdb, which is not installed: pip install 'softcask[sql]'. Without it, "
            "select by ids, classes, confidence, entropy or margin"
        ) from error
    whole = sql.lstrip(" \n\t(").partition(" ")[0].strip().lower() in ("select", "with", "from")
    query = sql if whole else f"SELECT sample_id FROM stats WHERE {sql}"  # noqa: S608  # it is the user's own
    with duckdb.connect(":memory:", config={"threads": 1}) as connection:
        connection.register("stats", stats)
        try:
            # All that a query may look at is the table: a run file is no way to other files.
            connection.execute("SET enable_external_access = false")
            found = connection.execute(query).fetchnumpy()
        except duckdb.Error as error:
            columns = ", ".join(stats.column_names)
            raise ConfigError(
                f"select.sql fails: {error}\nThe table stats has the columns {columns}"
            ) from error
    if "sample_id" not in found:
        raise ConfigError(f"select.sql gives the columns {', '.join(found)}; expected one called sample_id")
    rows = _row_numbers(store, pa.array(found["sample_id"], pa.string()))
    if (rows < 0).any():
        raise ConfigError(f"select.sql gives sample ids that {store.uri} does not have")
    chosen_N = np.zeros(len(store.rows), dtype=np.bool_)
    chosen_N[rows] = True
    return chosen_N


def _class_number(named: int | str, class_names: Any) -> int:
    names = list(class_names)
    if isinstance(named, str) and named in names:
        return names.index(named)
    if isinstance(named, int) and 0 <= named < len(names):
        return named
    raise ConfigError(
        f"select.classes has {named!r}; expected an index from 0 to {len(names) - 1}, or a class name as "
        f"{names[0]!r}"
    )
