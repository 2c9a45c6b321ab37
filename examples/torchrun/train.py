"""A student on several processes with torchrun: each is given its share of every batch, and none a row twice.

    softcask precompute examples/mnist/run.toml     # once: the store
    torchrun --nproc-per-node 2 examples/torchrun/train.py

The loader asks torch.distributed which process it is; there is no DistributedSampler. Its state is the same
in all processes and good for any number of them: stopped on two, the training may go on on four.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from softcask import student
from softcask.pipeline.student.integrations.distributed import mean_over_all
from softcask.pipeline.student.losses.distillation import Distillation
from softcask.pipeline.student.training.evaluation import Evaluation
from softcask.pipeline.transfer_sets.idx import IdxOptions

MNIST = Path(__file__).resolve().parents[1] / "mnist"


def digits(data: Path, split: str) -> IdxOptions:
    """Where the digits are."""
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
    parser.add_argument("--output", type=Path, default=MNIST / "out" / "students" / "torchrun")
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()

    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    first = dist.get_rank() == 0

    torch.manual_seed(0)
    loader = student.loader(
        options.store,
        inputs=digits(options.data, "train"),
        temperature=4.0,
        batch_size=256 // dist.get_world_size(),  # rows of this process; together 256
        seed=0,
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
    parallel = DistributedDataParallel(model)

    for epoch in range(loader.epoch, options.epochs):
        total = torch.zeros((), device=device)
        for batch in loader:
            batch = batch.to(device)
            logits = parallel(batch.inputs / 255)
            loss = student.batch_loss(loss_of, logits, batch)
            optimiser.zero_grad()
            mean_over_all(loss, len(batch)).backward()
            optimiser.step()
            total += loss.detach()
        dist.all_reduce(total)
        if first:
            print(f"epoch {epoch + 1}: loss {total.item() / len(loader) / dist.get_world_size():.4f}")
            options.output.mkdir(parents=True, exist_ok=True)
            states = {"model": model.state_dict(), "optimiser": optimiser.state_dict()}
            torch.save({**states, "loader": loader.state_dict()}, checkpoint)

    if first:
        tests = Evaluation(digits(options.data, "t10k").open(), num_classes=10)
        model.eval()
        with torch.no_grad():
            print(f"test errors: {tests.errors(lambda inputs_B: model(inputs_B.to(device) / 255))}")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
