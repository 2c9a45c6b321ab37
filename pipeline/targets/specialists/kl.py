r"""The paper's rule: the q nearest to all members in Kullback-Leibler divergence (section 5.4, equation 5).

q minimises `w_g KL(p^g, q) + sum_m w_m KL(p^m, q)` over the specialists that saw the row; q's dustbin for
specialist m is the sum of q outside of `S_m`. With `a_i = w_g p^g_i + sum over m with i in S_m of w_m
p^m_i`, the q of classes that the same specialists know are to each other as their a. What a group of such
classes gets in all is found by `shares.least`.

Where no member gives a group any mass (classes that nobody knows, when there is no generalist) only dustbins
speak of it, and they do not say how their mass is spread. A prior does, as one more member that speaks of
such groups alone. Its weight is 1e-12 of the others' by default: of all minima it chooses the one nearest to
the prior, and costs the others' objective no more than that. A class that nobody gives mass to, in a group
that has some, is impossible, and its log q is -inf.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Generic

import numpy as np
from numpy.typing import NDArray

from softcask.pipeline.targets.specialists.arrays import Array, ArrayT, double, log, namespace
from softcask.pipeline.targets.specialists.members import Members
from softcask.pipeline.targets.specialists.shares import least
from softcask.storage_schemas.errors import SpecialistsError

VANISHING = 1e-12
"""Weight of the prior beside all members, by default and at the least."""

_SILENT = 1e-200
"""Mass below which a group has none: squares of what is less are 0."""
_LEAST_PRIOR = 1e-100


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged(Generic[ArrayT]):
    """The merged distribution of B rows, and how sure it is.

    Attributes:
        log_q_BC: `log q`, natural, of the members' dtype (float64 if any is, or else float32).
        steps_B: Steps that each row took.
        gap_B: Upper bound, in nats, of how far the weighted sum of the members' divergences lies above the
            least there is. Float64.
    """

    log_q_BC: ArrayT
    steps_B: ArrayT
    gap_B: ArrayT


def merge(
    members: Members[ArrayT], *, prior_C: NDArray[np.float64] | None = None, prior_weight: float = VANISHING
) -> Merged[ArrayT]:
    """The q nearest to all members, at T = 1.

    Args:
        members: Who says what.
        prior_C: How likely classes are of which nobody says anything, positive; None: all equally.
        prior_weight: What the prior counts, for those classes alone, in parts of all members' weights.

    Raises:
        SpecialistsError: The prior or its weight cannot be used.
    """
    prior_C = members.like(_checked(prior_C, prior_weight, members.sets.num_classes))
    groups = members.sets.groups
    group_C, in_group_CG = members.like(groups.group_C), members.like(groups.in_group_CG)
    mass_BC, dustbin_BM = _pooled(members)
    mass_BG = mass_BC @ in_group_CG
    prior_G = prior_C @ in_group_CG

    xp = namespace(mass_BC)
    silent_BG = mass_BG <= _SILENT
    said_B = xp.sum(mass_BG, -1) + xp.sum(dustbin_BM, -1)
    said_B = xp.where(said_B > 0, said_B, 1.0)
    filled_BG = xp.where(silent_BG, prior_weight * said_B[:, None] * prior_G, mass_BG)
    extra_B = xp.sum(xp.where(silent_BG, filled_BG, 0.0), -1)
    total_B = xp.sum(filled_BG, -1) + xp.sum(dustbin_BM, -1)
    # A dustbin's mass is likely to end in silent groups: begun at next to nothing, they would take long.
    start_BG = filled_BG + silent_BG * prior_G * xp.sum(dustbin_BM, -1)[:, None]
    found = least(
        filled_BG / total_B[:, None],
        dustbin_BM / total_B[:, None],
        members.like(groups.outside_GM),
        start_BG,
    )
    within_BC = _log_within(mass_BC, mass_BG, silent_BG, prior_C, prior_G, group_C)
    log_q_BC = within_BC + xp.log(found.shares_BG)[:, group_C]
    return Merged(
        log_q_BC=xp.asarray(log_q_BC, dtype=members.dtype),
        steps_B=found.steps_B,
        gap_B=found.gap_B * total_B + extra_B,
    )


def _pooled(members: Members[ArrayT]) -> tuple[Array, Array]:
    """A `[B, C]`, and the weighted mass of each dustbin `[B, M]`."""
    mass_BC, dustbin_BM = members.zeros(members.sets.num_classes), members.zeros(len(members.sets))
    if members.generalist is not None:
        mass_BC = members.generalist_weight * double(members.generalist)
    for number, (classes, weight) in enumerate(zip(members.sets, members.specialist_weights, strict=True)):
        said = weight * members.seen(number)
        mass_BC[:, members.like(classes)] += said[:, :-1]
        dustbin_BM[:, number] = said[:, -1]
    return mass_BC, dustbin_BM


def _log_within(
    mass_BC: Array, mass_BG: Array, silent_BG: Array, prior_C: Array, prior_G: Array, group_C: Array
) -> Array:
    """Log of each class's part of its group: as members say, or the prior where they do not."""
    xp = namespace(mass_BC)
    within_BC = log(mass_BC) - xp.log(xp.where(silent_BG, 1.0, mass_BG))[:, group_C]
    if not bool(silent_BG.any()):
        return within_BC
    return xp.where(silent_BG[:, group_C], xp.log(prior_C / prior_G[group_C]), within_BC)


def _checked(
    prior_C: NDArray[np.float64] | None, prior_weight: float, num_classes: int
) -> NDArray[np.float64]:
    prior_C = np.ones(num_classes) if prior_C is None else np.asarray(prior_C, np.float64)
    usable = prior_C.shape == (num_classes,) and np.isfinite(prior_C).all() and (prior_C > 0).all()
    if not usable or (prior_C / prior_C.sum()).min() < _LEAST_PRIOR:
        raise SpecialistsError(
            f"the prior is of shape {list(prior_C.shape)} with least value {prior_C.min(initial=np.inf)!r}; "
            f"expected {num_classes} finite numbers above 0, one a class, none under {_LEAST_PRIOR} of all"
        )
    if not (math.isfinite(prior_weight) and prior_weight >= VANISHING):
        raise SpecialistsError(
            f"prior_weight is {prior_weight!r}; expected a finite number of at least {VANISHING}"
        )
    normalised: NDArray[np.float64] = prior_C / prior_C.sum()
    return normalised
