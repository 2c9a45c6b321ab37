"""From a specialist's logits to what it says in a merge: two ways to come by its dustbin.

A dustbin that is one trained logit learns from a training set that has more of the specialist's classes than
the world has. Section 5.2 of the paper corrects it by the log of that ratio. The other way trains no
dustbin: its logit is that of all the generalist's classes outside of the set together, so that a specialist
which starts from the generalist's weights starts exactly at the generalist's opinion.
"""

from __future__ import annotations

import math

from softcask.pipeline.targets.specialists.arrays import ArrayT, double, like, logsumexp, namespace
from softcask.pipeline.targets.specialists.class_sets import ClassSets
from softcask.storage_schemas.errors import SpecialistsError


def trained_dustbin(logits_BK1: ArrayT, *, oversampling: float = 1.0) -> ArrayT:
    """`softmax` of the logits, `log oversampling` added to the last one (section 5.2 of the paper).

    Args:
        logits_BK1: The set's classes, then the dustbin.
        oversampling: How much more often the specialist's classes came in its training than in the world,
            beside the others: half and half, where the world has 0.01 and 0.99, make 99.

    Returns:
        `[B, K + 1]`, float64.

    Raises:
        SpecialistsError: The ratio is no finite number above 0.
    """
    if not (math.isfinite(oversampling) and oversampling > 0):
        raise SpecialistsError(f"oversampling is {oversampling!r}; expected a finite number above 0")
    logits: ArrayT = double(logits_BK1)
    return _softmax(logits[:, :-1], logits[:, -1] + math.log(oversampling))


def generalists_dustbin(
    logits_BK: ArrayT, generalist_logits_BC: ArrayT, sets: ClassSets, number: int
) -> ArrayT:
    """`softmax` of the set's logits beside `logsumexp` of the generalist's logits of all other classes.

    Args:
        logits_BK: The specialist's, of its set's classes in their order, and on the generalist's scale: it
            was trained with this very dustbin.
        generalist_logits_BC: Of the same rows.
        sets: The class sets.
        number: Which of them the specialist has.

    Returns:
        `[B, K + 1]`, float64.
    """
    outside = like(generalist_logits_BC, (~sets.holds_MC[number]).nonzero()[0])
    inside: ArrayT = double(logits_BK)
    p_BK1: ArrayT = _softmax(inside, logsumexp(double(generalist_logits_BC)[:, outside]))
    return p_BK1


def _softmax(logits_BK: ArrayT, dustbin_B: ArrayT) -> ArrayT:
    xp = namespace(logits_BK)
    logits = xp.concat((logits_BK, dustbin_B[:, None]), -1)
    p_BK1: ArrayT = xp.exp(logits - logsumexp(logits)[:, None])
    return p_BK1
