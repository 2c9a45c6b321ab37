"""A student as a LightningModule: stored soft targets, no teacher, resumed in the middle of an epoch.

softcask precompute examples/mnist/run.toml     # once: the store
python examples/lightning/train.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from softcask import student
from softcask.pipeline.student.integrations.lightning import SoftTargetMixin
from softcask.pipeline.student.losses.distillation import Distillation
from softcask.pipeline.transfer_sets.idx import IdxOptions

MNIST = Path(__file__).resolve().parents[1] / "mnist"


class Digits(SoftTargetMixin, LightningModule):
    """784-800-800-10; what is distilled is `loss_of` over the loader's batches."""

    loss_of = Distillation(hard_label_weight=0.1)

    def __init__(self, store: str, data: Path) -> None:
        """Nothing is read yet."""
        super().__init__()
        self.store, self.data = store, data
        hidden = [nn.Linear(784, 800), nn.ReLU(), nn.Linear(800, 800), nn.ReLU()]
        self.net = nn.Sequential(nn.Flatten(), *hidden, nn.Linear(800, 10))

    def forward(self, images_B: torch.Tensor) -> torch.Tensor:
        """Logits of images as they are stored."""
        logits: torch.Tensor = self.net(images_B / 255)
        return logits

    def train_dataloader(self) -> student.StudentLoader:
        """Rows with their soft targets; here, because by now Lightning has said which process this is."""
        return student.loader(
            self.store, inputs=self.digits("train"), temperature=4.0, batch_size=256, seed=0
        )

    def val_dataloader(self) -> DataLoader[tuple[torch.Tensor, ...]]:
        """The test digits, which need no store."""
        tests = self.digits("t10k").open()
        rows = torch.arange(len(tests)).numpy()
        images, labels = tests.read(rows).inputs_B, tests.labels(0, len(tests))
        return DataLoader(TensorDataset(torch.tensor(images), torch.tensor(labels)), batch_size=1000)

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        """Count errors."""
        images_B, labels_B = batch
        wrong = (self(images_B).argmax(-1) != labels_B).sum().float()
        self.log("errors", wrong, reduce_fx="sum", prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam."""
        return torch.optim.Adam(self.parameters(), lr=1e-3)

    def digits(self, split: str) -> IdxOptions:
        """Where the digits are."""
        images, labels = (self.data / f"{split}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1"))
        return IdxOptions(images=str(images), labels=str(labels))


def main() -> None:
    """Train, and count errors on the test digits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--store", default=str(MNIST / "out" / "cask"), help="path or URL of the store")
    parser.add_argument("--data", type=Path, default=MNIST / "data", help="folder of the digits")
    parser.add_argument("--output", type=Path, default=MNIST / "out" / "students" / "lightning")
    parser.add_argument("--epochs", type=int, default=5)
    options = parser.parse_args()

    seed_everything(0)
    last = options.output / "last.ckpt"
    trainer = Trainer(
        max_epochs=options.epochs,
        logger=False,
        callbacks=[ModelCheckpoint(options.output, save_last=True)],
        enable_progress_bar=False,
    )
    trainer.fit(Digits(options.store, options.data), ckpt_path=last if last.exists() else None)
    print(f"test errors: {int(trainer.callback_metrics['errors'])}")


if __name__ == "__main__":
    main()
