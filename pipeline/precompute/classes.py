"""What the classes of a run are, where its file leaves that to a teacher's model.

Reading a model's files may fetch them, so it is not part of validating a run file; it is the first thing that
a run does.
"""

from __future__ import annotations

from softcask.pipeline.precompute.config import ClassesOptions, RunConfig
from softcask.pipeline.teachers.base import TeacherOptions
from softcask.pipeline.teachers.outputs import BY_NAME, kept_outputs, names_outputs, shown_names
from softcask.storage_schemas.errors import ConfigError, TeacherError


def with_classes(config: RunConfig) -> RunConfig:
    """The same run, its classes named, and no teacher's `class_map` left to be found by those names.

    Raises:
        ConfigError: A class map goes by names, and the run's classes have only numbers.
        TeacherError: The teacher that is to name the classes does not, a class map has a name that no output
            has, or a model's files cannot be had.
    """
    classes = config.classes
    if classes.from_teacher is not None:
        (teacher,) = (each for each in config.teachers if each.name == classes.from_teacher)
        classes = ClassesOptions(names=_names_of(teacher))
    teachers = tuple(_by_names(teacher, classes) for teacher in config.teachers)
    if classes is config.classes and teachers == config.teachers:
        return config
    return config.model_copy(update={"classes": classes, "teachers": teachers})


def _names_of(teacher: TeacherOptions) -> tuple[str, ...]:
    """Names of the outputs that a teacher keeps, each once."""
    try:
        outputs = teacher.output_names()
        if outputs is None:
            raise TeacherError("[classes] from_teacher names it, but its model does not name its outputs")
        kept = kept_outputs(getattr(teacher, "class_map", None), outputs)
    except TeacherError as error:
        raise TeacherError(f"teacher {teacher.name!r}: {error}") from error
    names = shown_names(outputs)
    return names if kept is None else tuple(names[output] for output in kept)


def _by_names(teacher: TeacherOptions, classes: ClassesOptions) -> TeacherOptions:
    """With the run's names in place of "by_name", once all names are known to be outputs' names."""
    class_map = getattr(teacher, "class_map", None)
    if class_map == BY_NAME:
        if classes.names is None:
            raise ConfigError(
                f'teacher {teacher.name!r}: class_map = "by_name" goes by the names of [classes], which '
                "has count alone: state names, or from_teacher"
            )
        teacher, class_map = teacher.model_copy(update={"class_map": classes.names}), classes.names
    if names_outputs(class_map):  # now rather than by a worker
        try:
            kept_outputs(class_map, teacher.output_names())
        except TeacherError as error:
            raise TeacherError(f"teacher {teacher.name!r}: {error}") from error
    return teacher
