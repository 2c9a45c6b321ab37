"""The test that matters: students trained from what a codec kept, beside students trained from dense logits.

The teacher is SmolLM2-135M. Every student of a seed starts from the same weights and sees the same batches;
only what it is told of the teacher differs: dense float16 logits, `lowrank` at 256 bytes a row, DistillKit's
codec at 256 bytes, with its own loss as its examples set it (`zero`), and as a dense target with an equal
tail (`symmetric_uniform`). Judged on held-out documents against the exact teacher.

A student sees the last four tokens: their embeddings are the leading 64 principal components of the
teacher's, its output layer starts from the same, and a perceptron lies between. 3.3 M weights are trained.

    SOFTCASK_DISTILLKIT=/path/to/checkout python benchmarks/student_from_codec.py --out benchmarks/results
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import smollm2
import torch
from numpy.typing import NDArray
from rivals import distillkit
from rivals.base import Missing, Rows, top_k
from torch import nn

from softcask.storage_schemas.codecs.base import Codec
from softcask.storage_schemas.codecs.lowrank.calibration import fit

BUDGET = 256
WIDTH, HIDDEN, CONTEXT_TOKENS = 64, 256, 4
BATCH = 128
JUDGED_A_WINDOW = 40
DENSE = "dense float16"

Loss = Callable[[torch.Tensor, NDArray[np.int64], float], None]
"""(student's logits, training rows, T): backward of the mean of T^2 KL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Positions:
    """Places in text to predict from.

    Attributes:
        context_NT: The last tokens at each.
        next_N: The token that follows.
        hidden_ND: The teacher's hidden states.
    """

    context_NT: NDArray[np.int64]
    next_N: NDArray[np.int64]
    hidden_ND: NDArray[np.float32]

    @classmethod
    def of(cls, windows: smollm2.Windows, per_window: int, most_windows: int | None = None) -> Positions:
        """Evenly spaced places of each window, those without much context left out."""
        last = smollm2.CONTEXT - 2
        at_P = np.linspace(smollm2.FIRST, last, per_window).astype(np.int64)
        tokens_WS, hidden_WSD = windows.tokens_WS[:most_windows], windows.hidden_WSD[:most_windows]
        context_WPT = tokens_WS[:, at_P[:, None] + np.arange(1 - CONTEXT_TOKENS, 1)]
        return cls(
            context_NT=context_WPT.reshape(-1, CONTEXT_TOKENS),
            next_N=tokens_WS[:, at_P + 1].reshape(-1),
            hidden_ND=hidden_WSD[:, at_P].reshape(-1, hidden_WSD.shape[2]),
        )


class Student(nn.Module):
    """Four embeddings, a perceptron, and an output layer over the whole vocabulary."""

    def __init__(self, embeddings_VW: torch.Tensor, seed: int) -> None:
        """Weights that depend on the seed alone."""
        super().__init__()
        torch.manual_seed(seed)
        self.register_buffer("embeddings", embeddings_VW)
        self.body = nn.Sequential(
            nn.Linear(CONTEXT_TOKENS * WIDTH, HIDDEN),
            nn.GELU(),
            nn.Linear(HIDDEN, WIDTH),
            nn.LayerNorm(WIDTH),
        )
        self.output = nn.Linear(WIDTH, len(embeddings_VW))
        with torch.no_grad():
            self.output.weight.copy_(embeddings_VW * 0.1)
            self.output.bias.zero_()

    def forward(self, context_BT: torch.Tensor) -> torch.Tensor:
        """Logits `[B, V]`."""
        logits: torch.Tensor = self.output(self.body(self.embeddings[context_BT].flatten(1)))
        return logits


def principal(output_VD: NDArray[np.float32]) -> torch.Tensor:
    """The leading components of the teacher's embeddings `[V, WIDTH]`, scaled to deviation 1 together."""
    centred_VD = output_VD - output_VD.mean(axis=0)
    _, vectors_DD = np.linalg.eigh(centred_VD.T @ centred_VD)
    components_VW = centred_VD @ vectors_DD[:, ::-1][:, :WIDTH]
    return torch.from_numpy(components_VW / components_VW.std())


def targets(model: smollm2.SmolLM2, train: Positions) -> tuple[dict[str, Loss], list[str]]:
    """A loss a way to keep the teacher, and the facts about each."""
    fit_ND = model.calibration.sample(50)
    held_back = len(fit_ND) // 8
    codec = fit(
        model.logits(fit_ND[:-held_back]),
        model.logits(fit_ND[-held_back:]),
        max_bytes=BUDGET,
        output_layer=model.output_VD,
    ).codec
    dense_NV = np.empty((len(train.hidden_ND), len(model.output_VD)), dtype=np.float16)
    blocks, tops = [], []
    for first in range(0, len(dense_NV), 64):
        logits_BV = model.logits(train.hidden_ND[first : first + 64])
        dense_NV[first : first + 64] = logits_BV
        blocks.append(codec.encode(logits_BV))
        tops.append(top_k(logits_BV, BUDGET // 2))
    columns = {name: np.concatenate([block[name] for block in blocks]) for name in blocks[0]}
    ids_NK, log_p_NK = (np.concatenate(parts) for parts in zip(*tops, strict=True))
    losses: dict[str, Loss] = {DENSE: dense_loss(lambda rows: dense_NV[rows].astype(np.float32))}
    losses[f"lowrank, {BUDGET} B"] = dense_loss(lambda rows: decoded(codec, columns, rows))
    facts = [
        f"lowrank: head {codec.settings.head_size}, rank {codec.settings.rank}, fit {codec.settings.fit}"
    ]
    try:
        peer = distillkit.best(Rows(logits_NC=dense_NV, ids_NK=ids_NK, log_p_NK=log_p_NK), BUDGET)
        losses[f"DistillKit, {BUDGET} B, its loss (zero)"] = distillkit_loss(peer)
        losses[f"DistillKit, {BUDGET} B, equal tail"] = dense_loss(peer.dense)
        facts.append(f"DistillKit: {peer.name}, {peer.bytes_a_row:.0f} B")
    except Missing as reason:
        facts.append(f"Missing: {reason}")
    return losses, facts


def decoded(codec: Codec, columns: dict[str, NDArray[Any]], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Logits of some rows."""
    return codec.decode({name: values[rows] for name, values in columns.items()}).shifted_BC


def dense_loss(logits_of: Callable[[NDArray[np.int64]], NDArray[np.float32]]) -> Loss:
    """T^2 KL over all classes, whose gradient is T (q - p), against soft targets `softmax(logits / T)`."""

    def backward(student_BV: torch.Tensor, rows: NDArray[np.int64], temperature: float) -> None:
        p_BV = torch.softmax(torch.from_numpy(logits_of(rows)) / temperature, dim=1)
        with torch.no_grad():
            gradient_BV = torch.softmax(student_BV / temperature, dim=1).sub_(p_BV)
        student_BV.backward(gradient_BV.mul_(temperature / len(rows)))

    return backward


def distillkit_loss(peer: distillkit.Peer) -> Loss:
    """Its own `sparse_kl_div`, times T^2 as its loss has it."""

    def backward(student_BV: torch.Tensor, rows: NDArray[np.int64], temperature: float) -> None:
        ids_BK, values_BK = peer.sparse(rows)
        loss = distillkit.sparse_kl_div()(
            logits=student_BV[None],
            target_ids=ids_BK[None],
            target_values=values_BK[None],
            temperature=temperature,
        )
        (loss * temperature**2 / len(rows)).backward()

    return backward


def train_together(
    model: smollm2.SmolLM2,
    train: Positions,
    losses: dict[str, Loss],
    *,
    temperatures: tuple[float, ...],
    epochs: int,
    seed: int,
) -> dict[tuple[str, float], Student]:
    """One student for each loss and temperature, all on the same batches."""
    embeddings_VW = principal(model.output_VD)
    students = {(name, T): Student(embeddings_VW, seed) for name in losses for T in temperatures}
    optimisers = {key: torch.optim.Adam(student.parameters(), lr=2e-3) for key, student in students.items()}
    steps = epochs * (len(train.next_N) // BATCH)
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(len(train.next_N)) for _ in range(epochs)])
    for step in range(steps):
        rows = order[step * BATCH : (step + 1) * BATCH]
        context_BT = torch.from_numpy(train.context_NT[rows])
        for (name, temperature), student in students.items():
            optimiser = optimisers[name, temperature]
            for group in optimiser.param_groups:
                group["lr"] = 2e-3 * min(1, 2 * (1 - step / steps))
            optimiser.zero_grad()
            losses[name](student(context_BT), rows, temperature)
            optimiser.step()
    return students


@torch.inference_mode()
def judged(
    model: smollm2.SmolLM2, judge: Positions, student: Student, temperature: float
) -> tuple[float, float]:
    """Mean KL(teacher || student) at T, and mean cross-entropy of the token that follows, in nats."""
    kl, entropy = 0.0, 0.0
    for first in range(0, len(judge.next_N), BATCH):
        rows = slice(first, first + BATCH)
        teacher_BV = torch.from_numpy(model.logits(judge.hidden_ND[rows])) / temperature
        student_BV = student(torch.from_numpy(judge.context_NT[rows]))
        log_p_BV = torch.log_softmax(teacher_BV, dim=1)
        log_q_BV = torch.log_softmax(student_BV / temperature, dim=1)
        kl += float((log_p_BV.exp() * (log_p_BV - log_q_BV)).sum())
        entropy += float(
            nn.functional.cross_entropy(student_BV, torch.from_numpy(judge.next_N[rows]), reduction="sum")
        )
    return kl / len(judge.next_N), entropy / len(judge.next_N)


def table(results: dict[tuple[str, float], list[tuple[float, float]]]) -> list[str]:
    """Means over the seeds, and the differences to the dense student of the same seed."""
    lines = [
        "| T | kept as | KL to the teacher | less dense | next token | less dense |",
        "| ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for (name, temperature), found in sorted(results.items(), key=lambda item: item[0][1]):
        pairs_S2, dense_S2 = np.array(found), np.array(results[DENSE, temperature])
        cells = [f"{temperature:g}", name]
        for part in (0, 1):
            less_S = pairs_S2[:, part] - dense_S2[:, part]
            cells += [_spread(pairs_S2[:, part], 3), "" if name == DENSE else _spread(less_S, 4, sign="+")]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _spread(values_S: NDArray[np.float64], digits: int, sign: str = "") -> str:
    deviation = values_S.std(ddof=1) if len(values_S) > 1 else float("nan")
    return f"{values_S.mean():{sign}.{digits}f} ± {deviation:.{digits}f}"


def main() -> None:
    """Train every student of every seed; with `--out`, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1.0, 2.0])
    parser.add_argument("--windows", type=int, default=40, help="windows of text to train on")
    parser.add_argument("--per-window", type=int, default=400, help="positions of each")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--out", type=Path, help="folder for codecs_student.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    try:
        model = smollm2.load()
    except Missing as reason:
        raise SystemExit(f"missing: {reason}") from None
    train = Positions.of(model.calibration, arguments.per_window, arguments.windows)
    judge = Positions.of(model.heldout, JUDGED_A_WINDOW)
    losses, facts = targets(model, train)
    print(*facts, sep="\n", flush=True)
    results: dict[tuple[str, float], list[tuple[float, float]]] = {}
    for seed in arguments.seeds:
        started = time.process_time()
        students = train_together(
            model,
            train,
            losses,
            temperatures=tuple(arguments.temperatures),
            epochs=arguments.epochs,
            seed=seed,
        )
        minutes = (time.process_time() - started) / 60
        for key, student in students.items():
            results.setdefault(key, []).append(judged(model, judge, student, key[1]))
        facts.append(f"seed {seed}: {minutes:.1f} CPU minutes for {len(students)} students")
        print(facts[-1], *table(results), sep="\n", flush=True)
        if arguments.out:
            text = _report(arguments, train, judge, facts, results)
            (arguments.out / "codecs_student.md").write_text(text)


def _report(
    arguments: argparse.Namespace,
    train: Positions,
    judge: Positions,
    facts: list[str],
    results: dict[tuple[str, float], list[tuple[float, float]]],
) -> str:
    parts = [
        "# Students trained from what a codec kept",
        f"`{' '.join(['python', *sys.argv])}`",
        f"Teacher SmolLM2-135M; {len(train.next_N):,} positions, {arguments.epochs} epochs, batches of "
        f"{BATCH}, loss T² KL alone; judged on {len(judge.next_N):,} positions of other documents, in nats.",
        "Mean ± standard deviation over seeds; differences: to the dense student of the same seed, of the "
        "same start and the same batches.",
        "\n".join(table(results)),
        "\n".join(f"- {fact}" for fact in facts),
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
