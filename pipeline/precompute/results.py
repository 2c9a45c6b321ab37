"""What a run tells: what it would do, where it stands, how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from softcask.pipeline.plan import Task
from softcask.storage_schemas.runs import RunProgress


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One step of a run, for whoever watches.

    Attributes:
        stage: `index`, `try codecs` or `label`.
        done: Rows done of this stage; of `label`, rows times teachers; of `try codecs`, teachers.
        total: Of all of this stage.
        task: The task that ended, in `label`.
        seconds: Time by stage of that task; of `try codecs`, device-seconds of a teacher that was tried.
        live: All that is known of where the run stands, as of a second ago; None before it has begun.
    """

    stage: str
    done: int
    total: int
    task: Task | None = None
    seconds: Mapping[str, float] | None = None
    live: RunProgress | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherSummary:
    """What the store holds of one teacher, and what this run added.

    Attributes:
        rows: Rows with logits, in all.
        new_rows: Rows labelled by this run.
        units: Units committed, in all.
        labelled: Rows with a label among `rows`.
        correct: Labelled rows whose top-1 is their label.
        bytes: Bytes of all its units' objects.
        device_seconds: What this run's forward passes took.
        codec: How its logits are kept.
        codec_reason: Why, where that was chosen by a trial.
        suspicious: Whether its top-1 looks like guessing.
    """

    rows: int
    new_rows: int
    units: int
    labelled: int
    correct: int
    bytes: int
    device_seconds: float
    codec: str
    codec_reason: str
    suspicious: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """How a run ended.

    Attributes:
        store: URI of the store.
        generation: Sealed generation that holds everything.
        rows: Readable rows of the transfer set.
        views: Numbers of the views that were to be labelled; 0 is the rows as they are.
        quarantined: Rows that could not be read.
        quarantine_tables: Keys of the tables that tell why, where there are such rows.
        unit_rows: Rows a unit.
        tasks: Tasks that this run did.
        teachers: By name, those of the config.
        wall_seconds: From start to end.
        workers: Workers used.
        run: Name of the record under `runs/`, or None where nothing was done.
        warnings: What should be looked at, in the order it was found.
    """

    store: str
    generation: int
    rows: int
    views: tuple[int, ...]
    quarantined: int
    quarantine_tables: tuple[str, ...]
    unit_rows: int
    tasks: int
    teachers: dict[str, TeacherSummary]
    wall_seconds: float
    workers: int
    run: str | None
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherPlan:
    """What is to be done for one teacher.

    Attributes:
        units: Units in all.
        committed: Units that are committed.
        rows: Rows that are still to be labelled.
        bytes: Estimated bytes they will take.
        group: The workers it lives in.
        codec: How its logits are kept; empty where only a trial can tell, or none meets the budget.
        chosen: Which of `trials` that is, where these decided it.
        unmet: Whether no codec meets the budget, so that `precompute` would refuse.
        trials: What each codec did on a sample; see `softcask.pipeline.codec_choice.trials.Trial.to_dict`.
        reason: Which codec was chosen by that and why, or why none could be.
        seconds: Estimated time of its forward passes on one device; None without a trial.
    """

    units: int
    committed: int
    rows: int
    bytes: int
    group: str
    codec: str
    chosen: str
    unmet: bool
    trials: tuple[dict[str, Any], ...]
    reason: str
    seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What `precompute` would do.

    Attributes:
        store: URI of the store.
        rows: Rows of the transfer set.
        views: Numbers of the views that are to be labelled; 0 is the rows as they are.
        unit_rows: Rows a unit.
        teachers: By name.
        free_bytes: Free space where the store lies; None where that cannot be told.
    """

    store: str
    rows: int
    views: tuple[int, ...]
    unit_rows: int
    teachers: dict[str, TeacherPlan]
    free_bytes: int | None
