from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from softcask.storage_schemas.codecs.lowrank.calibration import Calibration, fit
from softcask.storage_schemas.codecs.lowrank.codec import Lowrank
from softcask.storage_schemas.codecs.lowrank.spectrum import Spectrum
from softcask.storage_schemas.errors import ConfigError
from softcask.storage_schemas.parquet_layout import PartLayout

CLASSES, WIDTH = 400, 12
GENERATOR = np.random.default_rng(0)
OUTPUT_CD = GENERATOR.normal(size=(CLASSES, WIDTH)) * np.geomspace(1.5, 0.1, WIDTH)
BIAS_C = -1.2 * np.log(np.arange(1, CLASSES + 1))
TEMPERATURES = (0.5, 1.0, 4.0)


def teacher_rows(rows: int, seed: int) -> NDArray[np.float32]:
    """Logits of a linear layer with a bias as word frequencies have it: rank 12 around their mean."""
    hidden_RD = np.random.default_rng(seed).normal(size=(rows, WIDTH))
    return (hidden_RD @ OUTPUT_CD.T + BIAS_C).astype(np.float32)


def mean_kl(codec: Lowrank, logits_RC: NDArray[np.float32], temperature: float) -> float:
    logs = []
    for rows_RC in (logits_RC, codec.decode(codec.encode(logits_RC)).shifted_BC):
        scaled_RC = rows_RC.astype(np.float64) / temperature
        scaled_RC -= scaled_RC.max(axis=1, keepdims=True)
        logs.append(scaled_RC - np.log(np.exp(scaled_RC).sum(axis=1, keepdims=True)))
    return float((np.exp(logs[0]) * (logs[0] - logs[1])).sum(axis=1).mean())


@pytest.fixture(scope="module")
def calibration() -> Calibration:
    return Calibration.of(teacher_rows(600, 1), teacher_rows(96, 2), temperatures=TEMPERATURES)


def test_the_directions_are_those_of_the_teachers_output_layer(calibration: Calibration) -> None:
    spectrum = calibration.spectrum
    assert spectrum.basis_Cm.shape == (CLASSES, WIDTH)
    weights_C = spectrum.weights_C.astype(np.float64)
    assert weights_C.sum() == pytest.approx(1, abs=1e-6)
    gram = spectrum.basis_Cm.T @ (weights_C[:, None] * spectrum.basis_Cm)
    np.testing.assert_allclose(gram, np.eye(WIDTH), atol=2e-3)
    # Variances of hidden units are 1 each: the spectrum is that of sqrt(w) (W - w.W), up to the sample.
    centred_CD = OUTPUT_CD - weights_C @ OUTPUT_CD
    expected = np.linalg.svd(np.sqrt(weights_C)[:, None] * centred_CD, compute_uv=False)
    np.testing.assert_allclose(spectrum.deviations_m, expected, rtol=0.15)


def test_the_output_layer_gives_the_directions_from_a_handful_of_noisy_rows() -> None:
    noise_RC = np.random.default_rng(9).normal(0, 0.3, (40, CLASSES)).astype(np.float32)
    few_RC = teacher_rows(40, 5) + noise_RC
    above_RC = teacher_rows(50, 6) - BIAS_C

    def missed(spectrum: Spectrum) -> float:
        weights_C = spectrum.weights_C
        centred_RC = above_RC - (above_RC @ weights_C)[:, None]
        basis_CD = spectrum.basis_Cm[:, :WIDTH]
        left_RC = centred_RC - (centred_RC * weights_C) @ basis_CD @ basis_CD.T
        return float((left_RC**2 @ weights_C).mean() / (centred_RC**2 @ weights_C).mean())

    assert missed(Spectrum.of(few_RC, TEMPERATURES, OUTPUT_CD)) < 1e-6
    assert missed(Spectrum.of(few_RC, TEMPERATURES)) > 1e-4


def test_what_it_reports_is_what_the_held_out_rows_lose(calibration: Calibration) -> None:
    fitted = calibration.within_bytes(24)
    held_out_RC = teacher_rows(96, 2)
    for temperature, loss in fitted.kl.items():
        assert loss == pytest.approx(mean_kl(fitted.codec, held_out_RC, temperature), rel=1e-3)
        assert fitted.codec.settings.fit["kl"][f"{temperature:g}"] == pytest.approx(loss, rel=1e-3)
    assert fitted.codec.temperatures == (0.5, 4.0)
    again = Lowrank.from_spec(fitted.codec.to_spec(), fitted.codec.arrays())
    assert again == fitted.codec


