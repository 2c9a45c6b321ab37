"""Entries made from entries: another codec for a teacher, or several teachers as one. No teacher is run.

What a derived entry was made from is in its fingerprint, so that its name can stand for nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from softcask.pipeline.codec_choice.choose import choose
from softcask.pipeline.codec_choice.request import CodecRequest
from softcask.pipeline.codec_choice.trials import run_trials
from softcask.pipeline.codec_choice.worker import split
from softcask.pipeline.entries import Filled, LogitsOf, encoding, entry_manifest, fill_entry
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.store.reading.reader import Store, open_store
from softcask.pipeline.targets.soft_targets import normalised
from softcask.storage_schemas import keys
from softcask.storage_schemas.absent import without_absent
from softcask.storage_schemas.codecs.base import Codec
from softcask.storage_schemas.codecs.registry import codec_named
from softcask.storage_schemas.codecs.topk import Settings, TopK
from softcask.storage_schemas.errors import ExchangeError, IncompleteStore, UnknownKind
from softcask.storage_schemas.fingerprint import canonical, digest
from softcask.storage_schemas.manifest import Fidelity, TeacherManifest

DENSE = ("dense16", "dense8")
"""Codecs that keep every class's logit: what is made from them loses next to nothing twice."""

_SAMPLE_BYTES = 1 << 30
_FEWEST_ROWS = 2
_HEAD = 64
"""Logits a row that `topk` keeps where nothing is said."""

Combine = Callable[[NDArray[np.float32], NDArray[np.float64]], NDArray[np.float32]]
"""Logits `[M, B, C]` and weights `[M]` of sum 1 -> logits `[B, C]` of the one that stands for all."""
_LogitsInView = Callable[[NDArray[np.int64], int], NDArray[np.float32]]


def log_mean(logits_MBC: NDArray[np.float32], weights_M: NDArray[np.float64]) -> NDArray[np.float32]:
    """`log sum_m w_m softmax(z_m)`: the arithmetic mean at T=1, as logits.

    Tempered, it is the mean tempered, not the mean of what is tempered: at other T a student of it learns
    something else than from `rule = "mean"` over the members.
    """
    log_BC = np.full(logits_MBC.shape[1:], -np.inf)
    for logits_BC, weight in zip(logits_MBC, weights_M, strict=True):
        shifted_BC = logits_BC - logits_BC.max(axis=1, keepdims=True).astype(np.float64)
        log_sum_B = np.log(np.exp(shifted_BC).sum(axis=1, keepdims=True))
        np.logaddexp(log_BC, np.log(weight) + shifted_BC - log_sum_B, out=log_BC)
    return log_BC.astype(np.float32)


def mean_of_logits(logits_MBC: NDArray[np.float32], weights_M: NDArray[np.float64]) -> NDArray[np.float32]:
    """`sum_m w_m z_m`: the geometric mean of the members' probabilities, at any T."""
    mean_BC: NDArray[np.float64] = np.einsum("mbc,m->bc", logits_MBC, weights_M, dtype=np.float64)
    return mean_BC.astype(np.float32)


COMBINE: dict[str, Combine] = {"geometric": mean_of_logits, "mean": log_mean}


