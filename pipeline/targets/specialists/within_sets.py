"""Rules that leave each set the mass the generalist gives it: specialists say how it is shared out within.

A specialist revises the generalist inside its set: `u^m` is a weighted mean, arithmetic or geometric, of
what both say of the classes there given that it is one of them, times P, the generalist's mass of the set.
So a dustbin counts for nothing. A class takes its specialist's revision, or where sets overlap the mean, of
the same kind, of its specialists'; what is held by anyone is then scaled to the mass that the generalist
gives it. A class that no specialist who saw the row knows keeps its probability, and where a specialist
gives its set nothing at all, or nothing that the geometric rule could keep, it leaves it as it is.

The paper does not have these rules (its section 5.4 minimises a sum of divergences, see `kl`).
"""

from __future__ import annotations

from dataclasses import dataclass

from softcask.pipeline.targets.specialists.arrays import Array, ArrayT, double, log, namespace
from softcask.pipeline.targets.specialists.members import Members
from softcask.storage_schemas.errors import SpecialistsError


def arithmetic(members: Members[ArrayT]) -> ArrayT:
    """`u^m_i = P (w_g p^g_i / P + w_m p^m_i / (1 - d_m)) / (w_g + w_m)`.

    Returns:
        `log q`, `[B, C]`, of the members' dtype.

    Raises:
        SpecialistsError: There is no generalist, whose masses are to be kept.
    """
    return _revised(members, _Mean(logs=False))


def geometric(members: Members[ArrayT]) -> ArrayT:
    """`u^m_i` in proportion to `(p^g_i)^(1 - s) (p^m_i)^s`, `s = w_m / (w_g + w_m)`, of sum P.

    Returns:
        `log q`, `[B, C]`, of the members' dtype.

    Raises:
        SpecialistsError: There is no generalist, whose masses are to be kept.
    """
    return _revised(members, _Mean(logs=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mean:
    """A mean of probabilities themselves, or of their logs."""

    logs: bool

    def to(self, p: Array) -> Array:
        return log(p) if self.logs else p

    def back(self, mean: Array) -> Array:
        return namespace(mean).exp(mean) if self.logs else mean


def _revised(members: Members[ArrayT], mean: _Mean) -> ArrayT:
    if members.generalist is None:
        raise SpecialistsError(
            "these rules keep the mass that a generalist gives to each set, and there is none; give one, or "
            "merge by the rule kl"
        )
    generalist_BC = double(members.generalist)
    xp = namespace(generalist_BC)
    sum_BC, weight_BC = members.zeros(members.sets.num_classes), members.zeros(members.sets.num_classes)
    for number, (classes, weight) in enumerate(zip(members.sets, members.specialist_weights, strict=True)):
        index = members.like(classes)
        share = weight / (weight + members.generalist_weight)
        revised_BK, speaks_B = _revision(generalist_BC[:, index], members.seen(number)[:, :-1], share, mean)
        sum_BC[:, index] += xp.where(speaks_B[:, None], weight * mean.to(revised_BK), 0.0)
        weight_BC[:, index] += weight * double(speaks_B)[:, None]
    held_BC = weight_BC > 0
    value_BC = xp.where(held_BC, mean.back(sum_BC / xp.where(held_BC, weight_BC, 1.0)), 0.0)
    kept_BC, some_B = _scaled(value_BC, xp.sum(xp.where(held_BC, generalist_BC, 0.0), -1))
    q_BC = xp.where(held_BC & some_B[:, None], kept_BC, generalist_BC)
    revised: ArrayT = xp.asarray(log(q_BC / xp.sum(q_BC, -1)[:, None]), dtype=members.dtype)
    return revised


def _revision(g_BK: Array, s_BK: Array, share: float, mean: _Mean) -> tuple[Array, Array]:
    """u, and whether it is to count."""
    given_g, g_any = _scaled(g_BK, 1.0)
    given_s, s_any = _scaled(s_BK, 1.0)
    both = mean.back((1 - share) * mean.to(given_g) + share * mean.to(given_s))
    revised, any_left = _scaled(both, namespace(g_BK).sum(g_BK, -1))
    return revised, g_any & s_any & any_left


def _scaled(values: Array, total_B: Array | float) -> tuple[Array, Array]:
    """Rows scaled to a sum, and whether they have one that is not 0."""
    xp = namespace(values)
    sum_B = xp.sum(values, -1)
    factor_B = total_B / xp.where(sum_B > 0, sum_B, 1.0)
    return values * factor_B[:, None], sum_B > 0
