"""What is told of runs: while they are at work, when they ended, and what students saved by them.

All of it lies under `runs/` or beside a student, and none is part of a store's identity: it holds times,
hosts and whatever else differs between two runs that make equal stores.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from softcask.storage_schemas.manifest import Count, Facts, Manifest, Name, Part, later

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Outcome = Literal["", "finished", "failed", "interrupted", "refused"]
"""How a run ended; empty while it is at work, and where a record of before does not say."""


class FailedUnit(Part):
    """A unit that a run gave up; a later run tries it again.

    Attributes:
        teachers: Whose.
        unit: Its name within each; empty where all that was left of these teachers was given up.
        attempts: How often it was tried.
        error: What went wrong the last time.
    """

    teachers: tuple[str, ...]
    unit: str
    attempts: Count
    error: str


class RunRecord(Manifest):
    """`runs/RUN/run.json`: what one run measured; never part of identity.

    Attributes:
        run: Its name.
        started: UTC, ISO 8601.
        wall_seconds: From start to end.
        executor: Kind of executor.
        workers: Actors, or 1.
        host: Name of the driver's machine.
        versions: Packages and Python, on the driver's machine.
        units: Units committed by this run, by teacher.
        rows: Rows labelled by this run, by teacher.
        device_seconds: Seconds a teacher's forward passes held their device; of a teacher that is given
            several GPUs or a share of one, times that number. Work that was not needed in the end is in it,
            too.
        stage_seconds: Seconds spent to read, encode and write, summed over workers.
        devices: Names of the devices used.
        outcome: How it ended.
        error: What ended it, where that was an error.
        bytes: Bytes of the objects that it wrote.
        retries: Tasks that were run again because their worker was lost or failed.
        failed: Tasks that were given up.
        given_up: They, the first ten thousand of them.
        repeated: Of `device_seconds`, what went into units that another had committed meanwhile, by teacher.
        trials: Device-seconds beside those, of teachers that were run on a sample to choose a codec.
        gpus: GPUs that a worker of a teacher held, where it held any.
        conditions: What a teacher computed under, as its workers told: one entry for each that differs.
        may_differ: Why another run over the same rows may give other bits, by teacher; empty: it gives the
            same where all of `conditions` are the same.
    """

    softcask: ClassVar[str] = "run"
    run: Name
    started: str
    wall_seconds: float
    executor: str
    workers: int
    host: str
    versions: dict[str, str]
    units: dict[str, int]
    rows: dict[str, int]
    device_seconds: dict[str, Seconds]
    stage_seconds: dict[str, Seconds]
    devices: tuple[str, ...]
    outcome: Outcome = later("")
    error: str = later("")
    bytes: Count = later(0)
    retries: Count = later(0)
    failed: Count = later(0)
    given_up: tuple[FailedUnit, ...] = later(())
    repeated: dict[str, Seconds] = later({})
    trials: dict[str, Seconds] = later({})
    gpus: dict[str, Amount] = later({})
    conditions: dict[str, tuple[Facts, ...]] = later({})
    may_differ: dict[str, tuple[str, ...]] = later({})


class RunProgress(Manifest):
    """`runs/RUN/progress.json`: where a run stands; its driver replaces it as long as it is at work.

    A driver that was killed leaves what it said last, and `updated` does not move any more.

    Attributes:
        run: Its name.
        started: UTC, ISO 8601.
        updated: When this was said, UTC, ISO 8601, by the driver's clock.
        beat: How often it was said before; moves as long as the driver lives, whatever its clock does.
        interval: Seconds after which it is said again.
        host: Name of the driver's machine.
        process: By what the driver is known on that machine: boot and process namespace, number, start; None
            where the system does not tell.
        executor: Kind of executor.
        other_drivers: What this driver does about others at work on the store.
        stage: `index`, `try codecs`, `label` or `seal`; what it is at.
        outcome: How it ended; empty while it is at work.
        error: The last error it met, whether or not that ended it.
        wall_seconds: Since it started.
        done: Of the stage: rows indexed, teachers tried, or rows labelled, times teachers.
        total: Of all of this stage.
        units: Units committed by this run, by teacher.
        rows: Rows labelled by this run, by teacher.
        device_seconds: As `RunRecord.device_seconds`.
        repeated: As `RunRecord.repeated`.
        stage_seconds: As `RunRecord.stage_seconds`.
        bytes: Bytes of the objects that it wrote.
        rows_per_second: Rows, times teachers, of late; 0 where nothing is known yet.
        busy: Share of the time that devices were held by a forward pass, of late.
        seconds_left: At that rate; None where that cannot be told.
        workers: Workers that are at work.
        starting: Workers that were asked for and are not at work yet.
        in_flight: Tasks under way.
        retries: As `RunRecord.retries`.
        failed: As `RunRecord.failed`.
        missing: What the run waits for that the cluster lacks; empty where it lacks nothing.
    """

    softcask: ClassVar[str] = "progress"
    run: Name
    started: str
    updated: str
    beat: Count
    interval: Seconds
    host: str
    process: tuple[str, int, int] | None = None
    executor: str
    other_drivers: Literal["cooperate", "refuse"] = "cooperate"
    stage: str
    outcome: Outcome = ""
    error: str = ""
    wall_seconds: Seconds = 0.0
    done: Count = 0
    total: Count = 0
    units: dict[str, Count] = Field(default={})
    rows: dict[str, Count] = Field(default={})
    device_seconds: dict[str, Seconds] = Field(default={})
    repeated: dict[str, Seconds] = Field(default={})
    stage_seconds: dict[str, Seconds] = Field(default={})
    bytes: Count = 0
    rows_per_second: Amount = 0.0
    busy: Amount = 0.0
    seconds_left: Seconds | None = None
    workers: Count = 0
    starting: Count = 0
    in_flight: Count = 0
    retries: Count = 0
    failed: Count = 0
    missing: str = ""


class RunClaim(Manifest):
    """`runs/claims/NUMBER.json`: whose turn it is, among drivers that want a store for themselves.

    The newest one counts, until its run has ended or gives no sign of life. It is made only where no object
    of its name stands, so that of two that want one number, one gets it.

    Attributes:
        number: From 1.
        run: Whose.
        host: Name of its driver's machine.
        claimed: When, UTC, ISO 8601, by that driver's clock.
    """

    softcask: ClassVar[str] = "claim"
    number: Annotated[int, Field(ge=1, lt=10**8)]
    run: Name
    host: str
    claimed: str


class TeacherReuse(Part):
    """What a student used of one teacher's passes.

    Attributes:
        teacher: Its name in the store.
        fingerprint: Digest of what identifies it.
        rows: Rows an epoch.
        seconds_a_row: Device-seconds that its pass over a row took, as the store's runs say; None where they
            do not (logits that were imported, a store of which `runs/` was removed).
        through: Entries of the store that were read and stand for it: its own, or those made from it.
    """

    teacher: Name
    fingerprint: str
    rows: Count
    seconds_a_row: Seconds | None
    through: tuple[str, ...]

    @property
    def saved_seconds(self) -> float | None:
        """Device-seconds of one pass over the rows."""
        return None if self.seconds_a_row is None else self.seconds_a_row * self.rows


class StudentSavings(Manifest):
    """`savings.json` in a student's output: what it used of teachers' passes instead of running them.

    Attributes:
        store: Digest of the store's class names and first segment, by which it is known again.
        written: UTC, ISO 8601.
        epochs: Epochs it was trained.
        teachers: What it used of each.
    """

    softcask: ClassVar[str] = "savings"
    store: str
    written: str
    epochs: Count
    teachers: tuple[TeacherReuse, ...]
