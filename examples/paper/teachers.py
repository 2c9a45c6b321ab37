"""Trains the nets that label: the user's own script, which softcask knows nothing of.

The paper's large net (section 3): two hidden layers of 1200 rectified linear units, dropout of inputs and
hidden units, an upper bound on the length of each unit's incoming weights, and images jittered by up to two
pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from examples.mnist.models import mlp
from examples.paper.rows import Digits
from softcask.pipeline.student.options import OptimiserOptions
from softcask.pipeline.student.training.checkpoints import (
    Kept,
    TrainingState,
    check_identity,
    read_state,
    restore,
    save_checkpoint,
)
from softcask.pipeline.student.training.optimisers import learning_rate, set_learning_rate
from softcask.pipeline.student.training.process import Clock, seed_torch
from softcask.storage_schemas.fingerprint import canonical

_EPOCHS_A_CHECKPOINT = 5
_NOTHING_ELSE = Kept(losses=torch.empty(0), random={})  # each epoch is seeded anew


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a net is trained.

    Attributes:
        hidden_sizes: Units of each hidden layer.
        epochs: Passes over the rows.
        batch_size: Rows a step.
        lr: Highest learning rate of Adam; up to it within a tenth of all steps and down to 0, both by cosine.
        input_dropout: Share of pixels that are set to 0 in each step.
        hidden_dropout: Share of hidden units.
        max_norm: Longest vector of a unit's incoming weights; None: no bound.
        jitter: Pixels that an image is moved by at most, along both axes.
        seed: Decides initial weights, order, jitter and dropout.
    """

    hidden_sizes: Sequence[int] = (1200, 1200)
    epochs: int
    batch_size: int = 256
    lr: float = 1.5e-3
    input_dropout: float = 0.1
    hidden_dropout: float = 0.3
    max_norm: float | None = 3.0
    jitter: int = 2
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A net and what it took.

    Attributes:
        net: Without dropout: `examples.mnist.models:mlp`.
        seconds: Wall time, in all processes that took part.
        cpu_seconds: CPU time of the same.
    """

    net: nn.Sequential
    seconds: float
    cpu_seconds: float


def train(recipe: Recipe, digits: Digits, checkpoint: Path) -> Trained:
    """Train a net from labels, or go on from `checkpoint`, which is written every few epochs."""
    torch.manual_seed(recipe.seed)
    net = mlp(recipe.hidden_sizes)
    optimiser = torch.optim.Adam(net.parameters(), lr=recipe.lr, fused=True)
    identity = canonical(asdict(recipe))
    state = read_state(checkpoint) or TrainingState(identity=identity, dtype="float32")
    if state.epoch:
        check_identity(checkpoint, state, identity)
        restore(checkpoint, net, optimiser)
    clock = Clock(seconds=state.seconds, cpu_seconds=state.cpu_seconds)
    images = Jittered(torch.from_numpy(digits.images_N), recipe.jitter)
    labels_N = torch.from_numpy(digits.labels_N)
    for epoch in range(state.epoch, recipe.epochs):
        loss = _train_epoch(net, optimiser, images, labels_N, recipe, epoch)
        seconds, cpu_seconds = clock.read()
        state = replace(state, epoch=epoch + 1, loss=loss, seconds=seconds, cpu_seconds=cpu_seconds)
        if state.epoch % _EPOCHS_A_CHECKPOINT == 0:
            print(
                f"  epoch {state.epoch} of {recipe.epochs}: loss {loss:.4f}, {cpu_seconds:.0f} s", flush=True
            )
            save_checkpoint(checkpoint, net, optimiser, state, _NOTHING_ELSE)
    return Trained(net=net, seconds=state.seconds, cpu_seconds=state.cpu_seconds)


def _train_epoch(
    net: nn.Sequential,
    optimiser: torch.optim.Optimizer,
    images: Jittered,
    labels_N: Tensor,
    recipe: Recipe,
    epoch: int,
) -> float:
    """Train one epoch; its mean loss."""
    seed_torch(recipe.seed, epoch)  # a training that goes on draws what it would have drawn
    schedule = OptimiserOptions(lr=recipe.lr, schedule="one_cycle", warmup=0.1)
    batches = torch.split(torch.randperm(len(labels_N)), recipe.batch_size)
    thin = recipe.input_dropout > 0 or recipe.hidden_dropout > 0
    losses = []
    for number, rows_B in enumerate(batches):
        step = epoch * len(batches) + number
        set_learning_rate(optimiser, learning_rate(schedule, step, recipe.epochs * len(batches)))
        inputs_B = images.draw(rows_B)
        logits_BC = thinned(net, inputs_B, recipe) if thin else net(inputs_B)
        loss = functional.cross_entropy(logits_BC, labels_N[rows_B])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if recipe.max_norm is not None:
            bound_norms(net, recipe.max_norm)
        losses.append(loss.detach())
    return float(torch.stack(losses).mean())


class Jittered:
    """Images that are moved by a few pixels when they are drawn; what comes in at an edge is 0."""

    def __init__(self, images_N: Tensor, most: int) -> None:
        """Pad once, so that a moved image is a window of the padded one.

        Args:
            images_N: uint8 `[N, 28, 28]`.
            most: Pixels, along each axis.
        """
        size = images_N.shape[-1]
        padded_N = functional.pad(images_N, (most, most, most, most))
        self._windows = padded_N.unfold(1, size, 1).unfold(2, size, 1)  # a view [N, shifts, shifts, 28, 28]
        self._shifts = 2 * most + 1

    def draw(self, rows_B: Tensor) -> Tensor:
        """Rows as float32 `[B, 784]` in [0, 1], each moved by an offset of its own."""
        down_B, right_B = torch.randint(self._shifts, (2, len(rows_B)))
        return self._windows[rows_B, down_B, right_B].flatten(1).float().div_(255)


def thinned(net: nn.Sequential, inputs_B: Tensor, recipe: Recipe) -> Tensor:
    """Logits `[B, C]` of a net that lacks a share of its pixels and hidden units, scaled to their full sum.

    The same units are missing for the whole batch, so that only parts of the weights are multiplied: half
    the work of dropping units row by row (arXiv 1502.02478).
    """
    *hidden, last = _linear(net)
    kept = _kept(inputs_B.shape[1], recipe.input_dropout)
    active_B = inputs_B[:, kept] / (1 - recipe.input_dropout)
    for layer in hidden:
        units = _kept(layer.out_features, recipe.hidden_dropout)
        weight = layer.weight.index_select(0, units).index_select(1, kept)
        active_B = functional.linear(active_B, weight, layer.bias[units]).relu() / (1 - recipe.hidden_dropout)
        kept = units
    return functional.linear(active_B, last.weight.index_select(1, kept), last.bias)


def _kept(size: int, dropped: float) -> Tensor:
    return torch.randperm(size)[: size - round(dropped * size)].sort().values


@torch.no_grad()
def bound_norms(net: nn.Sequential, most: float) -> None:
    """Shorten each hidden unit's incoming weights to a length of at most `most`."""
    for layer in list(_linear(net))[:-1]:
        norms = torch.linalg.vector_norm(layer.weight, dim=1)
        long = (norms > most).nonzero().squeeze(1)
        if len(long):
            layer.weight[long] *= (most / norms[long]).unsqueeze(1)


def _linear(net: nn.Sequential) -> Iterator[nn.Linear]:
    return (layer for layer in net if isinstance(layer, nn.Linear))


@torch.no_grad()
def logits_of(net: nn.Module, digits: Digits) -> Tensor:
    """Logits float32 `[N, C]`, in batches of 1,000."""
    images_N = torch.from_numpy(digits.images_N)
    return torch.cat([net.eval()(batch.float().div_(255)) for batch in torch.split(images_N, 1000)])
