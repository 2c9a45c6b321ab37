"""Which codec keeps a teacher's logits: the one that does already, the one named, or what a trial finds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from softcask.pipeline.codec_choice.request import CodecRequest
from softcask.pipeline.codec_choice.trials import head_size, topk_codec
from softcask.pipeline.codec_choice.worker import TrialRecipe, TrialReport, TrialTask
from softcask.pipeline.executors.base import Executor, Failure, Pool
from softcask.pipeline.pinning import is_pinned
from softcask.pipeline.precompute.config import RunConfig
from softcask.pipeline.precompute.results import Progress
from softcask.pipeline.store.access.objects import StoreObjects
from softcask.pipeline.teachers.base import TeacherOptions
from softcask.storage_schemas import keys
from softcask.storage_schemas.codecs.base import Codec
from softcask.storage_schemas.codecs.dense8 import Dense8
from softcask.storage_schemas.codecs.dense16 import Dense16
from softcask.storage_schemas.codecs.fidelity import TEMPERATURES
from softcask.storage_schemas.codecs.registry import codec_from
from softcask.storage_schemas.codecs.topk import TopK
from softcask.storage_schemas.manifest import CodecSpec, Fidelity, TeacherManifest

STATS_BYTES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """How one teacher's logits are kept.

    Attributes:
        codec: With what it keeps once.
        classes: Logits a row that it keeps.
        request: What a teacher's name is pinned to of the request.
        expected: How well it does on rows that it was not fitted on.
        stats: Whether units have statistics.
        recorded: Facts that do not count: trials, the reason.
    """

    codec: CodecSpec
    classes: int
    request: dict[str, Any] = field(default_factory=dict)
    expected: tuple[Fidelity, ...] = ()
    stats: bool = True
    recorded: dict[str, Any] = field(default_factory=dict)

    @property
    def row_bytes(self) -> int:
        """Bytes a row on disk, about."""
        measured = self.recorded.get("row_bytes")
        columns = codec_from(self.codec).columns(self.classes)
        stored = sum(column.row_bytes for column in columns) if measured is None else measured
        return int(stored) + (STATS_BYTES if self.stats else 0)


def settled_codecs(config: RunConfig, objects: StoreObjects) -> dict[str, Settled]:
    """Codecs by teacher, of those teachers whose codec is known without a trial."""
    found = {teacher.name: _settled(config, objects, teacher) for teacher in config.teachers}
    return {name: settled for name, settled in found.items() if settled is not None}


def estimated_row_bytes(config: RunConfig, settled: Mapping[str, Settled]) -> int:
    """Bytes a row of the teacher that takes most, about, before any trial."""
    classes = len(config.classes.class_names)
    sizes = [known.row_bytes for known in settled.values()]
    if len(settled) < len(config.teachers):
        request = config.store.codec.resolved(classes)
        sizes.append(request.max_bytes or 2 * classes)
    return max(sizes)


def find_codecs(
    config: RunConfig,
    objects: StoreObjects,
    executor: Executor,
    teachers: Sequence[TeacherOptions],
    watch: Callable[[Progress], None],
) -> dict[str, Settled]:
    """Run these teachers on a sample, and choose.

    Raises:
        ConfigError: No codec meets the budget.
    """
    request = config.store.codec.resolved(len(config.classes.class_names))
    return {
        report.teacher: _chosen(config, objects, report)
        for report in run_trials(config, executor, teachers, request, watch, publish=True)
    }


def run_trials(
    config: RunConfig,
    executor: Executor,
    teachers: Sequence[TeacherOptions],
    request: CodecRequest,
    watch: Callable[[Progress], None],
    *,
    publish: bool,
) -> list[TrialReport]:
    """A report a teacher, from where teachers run."""
    pools = [
        Pool(
            name=teacher.name,
            recipe=TrialRecipe(
                store_uri=config.store.uri,
                transfer_set=config.transfer_set,
                teacher=teacher,
                num_classes=len(config.classes.class_names),
                python_path=config.python_path,
            ),
            tasks=[TrialTask(request=request, publish=publish)],
            num_cpus=teacher.num_cpus,
            num_gpus=teacher.num_gpus,
        )
        for teacher in teachers
    ]
    watch(Progress(stage="try codecs", done=0, total=len(pools)))
    reports = []
    for report in executor.run(pools):
        if isinstance(report, Failure):
            raise report.error
        reports.append(report)
        spent = {report.teacher: report.rows * report.seconds_a_row}
        watch(Progress(stage="try codecs", done=len(reports), total=len(pools), seconds=spent))
    return reports


def _settled(config: RunConfig, objects: StoreObjects, teacher: TeacherOptions) -> Settled | None:
    wanted, options = config.store.codec, config.store
    standing = _standing(objects, teacher.name)
    facts = _facts(wanted)
    unsaid = wanted == CodecRequest()
    if standing is not None and (unsaid or (facts and standing.codec_request == facts)):
        return _kept(standing, config)
    settled = settled_anew(config, objects, teacher)
    if settled is None or standing is None or options.compression != "auto":
        return settled
    codec = settled.codec.model_copy(update={"compression": standing.codec.compression})
    return replace(settled, codec=codec)


def settled_anew(config: RunConfig, objects: StoreObjects, teacher: TeacherOptions) -> Settled | None:
    """What a teacher's logits are kept by that the store does not have; None where a trial has to tell."""
    resolved = config.store.codec.resolved(len(config.classes.class_names))
    if resolved.needs_trial:
        return None
    classes = _stored_classes(config, teacher)
    spec = _named(resolved, classes).to_spec()
    compression = _compression(config, objects, spec)
    codec = spec.model_copy(update={"compression": compression})
    return Settled(codec=codec, classes=classes, stats=config.store.stats)


