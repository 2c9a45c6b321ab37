"""A student's file: which store, which soft targets, which model, trained how. Checked without torch."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Annotated, Any

from pydantic import AfterValidator

from softcask.pipeline.config.sections import ByKind
from softcask.pipeline.config.toml import load_toml
from softcask.pipeline.parts import Options, ResolvedPath
from softcask.pipeline.preprocessing import PreprocessingOptions
from softcask.pipeline.student.bias import BiasCorrectionOptions
from softcask.pipeline.student.loading.joining import Coverage, Match
from softcask.pipeline.student.loading.selecting import Selection
from softcask.pipeline.student.losses.base import LossOptions
from softcask.pipeline.student.losses.distillation import Distillation
from softcask.pipeline.student.losses.registry import LOSSES
from softcask.pipeline.student.options import ModelOptions, OptimiserOptions, TrainingOptions
from softcask.pipeline.targets.options import TargetOptions
from softcask.pipeline.transfer_sets.base import SourceOptions
from softcask.pipeline.transfer_sets.registry import SOURCES
from softcask.pipeline.views.options import ViewsOptions
from softcask.storage_schemas.errors import ConfigError


def _local(path: str) -> str:
    if "://" in path or "::" in path:
        raise ConfigError(
            f"found {path!r}, expected a local folder: checkpoints are replaced in one step there"
        )
    return path


class StudentConfig(Options):
    """One student.

    Attributes:
        store: Where the teachers' logits are: a local path or an fsspec URL.
        allow_partial: Open the store although not all that was planned is labelled and sealed.
        rows: `all`: inputs and stored rows must be the same; `intersection`: train on those that both have.
        match: `content`: each input must be what the teachers saw; `id`: its id suffices where the store does
            not know what they saw, as of imported logits.
        python_path: Folders that factories may be imported from; relative ones start at the file's folder.
        output: Local folder for checkpoint, model and result.
        targets: `[targets]`: which teachers, how combined, how soft.
        transfer_set: `[transfer_set]`: the inputs, of any kind of source.
        select: `[select]`: which rows; None: all.
        views: `[views]`: what the views of the store's rows do, as in the file of the run that labelled them;
            needed only where that takes code of one's own. None: what the store says.
        evaluation: `[evaluation]`: a labelled transfer set to count errors on; None: none.
        preprocessing: `[preprocessing]`: what is done to each row before the model.
        model: `[model]`: its factory.
        loss: `[loss]`: of any kind; distillation by default.
        optimiser: `[optimiser]`.
        training: `[training]`: epochs, batch size, seed, device.
        bias_correction: `[bias_correction]`: classes whose bias is mended on held-out rows once all epochs
            are trained; None: none.
    """

    store: ResolvedPath
    allow_partial: bool = False
    rows: Coverage = "all"
    match: Match = "content"
    python_path: tuple[ResolvedPath, ...] = (".",)
    output: Annotated[ResolvedPath, AfterValidator(_local)]
    targets: TargetOptions = TargetOptions()
    transfer_set: Annotated[SourceOptions, ByKind(SOURCES)]
    select: Selection | None = None
    views: ViewsOptions | None = None
    evaluation: Annotated[SourceOptions, ByKind(SOURCES)] | None = None
    preprocessing: PreprocessingOptions = PreprocessingOptions()
    model: ModelOptions
    loss: Annotated[LossOptions, ByKind(LOSSES)] = Distillation()
    optimiser: OptimiserOptions = OptimiserOptions()
    training: TrainingOptions = TrainingOptions()
    bias_correction: BiasCorrectionOptions | None = None


def load_student(path: str | PathLike[str], overrides: Mapping[str, Any] | None = None) -> StudentConfig:
    """A student's file, validated as a whole.

    Args:
        path: The TOML file; relative paths in it start at its folder.
        overrides: Values put in place of the file's, by key path, as `parse_overrides` makes them.

    Raises:
        ConfigError: No such file, not TOML, or not valid; every problem with its place.
    """
    return load_toml(path, StudentConfig, overrides=overrides)
