"""Which teachers share a worker, and what each pool of workers is to do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from softcask.pipeline.executors.base import Pool
from softcask.pipeline.label import LabelRecipe, TaskReport
from softcask.pipeline.plan import Task
from softcask.pipeline.precompute.config import RunConfig
from softcask.pipeline.teachers.base import TeacherOptions
from softcask.storage_schemas.errors import ConfigError
from softcask.storage_schemas.manifest import TeacherManifest

Groups = Mapping[str, tuple[TeacherOptions, ...]]


def group_teachers(teachers: Sequence[TeacherOptions]) -> Groups:
    """Teachers that live in one worker: those of one stated group, or with equal needs.

    Raises:
        ConfigError: Teachers of one stated group have other needs or another batch size.
    """
    groups: dict[str, list[TeacherOptions]] = defaultdict(list)
    for teacher in teachers:
        needs = f"{teacher.num_cpus} CPU, {teacher.num_gpus:g} GPU, batches of {teacher.batch_size}"
        groups[f"group {teacher.group!r}" if teacher.group is not None else needs].append(teacher)
    for name, members in groups.items():
        for field in ("batch_size", "num_cpus", "num_gpus"):
            values = {getattr(member, field) for member in members}
            if len(values) > 1:
                raise ConfigError(
                    f"the teachers of {name} ({', '.join(member.name for member in members)}) share a "
                    f"worker and its batches, but have {field} {sorted(values)}; give them one value, "
                    "or other groups"
                )
    return {name: tuple(members) for name, members in groups.items()}


def pools(
    config: RunConfig,
    groups: Groups,
    manifests: Mapping[str, TeacherManifest],
    tasks: Sequence[Task],
    witness: str,
) -> list[Pool[Task, TaskReport]]:
    """A pool a group, with the teachers that have something to do; `witness` as in `LabelRecipe`."""
    pools = []
    for group, members in groups.items():
        mine = [task for task in tasks if task.group == group]
        busy = {name for task in mine for name in task.teachers}
        teachers = tuple(member for member in members if member.name in busy)
        if teachers:
            recipe = LabelRecipe(
                store_uri=config.store.uri,
                transfer_set=config.transfer_set,
                teachers=teachers,
                manifests=tuple(manifests[teacher.name] for teacher in teachers),
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
                )
            )
    return pools
