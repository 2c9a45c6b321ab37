"""A student on several workers with Ray Train, which begins workers that fail again at the last checkpoint.

    softcask precompute examples/mnist/run.toml     # once: the store
    python examples/ray_train/train.py

On a cluster (`--address auto`) store, data and output are URLs, or lie on a disk that all nodes share.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from torch import nn

from softcask import student
from softcask.pipeline.student.integrations.distributed import mean_over_all
from softcask.pipeline.student.losses.distillation import Distillation
from softcask.pipeline.student.training.evaluation import Evaluation
from softcask.pipeline.transfer_sets.idx import IdxOptions

MNIST = Path(__file__).resolve().parents[1] / "mnist"


def digits(data: str, split: str) -> IdxOptions:
    """Where the digits are."""
    return IdxOptions(
        images=f"{data}/{split}-images-idx3-ubyte.gz", labels=f"{data}/{split}-labels-idx1-ubyte.gz"
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


def train(options: dict[str, Any]) -> None:
    """What each worker does. Ray Train has set up torch.distributed, and the loader asks that which it is."""
    import ray.train.torch

    context = ray.train.get_context()
    device = ray.train.torch.get_device()
    torch.manual_seed(0)
    loader = student.loader(
        options["store"],
        inputs=digits(options["data"], "train"),
        temperature=4.0,
        batch_size=256 // context.get_world_size(),
        seed=0,
    )
    loss_of = Distillation(hard_label_weight=0.1)
    model = net().to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    if (checkpoint := ray.train.get_checkpoint()) is not None:
        with checkpoint.as_directory() as folder:
            kept = torch.load(Path(folder, "state.pt"), map_location=device, weights_only=True)
        model.load_state_dict(kept["model"])
        optimiser.load_state_dict(kept["optimiser"])
        loader.load_state_dict(kept["loader"])
    parallel = ray.train.torch.prepare_model(model)
    tests = Evaluation(digits(options["data"], "t10k").open(), num_classes=10)

    for epoch in range(loader.epoch, options["epochs"]):
        for batch in loader:
            batch = batch.to(device)
            logits = parallel(batch.inputs / 255)
            loss = student.batch_loss(loss_of, logits, batch)
            optimiser.zero_grad()
            mean_over_all(loss, len(batch)).backward()
            optimiser.step()
        first = context.get_world_rank() == 0
        told: dict[str, Any] = {"epoch": epoch + 1, "loss": loss.item()}
        with tempfile.TemporaryDirectory() as folder:
            if first:
                with torch.no_grad():
                    told["errors"] = tests.errors(lambda inputs_B: model(inputs_B.to(device) / 255))
                states = {"model": model.state_dict(), "optimiser": optimiser.state_dict()}
                torch.save({**states, "loader": loader.state_dict()}, Path(folder, "state.pt"))
            kept_here = ray.train.Checkpoint.from_directory(folder) if first else None
            ray.train.report(told, checkpoint=kept_here)


def main() -> None:
    """Train, and count errors on the test digits."""
    from ray.train.torch import TorchTrainer

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--store", default=str(MNIST / "out" / "cask"), help="path or URL of the store")
    parser.add_argument("--data", default=str(MNIST / "data"), help="folder of the digits")
    parser.add_argument("--output", default=str(MNIST / "out" / "students"), help="folder of checkpoints")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--address", default="local", help="of a Ray cluster; `local` starts one here")
    options = parser.parse_args()

    ray.init(address=options.address)
    trainer = TorchTrainer(
        train,
        train_loop_config={"store": options.store, "data": options.data, "epochs": options.epochs},
        scaling_config=ray.train.ScalingConfig(
            num_workers=options.workers, use_gpu=torch.cuda.is_available()
        ),
        run_config=ray.train.RunConfig(
            name="ray_train",
            storage_path=options.output if "://" in options.output else str(Path(options.output).absolute()),
            failure_config=ray.train.FailureConfig(max_failures=2),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
        ),
    )
    result = trainer.fit()
    print(f"test errors: {result.metrics['errors']}")
    ray.shutdown()


if __name__ == "__main__":
    main()