@pytest.mark.parametrize("coder", ["zstd", "ans"])
def test_other_rows_take_the_bytes_that_it_promised_and_lose_as_much(coder: str) -> None:
    if coder == "ans":
        pytest.importorskip("constriction")
    base = Calibration.of(teacher_rows(2000, 1), teacher_rows(400, 2), temperatures=TEMPERATURES)
    fitted = dataclasses.replace(base, coder=coder, _sizes={}).within_bytes(20)
    assert fitted.row_bytes <= 20
    others_RC = teacher_rows(2000, 3)
    columns = fitted.codec.encode(others_RC)
    part = PartLayout(columns=fitted.codec.columns(CLASSES)).encode_part(np.arange(2000), columns)
    assert 0.8 * fitted.row_bytes < len(part) / 2000 <= fitted.row_bytes
    for temperature, loss in fitted.kl.items():
        assert 0.4 * loss < mean_kl(fitted.codec, others_RC[:500], temperature) < 2.5 * loss


def test_more_bytes_lose_less_and_far_less_than_a_head_alone(calibration: Calibration) -> None:
    losses = [calibration.within_bytes(size).kl[1.0] for size in (16, 24, 32)]
    assert losses[0] > 1.5 * losses[1] > 2 * losses[2]
    fitted = calibration.within_bytes(24)
    settings = fitted.codec.settings.model_copy(update={"rank": 0, "coefficient_bytes": 0, "head_size": 9})
    none = {name: array[..., :0] for name, array in fitted.codec.arrays().items()}
    kept = {name: fitted.codec.arrays()[name] for name in ("mean", "weights")}
    spec = fitted.codec.to_spec().model_copy(update={"configuration": settings.model_dump(mode="json")})
    head_alone = Lowrank.from_spec(spec, none | kept)
    assert fitted.kl[1.0] < 0.2 * mean_kl(head_alone, teacher_rows(96, 2), 1.0)


def test_more_bytes_than_a_teacher_of_few_directions_can_use_do_not_cut_its_codes() -> None:
    basis_CR = np.random.default_rng(4).standard_normal((400, 4))
    rows_RC = (np.random.default_rng(5).standard_normal((1_200, 4)) @ basis_CR.T).astype(np.float32)
    calibration = Calibration.of(rows_RC[:1_000], rows_RC[1_000:])
    for max_bytes in (64, 128, 192, 256):
        codec = calibration.within_bytes(max_bytes).codec
        for temperature in (1.0, 4.0):
            assert mean_kl(codec, rows_RC[1_000:], temperature) < 5e-4


def test_a_teacher_without_common_directions_keeps_a_head_over_its_mean_row() -> None:
    generator = np.random.default_rng(7)
    rows_RC = (generator.normal(0, 1, (300, 600)) + 6 * (generator.random((300, 600)) < 0.01)).astype(
        np.float32
    )
    fitted = fit(rows_RC[:200], rows_RC[200:], max_bytes=24, temperatures=(0.5, 1.0))
    assert fitted.codec.settings.rank == 0
    assert fitted.row_bytes <= 24


def test_a_budget_of_kl_is_kept_at_every_temperature(calibration: Calibration) -> None:
    loose, strict = calibration.within_kl(0.3), calibration.within_kl(0.0003)
    assert max(loose.kl.values()) <= 0.3
    assert max(strict.kl.values()) <= 0.0003
    assert loose.row_bytes < strict.row_bytes


def test_budgets_that_cannot_be_kept_are_refused(calibration: Calibration) -> None:
    with pytest.raises(ConfigError, match="no room for a head"):
        calibration.within_bytes(1)
    for budgets in ({}, {"max_bytes": 64, "max_kl": 0.1}):
        with pytest.raises(ConfigError, match="max_bytes or to max_kl"):
            fit(teacher_rows(20, 1), teacher_rows(8, 2), temperatures=(1.0,), **budgets)
