"""Two processes with gloo: each row once, and gradients of the batch that both together have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from softcask.pipeline.store.reading.reader import open_store
from softcask.pipeline.student.integrations.distributed import mean_over_all
from softcask.pipeline.student.losses.distillation import Distillation
from softcask.pipeline.targets.soft_targets import SoftTargets

PROCESS = """
import json, sys
from pathlib import Path
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch.nn.parallel import DistributedDataParallel
from softcask import student
from softcask.pipeline.student.integrations.distributed import mean_over_all
from softcask.pipeline.student.losses.distillation import Distillation
from softcask.pipeline.transfer_sets.arrays import ArraysOptions

store, inputs, batch_size, out = sys.argv[1:]
dist.init_process_group("gloo")
source = ArraysOptions(kind="arrays", inputs=inputs, id_prefix="row")
loader = student.loader(store, inputs=source, temperature=4.0, batch_size=int(batch_size), seed=3)
torch.manual_seed(0)
model = torch.nn.Linear(12, 5)
parallel = DistributedDataParallel(model)
rows, gradients = [], {}
for epoch in range(2):
    for step, batch in enumerate(loader):
        logits = parallel(batch.inputs)
        loss = Distillation().compute(logits, batch.targets, batch.labels_B, batch.temperature)
        parallel.zero_grad()
        mean_over_all(loss, len(batch)).backward()
        gradients[f"{epoch}/{step}"] = model.weight.grad.clone()
        rows.append([epoch, step, batch.rows_B.tolist()])
folder = Path(out)
(folder / f"rows-{dist.get_rank()}.json").write_text(json.dumps(rows))
save_file(gradients, folder / f"gradients-{dist.get_rank()}.safetensors")
dist.destroy_process_group()
"""


ROWS = 201


@pytest.fixture
def odd_world(make_world: Callable[..., Any]) -> Any:
    return make_world(ROWS)


def launch(world: Any, folder: Path, batch_size: int) -> tuple[list[list[Any]], dict[str, torch.Tensor]]:
    """Rows of both processes by epoch and step, and the gradients that both must have."""
    (folder / "process.py").write_text(PROCESS)
    arguments = [world.store, str(world.folder / "inputs.npy"), str(batch_size), str(folder)]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run(
        [*command, str(folder / "process.py"), *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=True,
        capture_output=True,
    )
    rows = [json.loads((folder / f"rows-{rank}.json").read_text()) for rank in (0, 1)]
    found = [load_file(folder / f"gradients-{rank}.safetensors") for rank in (0, 1)]
    assert all(torch.equal(found[0][step], found[1][step]) for step in found[0])
    return rows, found[0]


# Of 201 rows the last batch has 25 and 26, or 1 and 2.
@pytest.mark.parametrize(("batch_size", "last"), [(25, [25, 26]), (33, [1, 2])])
def test_each_row_comes_once_an_epoch_and_gradients_are_those_of_one_process(
    odd_world: Any, tmp_path: Path, batch_size: int, last: list[int]
) -> None:
    rows, gradients = launch(odd_world, tmp_path, batch_size)
    for epoch in (0, 1):
        seen = [row for each in rows for number, _, batch in each if number == epoch for row in batch]
        assert sorted(seen) == list(range(ROWS))
    assert sorted(len(each[-1][2]) for each in rows) == last

    targets = SoftTargets(open_store(odd_world.store)).probabilities(np.arange(ROWS), 4.0)
    torch.manual_seed(0)
    model = torch.nn.Linear(12, 5)
    for (epoch, step, own), (_, _, other) in zip(*rows, strict=True):
        both = own + other
        loss = Distillation().compute(
            model(torch.from_numpy(odd_world.inputs[both])),
            torch.from_numpy(targets[both]),
            torch.from_numpy(odd_world.labels[both]),
            4.0,
        )
        model.zero_grad()
        loss.backward()
        assert model.weight.grad is not None
        torch.testing.assert_close(gradients[f"{epoch}/{step}"], model.weight.grad, rtol=1e-5, atol=1e-6)


def test_one_process_is_left_as_it_is() -> None:
    loss = torch.tensor(3.0)
    assert mean_over_all(loss, 7) is loss
