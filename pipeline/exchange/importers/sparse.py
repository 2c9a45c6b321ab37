"""The largest probabilities of a row, as others keep them, checked and spread over all classes.

What lies outside them is known by its sum alone, if at all. It is spread evenly, which is true to the sum at
T=1 and to nothing else; the entry is kept with the codec `topk` at T=1, whose claim says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softcask.storage_schemas.errors import ExchangeError

LEAST_MASS = 2.0**-24
"""Probability outside the known classes where these already sum to 1 or, by rounding, to more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopRows:
    """The known classes of B rows.

    Attributes:
        classes_BK: Indices, untrusted.
        log_probs_BK: Their natural log-probabilities at T=1, untrusted.
        tail_log_B: Log of the probability outside; None: what is missing to 1.
    """

    classes_BK: NDArray[Any]
    log_probs_BK: NDArray[np.floating]
    tail_log_B: NDArray[np.floating] | None = None


def spread(
    rows: TopRows,
    num_classes: int,
    place: Callable[[int], str],
    *,
    slack: float = 1e-3,
    monotone: bool = True,
) -> NDArray[np.float32]:
    """Log-probabilities `[B, C]`: the known ones, and the rest evenly, never above the least known one.

    Args:
        rows: What is known.
        num_classes: C.
        place: File and row of the n-th of these rows, for messages.
        slack: How far a row's sum may be off by rounding.
        monotone: Whether probabilities must not rise along a row.

    Raises:
        ExchangeError: A class out of range or twice, a value that is no log-probability, an order that no
            writer gives, or a sum above 1; names file and row.
    """
    log_BK = rows.log_probs_BK.astype(np.float64)
    _check_classes(rows.classes_BK, num_classes, place)
    _check_values(log_BK, place, slack, monotone)
    others = num_classes - log_BK.shape[1]
    tail_B = _tail_mass(rows, log_BK, place, slack)
    spread_BC = np.empty((len(log_BK), num_classes), dtype=np.float32)
    if others:
        least_B = log_BK.min(axis=1)
        _check_least(tail_B, least_B, others, place, slack)
        # Below the least known one, so that whoever takes the largest finds those that are known.
        below_B = np.nextafter(least_B.astype(np.float32), np.float32(-np.inf))
        even_B = (np.log(np.maximum(tail_B, LEAST_MASS)) - np.log(others)).astype(np.float32)
        spread_BC[:] = np.minimum(even_B, below_B)[:, None]
    np.put_along_axis(spread_BC, rows.classes_BK.astype(np.int64), log_BK.astype(np.float32), axis=1)
    return spread_BC


def _check_classes(classes_BK: NDArray[Any], num_classes: int, place: Callable[[int], str]) -> None:
    wrong = (classes_BK < 0) | (classes_BK >= num_classes)
    for row in _first(wrong.any(axis=1)):
        found = classes_BK[row][wrong[row]][0]
        raise ExchangeError(
            f"{place(row)} names class {found}, expected 0 to {num_classes - 1}; is the number of classes "
            "right?"
        )
    sorted_BK = np.sort(classes_BK, axis=1)
    for row in _first((sorted_BK[:, 1:] == sorted_BK[:, :-1]).any(axis=1)):
        raise ExchangeError(f"{place(row)} names a class twice; expected each once")


def _check_values(
    log_BK: NDArray[np.float64], place: Callable[[int], str], slack: float, monotone: bool
) -> None:
    wrong = ~np.isfinite(log_BK) | (log_BK > slack)
    for row in _first(wrong.any(axis=1)):
        raise ExchangeError(
            f"{place(row)} holds {log_BK[row][wrong[row]][0]:.6g}, expected finite log-probabilities, none "
            "above 0"
        )
    for row in _first((np.diff(log_BK, axis=1) > 0).any(axis=1)) if monotone else ():
        raise ExchangeError(
            f"{place(row)} has probabilities that rise along the row; expected the largest first. Is the "
            "number of classes a row right?"
        )
    sum_B = np.exp(log_BK).sum(axis=1)
    for row in _first(sum_B > 1 + slack):
        raise ExchangeError(
            f"{place(row)} has probabilities that sum to {sum_B[row]:.6g}, expected at most 1 (and {slack:g} "
            "for rounding); these are not log-probabilities at T=1"
        )


def _tail_mass(
    rows: TopRows, log_BK: NDArray[np.float64], place: Callable[[int], str], slack: float
) -> NDArray[np.float64]:
    missing_B: NDArray[np.float64] = np.maximum(1 - np.exp(log_BK).sum(axis=1), 0)
    if rows.tail_log_B is None:
        return missing_B
    with np.errstate(over="ignore"):
        tail_B: NDArray[np.float64] = np.exp(rows.tail_log_B.astype(np.float64))
    for row in _first(~(np.abs(tail_B - missing_B) <= slack)):
        raise ExchangeError(
            f"{place(row)} has {tail_B[row]:.6g} outside its classes, where {missing_B[row]:.6g} are missing "
            "to 1; these are not log-probabilities at T=1"
        )
    return tail_B


def _check_least(
    tail_B: NDArray[np.float64],
    least_B: NDArray[np.float64],
    others: int,
    place: Callable[[int], str],
    slack: float,
) -> None:
    for row in _first(tail_B - others * np.exp(least_B) > slack):
        raise ExchangeError(
            f"{place(row)} leaves {tail_B[row]:.6g} to {others} other classes, more for each than the least "
            f"of its own has ({np.exp(least_B[row]):.3g}); its classes are not the largest, or these are not "
            "log-probabilities at T=1"
        )


def _first(wrong_B: Any) -> list[int]:
    return [int(row) for row in np.flatnonzero(wrong_B)[:1]]
