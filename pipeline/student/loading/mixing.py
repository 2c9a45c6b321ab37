"""What several parts make together: one order of all their rows, where they fit together at all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

import numpy as np

from softcask.pipeline.store.reading.order import rows_by_unit, unit_numbers
from softcask.pipeline.student.loading.order import EpochOrder, MixedOrder, RowOrder, shares
from softcask.pipeline.student.loading.parts import Part
from softcask.pipeline.student.loading.target_rows import TargetRows
from softcask.pipeline.student.losses.base import Needs
from softcask.storage_schemas.errors import ConfigError, TransferSetError


def order_of(each: Part, targets: TargetRows, window_bytes: int | None) -> RowOrder:
    """Which of a part's rows are mixed with which.

    Args:
        each: The part.
        targets: Its targets.
        window_bytes: Bytes, as stored, of the rows of a window; None mixes all.
    """
    if window_bytes is None or len(each) * targets.stored_bytes <= window_bytes:
        return RowOrder(rows=len(each))
    store = each.targets.store
    units = rows_by_unit(unit_numbers(store.rows, store.segments, each.rows.rows_N))
    most = max(map(len, units)) * targets.stored_bytes
    return RowOrder(rows=len(each), units=units, units_a_window=max(1, window_bytes // most))


def mixed(orders: Sequence[RowOrder], mix: Sequence[float] | None) -> EpochOrder:
    """The order of all parts' rows.

    Raises:
        ConfigError: Shares that are not one above 0 for each part, or too small for a row.
    """
    if len(orders) == 1:
        if mix is not None:
            raise ConfigError("mix is given, and there is nothing to mix: give a list of student.part(...)")
        return orders[0]
    rows = [len(order) for order in orders]
    weights = list(map(float, rows if mix is None else mix))
    if len(weights) != len(orders) or not all(np.isfinite(weights)) or min(weights) <= 0:
        raise ConfigError(f"mix is {weights} for {len(orders)} parts; expected a number above 0 for each")
    takes = shares(sum(rows), weights)
    if 0 in takes:
        raise ConfigError(
            f"part {takes.index(0)} has no row in an epoch of {sum(rows)} by mix {weights}; leave it out, or "
            "give it more"
        )
    return MixedOrder(orders=orders, takes=takes)


def checked(parts: Sequence[Part], needs: Needs) -> tuple[Part, ...]:
    """The parts, seen to fit together and to have what a loss needs.

    Raises:
        ConfigError: They do not fit together.
        TransferSetError: No row has a label, and nothing else is needed.
    """
    if not parts or not all(isinstance(each, Part) for each in parts):
        raise ConfigError("expected a store, or a list of what student.part(...) gives")
    if needs not in get_args(Needs):
        raise ConfigError(f"needs is {needs!r}; expected one of {', '.join(get_args(Needs))}")
    names = [list(each.targets.store.class_names) for each in parts]
    if other := [number for number, each in enumerate(names) if each != names[0]]:
        first, second = (parts[number].targets.store for number in (0, other[0]))
        raise ConfigError(
            f"{first.uri} and {second.uri} have other classes ({len(names[0])} and {len(names[other[0]])}, "
            "or in another order), and cannot be mixed"
        )
    if len({each.inputs is None for each in parts}) > 1:
        raise ConfigError("some parts have inputs and some have none; they cannot be mixed")
    if len({each.views for each in parts}) > 1:
        listed = " and ".join(str(list(each.views)) for each in parts)
        raise ConfigError(
            f"parts that are mixed learn from views {listed}; give all the same ones (views=[...])"
        )
    if needs == "compressed" and len(parts) > 1:
        raise ConfigError("targets as they are stored cannot be mixed; take a loss that needs probabilities")
    if needs == "labels" and not any((each.rows.labels_N >= 0).any() for each in parts):
        raise TransferSetError("no row has a label, and the loss learns from labels alone")
    return tuple(parts)
