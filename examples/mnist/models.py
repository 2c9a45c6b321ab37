"""The networks of the MNIST demo, as factories that a config names (`models:conv_net`, `models:mlp`).

Both take float32 images with pixels scaled to [0, 1], shaped [B, 1, 28, 28], [B, 28, 28] or [B, 784], and
return logits [B, 10]. Neither uses dropout, and batch normalisation exists only while a teacher is being
trained, so a row's logits never depend on the rows beside it nor on train or eval mode.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

IMAGE_SIZE = 28
CLASS_COUNT = 10


def conv_net(width: int = 48, hidden: int = 128, batch_norm: bool = False) -> nn.Sequential:
    """Returns a teacher: four convolutions, three max-pools, two linear layers.

    Args:
        width: channels of the middle convolutions; the first has half as many, the last twice as many.
        hidden: units of the linear layer before the logits.
        batch_norm: a batch norm after each convolution, as in training. `fold_batch_norm` gives the weights
            of the equal network without them, which is what `weights/` holds.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["flat"] = nn.Flatten()
    layers["image"] = nn.Unflatten(1, (1, IMAGE_SIZE, IMAGE_SIZE))
    _add_convolution(layers, "1", 1, width // 2, kernel_size=5, padding=0, batch_norm=batch_norm)
    layers["pool1"] = nn.MaxPool2d(2)
    _add_convolution(layers, "2", width // 2, width, kernel_size=3, padding=1, batch_norm=batch_norm)
    _add_convolution(layers, "3", width, width, kernel_size=3, padding=1, batch_norm=batch_norm)
    layers["pool3"] = nn.MaxPool2d(2)
    _add_convolution(layers, "4", width, 2 * width, kernel_size=3, padding=1, batch_norm=batch_norm)
    layers["pool4"] = nn.MaxPool2d(2)
    layers["features"] = nn.Flatten()
    layers["linear5"] = nn.Linear(2 * width * 3 * 3, hidden)
    layers["relu5"] = nn.ReLU()
    layers["logits"] = nn.Linear(hidden, CLASS_COUNT)
    # Channels last: about twice as fast on CPU, the same values.
    net = nn.Sequential(layers)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net


def mlp(hidden_sizes: Sequence[int] = (800, 800)) -> nn.Sequential:
    """Returns a student of plain ReLU layers; by default 784-800-800-10 (arXiv 1503.02531, section 3).

    Args:
        hidden_sizes: units of each hidden layer, input side first.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["flat"] = nn.Flatten()
    inputs = IMAGE_SIZE * IMAGE_SIZE
    for index, size in enumerate(hidden_sizes, start=1):
        layers[f"linear{index}"] = nn.Linear(inputs, size)
        layers[f"relu{index}"] = nn.ReLU()
        inputs = size
    layers["logits"] = nn.Linear(inputs, CLASS_COUNT)
    return nn.Sequential(layers)


def fold_batch_norm(trained: nn.Sequential) -> dict[str, torch.Tensor]:
    """Returns weights for `conv_net(..., batch_norm=False)` to compute what `trained` does in eval mode.

    Args:
        trained: a `conv_net(..., batch_norm=True)`.
    """
    state = {name: value for name, value in trained.state_dict().items() if not name.startswith("norm")}
    modules = dict(trained.named_children())
    for name, norm in modules.items():
        if isinstance(norm, nn.BatchNorm2d):
            conv_name = name.replace("norm", "conv")
            weight, bias = _folded(modules[conv_name], norm)
            state[f"{conv_name}.weight"], state[f"{conv_name}.bias"] = weight, bias
    return {name: value.detach().contiguous() for name, value in state.items()}


def _add_convolution(
    layers: OrderedDict[str, nn.Module],
    name: str,
    channels_in: int,
    channels_out: int,
    *,
    kernel_size: int,
    padding: int,
    batch_norm: bool,
) -> None:
    layers[f"conv{name}"] = nn.Conv2d(channels_in, channels_out, kernel_size, padding=padding)
    if batch_norm:
        layers[f"norm{name}"] = nn.BatchNorm2d(channels_out)
    layers[f"relu{name}"] = nn.ReLU()


def _folded(conv: nn.Module, norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor | None]:
    if not isinstance(conv, nn.Conv2d) or norm.running_mean is None or norm.running_var is None:
        raise TypeError(f"expected a convolution before {norm} with running statistics, found {conv}")
    weight, bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    return weight, bias
