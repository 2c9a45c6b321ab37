"""Generalists and specialists at random, friendly and not, and the merge's objective as the paper has it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from softcask.pipeline.targets.specialists.class_sets import ClassSets
from softcask.pipeline.targets.specialists.members import Members

Floats = NDArray[np.float64]

DUSTBINS = (0.0, 1.0, 1e-30, 1e-9, 1 - 1e-9)


def distributions(random: np.random.Generator, rows: int, columns: int, scale: float) -> Floats:
    powers = np.exp(random.normal(size=(rows, columns)) * scale)
    return powers / powers.sum(-1, keepdims=True)


def with_dustbins(p_BK1: Floats, dustbin_B: Floats) -> Floats:
    """The same within the set, the dustbin's mass as given."""
    inside = p_BK1[:, :-1] / p_BK1[:, :-1].sum(-1, keepdims=True)
    return np.concatenate([inside * (1 - dustbin_B)[:, None], dustbin_B[:, None]], -1)


def with_zeros(random: np.random.Generator, p: Floats, share: float) -> Floats:
    """Some classes impossible, but never all."""
    kept = p * (random.random(p.shape) >= share)
    kept[np.arange(len(p)), p.argmax(-1)] = p.max(-1)
    return kept / kept.sum(-1, keepdims=True)


def random_sets(random: np.random.Generator, num_classes: int, count: int, overlapping: bool) -> ClassSets:
    if overlapping:
        sizes = random.integers(1, num_classes, count)
        return ClassSets.of(num_classes, [random.permutation(num_classes)[:size] for size in sizes])
    cuts = np.sort(random.choice(np.arange(1, num_classes), min(count, num_classes - 1), replace=False))
    return ClassSets.of(num_classes, np.split(random.permutation(num_classes), cuts)[:-1])


def random_members(seed: int, *, generalist: bool, overlapping: bool, rows: int = 10) -> Members[Floats]:
    """Any set sizes, sharp and flat opinions, extreme dustbins, impossible classes, weights, unseen rows."""
    random = np.random.default_rng([seed, generalist, overlapping])
    sets = random_sets(random, int(random.integers(3, 10)), int(random.integers(1, 5)), overlapping)
    scale, zeros = float(random.choice([0.5, 2.0, 6.0])), float(random.choice([0.0, 0.4]))
    specialists = []
    for classes in sets:
        p = with_zeros(random, distributions(random, rows, len(classes) + 1, scale), zeros)
        extreme = with_dustbins(
            distributions(random, rows, len(classes) + 1, 1), random.choice(DUSTBINS, rows)
        )
        specialists.append(np.where(random.random((rows, 1)) < 0.4, extreme, p))
    weighted = random.random() < 0.5
    return Members(
        sets=sets,
        specialists=tuple(specialists),
        generalist=(
            with_zeros(random, distributions(random, rows, sets.num_classes, scale), zeros)
            if generalist
            else None
        ),
        active_BM=random.random((rows, len(sets))) < 0.7 if random.random() < 0.5 else None,
        weights=tuple(random.uniform(0.2, 3, len(sets))) if weighted else None,
        generalist_weight=float(random.uniform(0.2, 3)) if weighted else 1.0,
    )


@dataclass(frozen=True)
class Opinion:
    """One member on one row: its weight, its probabilities by class, and what lies outside its classes."""

    weight: float
    p_C: Floats
    inside_C: NDArray[np.bool_]
    dustbin: float


def opinions(members: Members[Floats], row: int) -> list[Opinion]:
    """Who says what of a row, those that did not see it left out."""
    found = []
    C = members.sets.num_classes
    if members.generalist is not None:
        found.append(Opinion(members.generalist_weight, members.generalist[row], np.ones(C, bool), 0.0))
    weights = members.weights or (1.0,) * len(members.sets)
    for number, classes in enumerate(members.sets.sets):
        if members.active_BM is None or members.active_BM[row, number]:
            p_C, inside_C = np.zeros(C), np.zeros(C, bool)
            p_C[list(classes)] = members.specialists[number][row, :-1]
            inside_C[list(classes)] = True
            found.append(Opinion(weights[number], p_C, inside_C, float(members.specialists[number][row, -1])))
    return found


def objective(said: Iterable[Opinion], log_q_C: Floats) -> float:
    """`sum_m w_m KL(p^m, q)` without the entropies of the p, term by term."""
    total = 0.0
    for one in said:
        some = one.p_C > 0
        total -= one.weight * float(one.p_C[some] @ log_q_C[some])
        if one.dustbin > 0:
            total -= one.weight * one.dustbin * float(np.log(np.exp(log_q_C[~one.inside_C]).sum()))
    return total


def least_by_lbfgs(said: list[Opinion], num_classes: int) -> float:
    """The least objective that L-BFGS finds in float64, begun anew until that gains nothing.

    Over t with q = t^2 / sum t^2, which reaches a q of 0 at a finite t where logits would go on for ever.
    """

    def with_gradient(t_C: Floats) -> tuple[float, Floats]:
        with np.errstate(divide="ignore", invalid="ignore"):
            log_q_C = 2 * np.log(np.abs(t_C)) - np.log((t_C**2).sum())
            q_C = np.exp(log_q_C)
            by_log_q_C = np.zeros(num_classes)
            for one in said:
                outside_C = np.where(one.inside_C, 0.0, q_C)
                pulled_C = one.dustbin * outside_C / outside_C.sum() if one.dustbin > 0 else 0.0
                by_log_q_C += one.weight * ((one.p_C.sum() + one.dustbin) * q_C - one.p_C - pulled_C)
            return objective(said, log_q_C), np.where(t_C == 0, 0.0, 2 * by_log_q_C / t_C)

    t_C, least = np.ones(num_classes), np.inf
    for _ in range(20):
        found = minimize(
            with_gradient,
            t_C,
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 2000, "maxfun": 4000, "maxcor": 30, "ftol": 0.0, "gtol": 1e-13},
        )
        t_C, gained, least = found.x, least - found.fun, min(least, float(found.fun))
        if gained < 1e-13:
            break
    return least
