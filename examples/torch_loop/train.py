"""A student in a plain torch loop: stored soft targets, no teacher, and it goes on where it was stopped.

softcask precompute examples/mnist/run.toml     # once: the store
python examples/torch_loop/train.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn

from softcask import student
from softcask.pipeline.student.losses.distillation import Distillation
from softcask.pipeline.student.training.evaluation import Evaluation
from softcask.pipeline.transfer_sets.idx import IdxOptions

MNIST = Path(__file__).resolve().parents[1] / "mnist"


def digits(data: Path, split: str) -> IdxOptions:
    """Where the digits are: of the kind of source that the store was made from, or any other with its ids."""
    return IdxOptions(
        images=str(data / f"{split}-images-idx3-ubyte.gz"), labels=str(data / f"{split}-labels-idx1-ubyte.gz")
    )


def net() -> nn.Module:
    """784-800-800-10."""
    layers = [
        nn.Flatten(),
        nn.Linear(784, 800),
        nn.ReLU(),
        nn.Linear(800, 800),
        nn.ReLU(),
        nn.Linear(800, 10),
    ]
    return nn.Sequential(*layers)


def main() -> None:
    """Train, and count errors on the test digits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--store", default=str(MNIST / "out" / "cask"), help="path or URL of the store")
    parser.add_argument("--data", type=Path, default=MNIST / "data", help="folder of the digits")
    parser.add_argument("--output", type=Path, default=MNIST / "out" / "students" / "torch_loop")
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    loader = student.loader(
        options.store, inputs=digits(options.data, "train"), temperature=4.0, batch_size=256, seed=0
    )
    loss_of = Distillation(hard_label_weight=0.1)
    model = net().to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)

    checkpoint = options.output / "checkpoint.pt"
    if checkpoint.exists():
        kept = torch.load(checkpoint, map_location=device, weights_only=True)
        model.load_state_dict(kept["model"])
        optimiser.load_state_dict(kept["optimiser"])
        loader.load_state_dict(kept["loader"])

    for epoch in range(loader.epoch, options.epochs):
        total = torch.zeros((), device=device)
        for batch in loader:
            batch = batch.to(device)
            logits = model(batch.inputs / 255)
            loss = student.batch_loss(loss_of, logits, batch)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            total += loss.detach()
        print(f"epoch {epoch + 1}: loss {total.item() / len(loader):.4f}")
        # The loader's state is rows consumed: it may as well be kept in the middle of an epoch.
        options.output.mkdir(parents=True, exist_ok=True)
        states = {"model": model.state_dict(), "optimiser": optimiser.state_dict()}
        torch.save({**states, "loader": loader.state_dict()}, checkpoint)

    tests = Evaluation(digits(options.data, "t10k").open(), num_classes=10)
    model.eval()
    with torch.no_grad():
        print(f"test errors: {tests.errors(lambda inputs_B: model(inputs_B.to(device) / 255))}")


if __name__ == "__main__":
    main()
