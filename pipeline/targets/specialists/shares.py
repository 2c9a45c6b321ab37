r"""What each group of classes gets: the merge as a small convex problem, solved for all rows at once.

Classes that the same specialists know share one group. With `A_g` the mass that members give to the classes
of group g, `D_m` the mass of specialist m's dustbin, `N_gm` = 1 where g lies outside of `S_m`, all scaled to
a total of 1, the shares r of the groups are the minimum of

    J(r) = -sum_g A_g log r_g - sum_m D_m log Q_m,    Q = N' r,    sum_g r_g = 1,

which is convex in r (not in logits). With `l_m = D_m / Q_m` the minimum has `r_g = A_g / (1 - (N l)_g)`.

- The EM step `r <- A + r * (N l)` never raises J. Alone it takes hundreds of steps.
- The Newton step in `r * (1 + x)`, x held where a share would go below 0, takes a few. Its Hessian is
  `diag(A)` and M outer products: M unknowns are solved for a row, however many groups there are.

Every step is the better of the two, so that it converges from anywhere, and quadratically in the end. And
how far off it is need not be guessed: any l with `N l < 1` bounds J from below.
"""

from __future__ import annotations

from dataclasses import dataclass

from softcask.pipeline.targets.specialists.arrays import Array, namespace

MAX_STEPS = 100
"""More than any row was seen to need; a row that needs more says so by its gap."""

_SETTLED = 1e-6
"""A Newton step's largest relative change, after which the error is its square."""
_LENGTHS = (1.0, 0.3, 0.1, 0.03)
"""Of a Newton step: the next where one is not better for all rows."""
_NOISE = 1e-14
"""Of J: what rounding makes of it."""
_PATIENCE = 5
"""Steps without a gain in J: it does not feel small shares, and they may yet have some way to go."""
_DOWN, _UP = -0.99, 100.0
"""How far one Newton step may take a share."""
_BELOW_1 = 1 - 1e-14
_ROOM = 1 << 22
"""Numbers, of the largest array that is made on the way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Where the minimum was found, for B rows.

    Attributes:
        shares_BG: r, float64, each row of sum 1.
        steps_B: Steps that were taken.
        gap_B: Upper bound of `J(r) - min J`, float64.
    """

    shares_BG: Array
    steps_B: Array
    gap_B: Array


