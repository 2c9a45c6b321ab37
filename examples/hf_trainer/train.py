"""A small vision transformer learns from stored soft targets in Hugging Face's Trainer; no teacher runs.

    softcask precompute examples/mnist/run.toml     # once: the store
    python examples/hf_trainer/train.py

All there is of softcask is `SoftTargetCollator`, which finds a row's soft targets by its id, and
`SoftTargetMixin`, which learns from them. Everything else is a Trainer as it is always used.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

from softcask.pipeline.student.integrations.huggingface import SoftTargetCollator, SoftTargetMixin
from softcask.pipeline.student.losses.distillation import Distillation
from softcask.pipeline.transfer_sets.idx import IdxOptions

MNIST = Path(__file__).resolve().parents[1] / "mnist"


class StudentTrainer(SoftTargetMixin, Trainer):
    """A Trainer that learns from what the collator brings."""


def digits(data: Path, split: str, limit: int | None) -> Dataset:
    """Rows as anyone would keep them: an image, a label, and the id that the store knows the row by."""
    rows = IdxOptions(
        images=str(data / f"{split}-images-idx3-ubyte.gz"),
        labels=str(data / f"{split}-labels-idx1-ubyte.gz"),
    ).open()
    count = min(len(rows), limit or len(rows))
    columns = {
        "sample_id": list(rows.sample_ids(0, count)),
        "image": list(rows.read(np.arange(count)).inputs_B.reshape(count, -1)),
        "labels": list(rows.labels(0, count)),
    }
    return Dataset.from_dict(columns)


def as_batch(features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """What the model takes: pixels in [0, 1], `[B, 1, 28, 28]`, and labels."""
    images = np.array([feature["image"] for feature in features], np.float32) / 255
    labels = [feature["labels"] for feature in features]
    return {"pixel_values": torch.from_numpy(images.reshape(-1, 1, 28, 28)), "labels": torch.tensor(labels)}


def student() -> ViTForImageClassification:
    """Sixteen patches of 7 x 7 pixels, two layers."""
    config = ViTConfig(
        image_size=28,
        patch_size=7,
        num_channels=1,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_labels=10,
    )
    return ViTForImageClassification(config)


def main() -> None:
    """Train, and count errors on the test digits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--store", default=str(MNIST / "out" / "cask"), help="path or URL of the store")
    parser.add_argument("--data", type=Path, default=MNIST / "data", help="folder of the digits")
    parser.add_argument("--output", default=str(MNIST / "out" / "students" / "hf_trainer"))
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--limit", type=int, help="train on the first rows alone")
    options = parser.parse_args()

    torch.manual_seed(0)
    collator = SoftTargetCollator(
        options.store, loss=Distillation(hard_label_weight=0.1), temperature=4.0, collator=as_batch
    )
    trainer = StudentTrainer(
        model=student(),
        args=TrainingArguments(
            output_dir=options.output,
            num_train_epochs=options.epochs,
            per_device_train_batch_size=128,
            per_device_eval_batch_size=1000,
            learning_rate=1e-3,
            lr_scheduler_type="cosine",
            save_strategy="epoch",
            save_total_limit=1,
            logging_steps=100,
            report_to="none",
            remove_unused_columns=False,  # it is `as_batch` that takes the column `image`
        ),
        train_dataset=digits(options.data, "train", options.limit),
        eval_dataset=digits(options.data, "t10k", None),
        data_collator=collator,
        compute_metrics=lambda told: {"errors": int((told.predictions.argmax(-1) != told.label_ids).sum())},
    )
    trainer.train()
    print(f"test errors: {trainer.evaluate()['eval_errors']}")


if __name__ == "__main__":
    main()
