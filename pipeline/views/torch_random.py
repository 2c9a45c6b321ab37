"""torch's random functions, fed from a generator of one's own, for whoever cannot be handed one.

Transforms draw from torch's global generator. Seeding that would change what others draw at the same time:
dropout, in the thread that trains while this one prepares the next batch. A mode of torch's sees every call
of this thread alone, and puts the generator in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class SeededTorch(TorchFunctionMode):
    """While entered, what this thread draws through torch follows from a seed; all else is untouched.

    What draws without taking a generator (dropout, say) is refused.
    """

    def __init__(self, seed: int) -> None:
        """Begin a stream of random numbers.

        Args:
            seed: From 0 to 2^63 - 1.
        """
        super().__init__()
        self._generator = torch.Generator().manual_seed(seed)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call `func` with the generator if it draws (torch's hook)."""
        given = dict(kwargs or {})
        if func in _like():
            return _like()[func](*args, generator=self._generator, **given)
        if func in _drawing() and given.get("generator") is None:
            given["generator"] = self._generator
        elif func in _cannot():
            raise RuntimeError(
                f"{func.__name__} draws random numbers and takes no generator, so that nothing could "
                f"replay it"
            )
        return func(*args, **given)


@cache
def _drawing() -> frozenset[Callable[..., Any]]:
    """Functions that draw, and take `generator=`."""
    of_torch = ("rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson")
    private = ("_sample_dirichlet", "_standard_gamma", "binomial")
    in_place = (
        "uniform",
        "normal",
        "random",
        "exponential",
        "bernoulli",
        "geometric",
        "log_normal",
        "cauchy",
    )
    methods = [*(f"{name}_" for name in in_place), "bernoulli", "multinomial"]
    found = [getattr(torch, name, None) for name in (*of_torch, *private)]
    found += [getattr(torch.Tensor, name) for name in methods]
    return frozenset(each for each in found if each is not None)


@cache
def _like() -> dict[Callable[..., Any], Callable[..., torch.Tensor]]:
    """Functions that draw in the shape of a tensor, and took no generator before torch 2.9 or so."""
    return {torch.rand_like: _uniform_like, torch.randn_like: _normal_like}


@cache
def _cannot() -> frozenset[Callable[..., Any]]:
    names = ("dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout", "rrelu", "randint_like")
    functional, both = torch.nn.functional, (*names, *(f"{name}_" for name in names))
    found = [getattr(place, name, None) for place in (torch, functional) for name in both]
    return frozenset(each for each in found if each is not None)


def _uniform_like(like: torch.Tensor, *, generator: torch.Generator, **given: Any) -> torch.Tensor:
    return torch.empty_like(like, **given).uniform_(generator=generator)


def _normal_like(like: torch.Tensor, *, generator: torch.Generator, **given: Any) -> torch.Tensor:
    return torch.empty_like(like, **given).normal_(generator=generator)
