"""Teachers that codecs are judged on: a language model, a classifier, and one that flatters no basis.

Each gives rows to fit a codec on, and other rows to judge it on, in an order that mixes what lies together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import smollm2
from numpy.typing import NDArray
from rivals.base import Missing

JUDGED_ROWS = 4_096
FEATURES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class LogitSource:
    """A teacher's rows.

    Attributes:
        name: As tables have it.
        facts: What it is, for the head of a table.
        fit_NC: Float32 logits to fit a codec on.
        judged_NC: Float32 logits to judge it on; bytes are of these, too.
        features_ND: What a student's output layer sees on the judged rows; of mean 0 and deviation 1.
        output_layer_CD: The teacher's output layer, where it has one.
    """

    name: str
    facts: str
    fit_NC: NDArray[np.float32]
    judged_NC: NDArray[np.float32]
    features_ND: NDArray[np.float32]
    output_layer_CD: NDArray[np.float32] | None = None


def smollm2_source() -> LogitSource:
    """SmolLM2-135M on the documentation that this machine has; see `smollm2.py`.

    Raises:
        Missing: The package is not here.
    """
    model = smollm2.load()
    per_window = -(-JUDGED_ROWS // len(model.heldout.tokens_WS))
    judged_ND = _mixed(model.heldout.sample(per_window))[:JUDGED_ROWS]
    fit_ND = model.calibration.sample(50)
    return LogitSource(
        name="SmolLM2-135M",
        facts=f"V = {len(model.output_VD):,}, d = {model.output_VD.shape[1]}, {len(fit_ND):,} rows to fit on",
        fit_NC=model.logits(fit_ND),
        judged_NC=model.logits(judged_ND),
        features_ND=_features(judged_ND),
        output_layer_CD=model.output_VD,
    )


def glyph_source() -> LogitSource:
    """A classifier of 1,000 glyphs; see `glyphs.py`.

    Raises:
        Missing: matplotlib, whose font it takes, or Pillow is not here.
    """
    try:
        import glyphs
    except ImportError as error:
        raise Missing(f"the glyphs of matplotlib's font: {error}") from error
    trained = glyphs.train()
    fit_ND, judged_ND = trained.hidden(rows=12_000, seed=1), trained.hidden(rows=JUDGED_ROWS, seed=2)
    return LogitSource(
        name="classifier of 1,000 glyphs",
        facts=f"C = 1,000, d = {fit_ND.shape[1]}, top-1 {trained.accuracy:.3f}, label smoothing "
        f"{glyphs.LABEL_SMOOTHING}; {len(fit_ND):,} rows to fit on, of images that it was not trained on",
        fit_NC=trained.logits(fit_ND),
        judged_NC=trained.logits(judged_ND),
        features_ND=_features(judged_ND),
        output_layer_CD=trained.output_CD,
    )


def noise_source() -> LogitSource:
    """Zipf's law with noise of its own in every logit: rank C, so that a basis holds nothing but the mean."""
    rng = np.random.default_rng(0)
    classes = 32_768
    mean_C = (-2.2 * np.log(10 + np.arange(classes))).astype(np.float32)

    def rows(count: int) -> NDArray[np.float32]:
        return mean_C + 1.95 * rng.standard_normal((count, classes), dtype=np.float32)

    return LogitSource(
        name="synthetic, not of low rank",
        facts=f"C = {classes:,}, logits -2.2 log(10 + class) + 1.95 N(0, 1), independent",
        fit_NC=rows(4_096),
        judged_NC=rows(JUDGED_ROWS),
        features_ND=rng.standard_normal((JUDGED_ROWS, FEATURES), dtype=np.float32),
    )


SOURCES: dict[str, Callable[[], LogitSource]] = {
    "smollm2": smollm2_source,
    "glyphs": glyph_source,
    "noise": noise_source,
}


def _mixed(rows_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    return rows_ND[np.random.default_rng(1).permutation(len(rows_ND))]


def _features(hidden_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """A smaller student's view of the same rows: a random projection, each feature standardised."""
    rng = np.random.default_rng(2)
    features_NF = hidden_ND @ rng.standard_normal((hidden_ND.shape[1], FEATURES), dtype=np.float32)
    features_NF -= features_NF.mean(axis=0)
    return features_NF / features_NF.std(axis=0)
