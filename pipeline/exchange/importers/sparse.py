"""The largest probabilities of a row, as others keep them: checked, and put into the codec `topk`.

What lies outside them is known by its sum alone, if at all. The codec spreads it evenly, which is true to the
sum at T=1 and to nothing else; its claim says so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softcask.storage_schemas.codecs.topk import LEAST, TopK
from softcask.storage_schemas.errors import ExchangeError

LEAST_MASS = 2.0**-24
"""Probability outside the known classes where these already sum to 1 or, by rounding, to more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopRows:
    """The known classes of B rows.

    Attributes:
        classes_BK: Indices.
        log_probs_BK: Their natural log-probabilities at T=1.
        tail_log_B: Log of the probability outside; None: what is missing to 1.
    """

    classes_BK: NDArray[Any]
    log_probs_BK: NDArray[np.floating]
    tail_log_B: NDArray[np.floating] | None = None


def checked(
    rows: TopRows,
    num_classes: int,
    place: Callable[[int], str],
    *,
    slack: float = 1e-3,
    monotone: bool = True,
) -> TopRows:
    """The same rows with rising classes, and a tail that makes none of its classes larger than a known one.

    Args:
        rows: What is known; untrusted.
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
    tail_B = _tail_mass(rows, log_BK, place, slack)
    others, least_B = num_classes - log_BK.shape[1], log_BK.min(axis=1)
    if others:
        _check_least(tail_B, least_B, others, place, slack)
    even_B = np.minimum(np.log(np.maximum(tail_B, LEAST_MASS)) - np.log(max(1, others)), least_B)
    order_BK = np.argsort(rows.classes_BK, axis=1)
    return TopRows(
        classes_BK=np.take_along_axis(rows.classes_BK, order_BK, axis=1).astype(np.int64),
        log_probs_BK=np.take_along_axis(log_BK, order_BK, axis=1),
        tail_log_B=even_B + np.log(max(1, others)),
    )


def columns_of(rows: TopRows, codec: TopK) -> dict[str, NDArray[Any]]:
    """What `codec`, made for T=1 alone and as many classes a row, keeps of checked rows.

    Its `encode` would want all classes, and to find the largest among them again.
    """
    log_BK, tail_log_B = rows.log_probs_BK, rows.tail_log_B
    below_BK = log_BK - log_BK.max(axis=1, keepdims=True)
    odds_B = np.full(len(log_BK), LEAST, dtype=np.float64)
    if tail_log_B is not None and codec.settings.head_size < codec.settings.num_classes:
        odds_B = np.maximum(tail_log_B - np.log(np.exp(log_BK).sum(axis=1)), LEAST)
    values = {"classes": rows.classes_BK, "logits": np.maximum(below_BK, LEAST), "tail": odds_B[:, None]}
    columns = codec.columns(codec.settings.num_classes)
    return {column.name: values[column.name].astype(column.dtype) for column in columns}


def even_rows(count: int, codec: TopK) -> TopRows:
    """Rows of which nothing is known, or to be known."""
    K, C = codec.settings.head_size, codec.settings.num_classes
    return TopRows(
        classes_BK=np.tile(np.arange(K), (count, 1)),
        log_probs_BK=np.full((count, K), -np.log(C)),
        tail_log_B=np.full(count, np.log(max(1, C - K) / C)),
    )


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
