"""Which teachers share a worker, and what each pool of workers is to do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from softcask.pipeline.executors.base import Pool
from softcask.pipeline.label import LabelRecipe, TaskReport
from softcask.pipeline.plan import Task, Tasks
from softcask.pipeline.precompute.config import RunConfig
from softcask.pipeline.teachers.base import TeacherOptions
from softcask.storage_schemas.errors import ConfigError
from softcask.storage_schemas.manifest import TeacherManifest

_WEIGHTS_TIMES, _CONTEXT_GB = 1.2, 1.0
"""Of a teacher that does not state it: weights, what a batch needs beside them, a device's context."""

Groups = Mapping[str, tuple[TeacherOptions, ...]]


def group_teachers(teachers: Sequence[TeacherOptions], gpu_memory_gb: float | None = None) -> Groups:
    """Teachers that live in one worker: those of one stated group, or with equal needs that fit together.

    Args:
        teachers: Those of a run.
        gpu_memory_gb: Memory of a GPU; None: teachers on GPUs are not asked what they take.

    Raises:
        ConfigError: Teachers of one stated group have other needs or another batch size, or they, or one
            alone, do not fit their GPUs.
    """
    stated: dict[str, list[TeacherOptions]] = defaultdict(list)
    alike: dict[str, list[TeacherOptions]] = defaultdict(list)
    for teacher in teachers:
        needs = f"{teacher.num_cpus} CPU, {teacher.num_gpus:g} GPU, batches of {teacher.batch_size}"
        if teacher.group is not None:
            stated[f"group {teacher.group!r}"].append(teacher)
        else:
            alike[needs].append(teacher)
    for name, members in stated.items():
        _refuse_unlike(name, members)
        if len(_split(members, gpu_memory_gb)) > 1:
            raise ConfigError(f"the teachers of {name} do not fit their GPUs together: {_told(members)}")
    groups = {name: tuple(members) for name, members in stated.items()}
    for needs, members in alike.items():
        for number, part in enumerate(_split(members, gpu_memory_gb)):
            groups[f"{needs}, {number + 1}" if number else needs] = part
    return groups


def _refuse_unlike(name: str, members: Sequence[TeacherOptions]) -> None:
    for field in ("batch_size", "num_cpus", "num_gpus"):
        values = {getattr(member, field) for member in members}
        if len(values) > 1:
            found = ", ".join(sorted(map(str, values), key=lambda value: (len(value), value)))
            raise ConfigError(
                f"the teachers of {name} ({', '.join(member.name for member in members)}) share a "
                f"worker and its batches, but have {field} [{found}]; give them one value, "
                "or other groups"
            )


def _split(
    members: Sequence[TeacherOptions], gpu_memory_gb: float | None
) -> list[tuple[TeacherOptions, ...]]:
    """Teachers of equal needs, in as few workers as they fit by first fit, the largest first."""
    num_gpus = members[0].num_gpus
    if gpu_memory_gb is None or not num_gpus:
        return [tuple(members)]
    room = gpu_memory_gb * num_gpus
    workers: list[list[TeacherOptions]] = []
    for teacher in sorted(members, key=memory_gb, reverse=True):
        if memory_gb(teacher) > room:
            raise ConfigError(
                f"teacher {teacher.name!r} takes {memory_gb(teacher):.1f} GB, and num_gpus = {num_gpus:g} "
                f"gives it {room:.1f} GB (executor.gpu_memory_gb = {gpu_memory_gb:g}). Give it more GPUs or "
                "more of one, a smaller batch_size, or state its memory_gb if that is not what it takes."
            )
        fitting = (held for held in workers if sum(map(memory_gb, [*held, teacher])) <= room)
        if (held := next(fitting, None)) is not None:
            held.append(teacher)
        else:
            workers.append([teacher])
    return [tuple(teacher for teacher in members if teacher in held) for held in workers]


def memory_gb(teacher: TeacherOptions) -> float:
    """What a teacher takes, as stated, or guessed; 0 where there is nothing to guess from."""
    if teacher.memory_gb is not None:
        return teacher.memory_gb
    size = teacher.weights_bytes()
    return _WEIGHTS_TIMES * size / 1e9 + _CONTEXT_GB if size is not None else 0.0


def _told(members: Sequence[TeacherOptions]) -> str:
    return ", ".join(f"{member.name} {memory_gb(member):.1f} GB" for member in members)


def pools(
    config: RunConfig,
    groups: Groups,
    manifests: Mapping[str, TeacherManifest],
    tasks: Tasks,
    witness: str | None,
) -> list[Pool[Task, TaskReport]]:
    """A pool a group, with the teachers that have something to do; `witness` as in `LabelRecipe`."""
    pools = []
    for group, members in groups.items():
        mine = tasks.of_group(group)
        teachers = tuple(member for member in members if member.name in mine.teachers)
        if teachers:
            recipe = LabelRecipe(
                store_uri=config.store.uri,
                transfer_set=config.transfer_set,
                teachers=teachers,
                manifests=tuple(manifests[teacher.name] for teacher in teachers),
                views=config.views,
                python_path=config.python_path,
                witness=witness,
            )
            pools.append(
                Pool(
                    name=", ".join(teacher.name for teacher in teachers),
                    recipe=recipe,
                    tasks=mine,
                    num_cpus=teachers[0].num_cpus,
                    num_gpus=teachers[0].num_gpus,
                    memory_bytes=_host_memory(teachers),
                )
            )
    return pools


def _host_memory(teachers: Sequence[TeacherOptions]) -> int:
    """What Ray is to keep free for a worker without GPUs: as stated, nothing is guessed."""
    return 0 if teachers[0].num_gpus else int(sum(teacher.memory_gb or 0.0 for teacher in teachers) * 1e9)