def least(mass_BG: Array, dustbin_BM: Array, outside_GM: Array, start_BG: Array) -> Shares:
    """The minimum of J for each row by itself.

    Args:
        mass_BG: A, float64, above 0.
        dustbin_BM: D, float64, 0 where a specialist takes no part; `sum_g A + sum_m D` is 1.
        outside_GM: N.
        start_BG: Where to begin: positive shares.
    """
    xp = namespace(mass_BG)
    shares_BG = _em(mass_BG, dustbin_BM, outside_GM, start_BG)
    B, (G, M) = len(mass_BG), outside_GM.shape
    steps_B = xp.zeros(B, dtype=xp.int64, device=mass_BG.device)
    at_once = max(1, _ROOM // (G * max(1, M)))
    for first in range(0, B if M else 0, at_once):
        rows = slice(first, first + at_once)
        shares_BG[rows], steps_B[rows] = _descend(
            mass_BG[rows], dustbin_BM[rows], outside_GM, shares_BG[rows], steps_B[rows]
        )
    return Shares(
        shares_BG=shares_BG, steps_B=steps_B, gap_B=_gap(mass_BG, dustbin_BM, outside_GM, shares_BG)
    )


def _descend(A: Array, D: Array, N: Array, r: Array, steps: Array) -> tuple[Array, Array]:
    """Steps until each row is settled; a row that is takes no part in the rest."""
    xp = namespace(A)
    J = _objective(A, D, N, r)
    going, idle = steps == 0, 0 * steps
    for _ in range(MAX_STEPS):
        if not bool(going.any()):
            break
        A_, D_, r_ = A[going], D[going], r[going]
        change = _newton(A_, D_, N, r_)
        r[going], J_ = _best(A_, D_, N, r_, change)
        settled = xp.amax(xp.abs(change), -1) <= _SETTLED
        idle_ = xp.where(J[going] - J_ < _NOISE, idle[going] + 1, 0)
        J[going], idle[going] = J_, idle_
        steps[going] += 1
        going[xp.asarray(going, copy=True)] = ~settled & (idle_ < _PATIENCE)
    return r, steps


def _best(A: Array, D: Array, N: Array, r: Array, change: Array) -> tuple[Array, Array]:
    """The shares after the best of the EM step and some lengths of the Newton step, and J there."""
    xp = namespace(A)
    best = _em(A, D, N, r)
    J = _objective(A, D, N, best)
    for length in _LENGTHS:
        tried = r * (1 + length * change)
        tried = tried / xp.sum(tried, -1)[:, None]
        J_tried = _objective(A, D, N, tried)
        # Near the minimum all are equal to J's last digit, and the Newton step is the better one.
        better = J_tried <= J + (_NOISE if length == 1 else -_NOISE)
        best, J = xp.where(better[:, None], tried, best), xp.where(better, J_tried, J)
        if bool(better.all()):
            break
    return best, J


def _newton(A: Array, D: Array, N: Array, r: Array) -> Array:
    """The relative change x of each share, within `_DOWN` and `_UP`.

    What would go further is held there, and the others are found again for that: cut off alone, a
    share on its way to nothing leaves the rest to make room for a change that does not come.
    """
    xp = namespace(A)
    change = _unbounded(A, D, N, r, 0 * r, r < 0)
    held = change < _DOWN
    if bool(held.any()):
        change = _unbounded(A, D, N, r, 0 * r + _DOWN, held)
    return xp.clip(change, _DOWN, _UP)


def _unbounded(A: Array, D: Array, N: Array, r: Array, given: Array, held: Array) -> Array:
    """X of `(diag(A) + U U') x = A - r (1 - N l)`, `U = r N sqrt(D) / Q`; as given, where it is held.

    By Woodbury's identity, `x = 1 - r/A * (1 - N l + N (t z))`, `t = sqrt(D) / Q`, z = U' x of M unknowns.
    """
    xp = namespace(A)
    Q = r @ N
    t = xp.sqrt(D) / Q
    slack = 1 - (D / Q) @ N.T
    ratio = r / A
    weight = xp.where(held, 0.0, r * ratio)
    system = (N.T @ (weight[:, :, None] * N)) * t[:, :, None] * t[:, None, :]
    system = system + xp.eye(N.shape[1], dtype=xp.float64, device=A.device)
    pulled = t * (xp.where(held, r * given, r - weight * slack) @ N)
    z = xp.linalg.solve(system, pulled[:, :, None])[:, :, 0]
    return xp.where(held, given, 1 - ratio * (slack + (t * z) @ N.T))


def _em(A: Array, D: Array, N: Array, r: Array) -> Array:
    return A + r * ((D / (r @ N)) @ N.T)


def _objective(A: Array, D: Array, N: Array, r: Array) -> Array:
    xp = namespace(A)
    return -xp.sum(A * xp.log(r), -1) - xp.sum(D * xp.log(r @ N), -1)


def _gap(A: Array, D: Array, N: Array, r: Array) -> Array:
    """`J(r)` less the dual at `c l`: `sum_g A_g log(A_g / (r_g (1 - c (N l)_g))) - log c sum_m D_m`.

    c <= 1 makes room where r is no minimum and `N l` exceeds 1.
    """
    xp = namespace(A)
    pull = (D / (r @ N)) @ N.T
    c = _BELOW_1 / xp.clip(xp.amax(pull, -1), _BELOW_1, None)
    slack = 1 - c[:, None] * pull
    return xp.sum(A * xp.log(A / (r * slack)), -1) - xp.log(c) * xp.sum(D, -1)