def reencode(
    uri: str,
    *,
    teacher: str,
    into: str,
    request: CodecRequest,
    allow_lossy: bool = False,
    objects: StoreObjects | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Filled:
    """Keep a teacher's logits with another codec, under another name.

    Args:
        uri: The store.
        teacher: Whose stored logits.
        into: Name of the new entry.
        request: The codec or the budget; what needs a fit is fitted on stored rows.
        allow_lossy: Also from a codec that lost more than `DENSE` ones do.
        objects: The store's objects, if not those at `uri`.
        progress: Called with rows done and rows in all.

    Raises:
        ExchangeError: The source lost too much, or the name is the source's own.
        IncompleteStore: The source is not labelled as a whole.
        ConfigError: No codec meets the budget.
        ManifestMismatch: `into` stands for something else.
    """
    store = open_store(uri, allow_partial=True)
    _check_sources(store, [teacher], into, allow_lossy)
    return _derive(
        store,
        [teacher],
        into,
        lambda rows_B, view: _logits(store, teacher, rows_B, view),
        request,
        operation="reencode",
        parameters={},
        objects=objects or store.objects,
        progress=progress,
    )


def combine(
    uri: str,
    *,
    teachers: Sequence[str],
    rule: str,
    into: str,
    request: CodecRequest,
    weights: Sequence[float] | None = None,
    allow_lossy: bool = False,
    objects: StoreObjects | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Filled:
    """Keep several teachers as one entry.

    Args:
        uri: The store.
        teachers: Whose stored logits, two or more.
        rule: One of `COMBINE`.
        into: Name of the new entry.
        request: The codec or the budget.
        weights: One a teacher, above 0, of any sum; None weighs them equally.
        allow_lossy: Also from codecs that lost more than `DENSE` ones do.
        objects: The store's objects, if not those at `uri`.
        progress: Called with rows done and rows in all.

    Raises:
        UnknownKind: No such rule.
        ConfigError: Weights that do not fit, or no codec meets the budget.
        ExchangeError: A source lost too much, is named twice, is over other classes, or has the entry's name.
        IncompleteStore: A source is not labelled as a whole.
        ManifestMismatch: `into` stands for something else.
    """
    if rule not in COMBINE:
        raise UnknownKind(f"unknown rule {rule!r}; known rules: {', '.join(sorted(COMBINE))}")
    store = open_store(uri, allow_partial=True)
    _check_sources(store, teachers, into, allow_lossy)
    weights_M = normalised(weights, teachers).astype(np.float64)
    return _derive(
        store,
        teachers,
        into,
        lambda rows_B, view: COMBINE[rule](
            np.stack([_logits(store, name, rows_B, view) for name in teachers]), weights_M
        ),
        request,
        operation="combine",
        parameters={"rule": rule, "weights": weights_M.tolist()},
        objects=objects or store.objects,
        progress=progress,
    )


def _check_sources(store: Store, teachers: Sequence[str], into: str, allow_lossy: bool) -> None:
    keys.checked_name(into)
    if into in teachers:
        raise ExchangeError(f"{into!r} is the name of a teacher it would be made from; give it another")
    if len(set(teachers)) < len(teachers):
        raise ExchangeError(f"a teacher is named twice in {', '.join(teachers)}; give it a larger weight")
    for name in teachers:
        manifest = store.teacher(name)
        if not store.codec(name).keeps_logits:
            raise ExchangeError(
                f"teacher {name!r} is kept with {manifest.codec.name}, which holds at one temperature at a "
                "time: nothing can be made of it that holds at others. Label it anew with another codec"
            )
        if manifest.codec.name not in DENSE and not allow_lossy:
            raise ExchangeError(
                f"teacher {name!r} is kept with {manifest.codec.name}, and what it lost would be lost again: "
                f"expected one of {', '.join(DENSE)}. Label it anew with another codec, or accept that with "
                "--allow-lossy"
            )
        if manifest.num_classes != store.teacher(teachers[0]).num_classes:
            raise ExchangeError(
                f"teacher {name!r} has {manifest.num_classes} classes, {teachers[0]!r} has "
                f"{store.teacher(teachers[0]).num_classes}; only teachers over the same can be combined"
            )
        if manifest.absent_classes != store.teacher(teachers[0]).absent_classes:
            raise ExchangeError(
                f"teachers {name!r} and {teachers[0]!r} lack different classes (-inf in every row); only "
                "those that lack the same ones can become one"
            )
        if missing := store.missing_units(name):
            raise IncompleteStore(
                f"teacher {name!r} of {store.uri} lacks {len(missing)} units, the first of segment "
                f"{missing[0][0]}; run `softcask precompute` to label them, then this again"
            )


def _derive(
    store: Store,
    teachers: Sequence[str],
    into: str,
    logits_of: _LogitsInView,
    request: CodecRequest,
    *,
    operation: str,
    parameters: Mapping[str, Any],
    objects: StoreObjects,
    progress: Callable[[int, int], None] | None,
) -> Filled:
    fingerprint = {
        "operation": operation,
        **parameters,
        "codec_request": request.facts(),
        "derived_from": [_source(store.teacher(name)) for name in teachers],
    }
    wanted = store.teachers.get(into)
    if wanted is None or wanted.kind != "derived" or wanted.fingerprint != canonical(fingerprint):
        classes, absent = store.teacher(teachers[0]).num_classes, store.teacher(teachers[0]).absent_classes
        codec, expected, reason = _codec(
            store,
            lambda rows_B: without_absent(logits_of(rows_B, 0), absent),
            request.resolved(classes),
            classes - len(absent),
            into,
        )
        wanted = entry_manifest(
            objects,
            into,
            kind="derived",
            num_classes=classes,
            codec=codec,
            fingerprint=fingerprint,
            recorded={"codec": {"reason": reason}} if reason else {},
            expected=expected,
            stats=all(store.teacher(name).stats for name in teachers),
            absent=absent,
        )
    encode_of = {
        view: encoding(objects, wanted, partial(_in_view, logits_of, view))
        for view in store.complete_views(teachers)
    }
    return fill_entry(store, wanted, encode_of.pop(0), views=encode_of, objects=objects, progress=progress)


def _in_view(logits_of: _LogitsInView, view: int, rows_B: NDArray[np.int64]) -> NDArray[np.float32]:
    return logits_of(rows_B, view)


def _logits(store: Store, teacher: str, rows_B: NDArray[np.int64], view: int) -> NDArray[np.float32]:
    """Raw logits; of a codec that keeps no row's constant, those whose largest is 0: as good at any T."""
    if store.codec(teacher).keeps_row_max:
        return store.logits(teacher, rows_B, view=view)
    return store.logits_at(teacher, rows_B, 1.0, view=view)


def _source(teacher: TeacherManifest) -> dict[str, Any]:
    return {
        "teacher": teacher.name,
        "fingerprint": digest(teacher.fingerprint),
        "codec": teacher.codec.model_dump(mode="json"),
    }


def _codec(
    store: Store, logits_of: LogitsOf, request: CodecRequest, classes: int, into: str
) -> tuple[Codec, tuple[Fidelity, ...], str]:
    """The codec asked for, fitted on stored rows if it needs that; how well it did on others; and why it."""
    if not request.needs_trial:
        if request.name == TopK.name:
            head = min(request.k or _HEAD, classes)
            return TopK(settings=Settings(num_classes=classes, head_size=head)), (), ""
        return codec_named(str(request.name))(), (), ""
    most = min(len(store.rows), request.rows, max(2, _SAMPLE_BYTES // (4 * classes)))
    sampled_R = np.unique(np.linspace(0, len(store.rows) - 1, most).astype(np.int64))
    if len(sampled_R) < _FEWEST_ROWS:
        raise ExchangeError(
            f"{store.uri} has {len(sampled_R)} rows; at least {_FEWEST_ROWS} to try codecs on"
        )
    trials = list(run_trials(request, split(logits_of(sampled_R))))
    best, reason = choose(request, trials, into)
    return best.codec, best.expected(), reason