def _stored_classes(config: RunConfig, teacher: TeacherOptions) -> int:
    return len(config.classes.class_names) - len(teacher.absent_classes)


def _named(request: CodecRequest, classes: int) -> Codec:
    """A codec that can be told from its name alone."""
    if request.name == TopK.name:
        temperatures = tuple(sorted({*TEMPERATURES, *request.temperatures}))
        return topk_codec(head_size(request, classes), classes, temperatures)
    return Dense8() if request.name == Dense8.name else Dense16()


def _facts(request: CodecRequest) -> dict[str, Any]:
    """Of a request that names a codec of known size nothing is pinned but that codec itself."""
    return request.facts() if request.name is None or request.needs_trial else {}


def _kept(standing: TeacherManifest, config: RunConfig) -> Settled:
    options = config.store
    codec = standing.codec
    if options.compression != "auto":
        codec = codec.model_copy(update={"compression": options.compression})
    return Settled(
        codec=codec,
        classes=standing.stored_classes,
        request=standing.codec_request,
        expected=standing.expected_fidelity,
        stats=options.stats,
        recorded=dict(standing.recorded.get("codec", {})),
    )


def _chosen(config: RunConfig, objects: StoreObjects, report: TrialReport) -> Settled:
    codec = cast(CodecSpec, report.codec)  # a trial that publishes has one, or raises
    compression = _compression(config, objects, codec)
    (teacher,) = (each for each in config.teachers if each.name == report.teacher)
    return Settled(
        codec=codec.model_copy(update={"compression": compression}),
        classes=_stored_classes(config, teacher),
        request=_facts(config.store.codec),
        expected=report.expected,
        stats=config.store.stats,
        recorded={"reason": report.reason, "rows": report.rows, "row_bytes": report.row_bytes},
    )


def _compression(config: RunConfig, objects: StoreObjects, codec: CodecSpec) -> Literal["none", "blosc"]:
    if codec.container != "zarr":
        return "none"
    if config.store.compression != "auto":
        return config.store.compression
    return "none" if objects.local is not None else "blosc"


def refuse_other_request(config: RunConfig, objects: StoreObjects, manifest: TeacherManifest) -> None:
    """Refuse a name whose units were committed by another budget, before a trial costs anything.

    Args:
        config: The run.
        objects: The store.
        manifest: What the teacher would be pinned to, with any codec.

    Raises:
        ManifestMismatch: Units are committed under its name; lists the fields.
    """
    if (standing := _standing(objects, manifest.name)) is not None:
        update = {"codec": standing.codec, "expected_fidelity": standing.expected_fidelity}
        is_pinned(objects, manifest.model_copy(update=update | {"codec_request": _facts(config.store.codec)}))


def _standing(objects: StoreObjects, name: str) -> TeacherManifest | None:
    key = keys.teacher_manifest(name)
    data = objects.read_if_present(key)
    return TeacherManifest.from_bytes(data, key) if data is not None else None
