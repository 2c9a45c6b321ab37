"""What every kind of teacher must do, however it computes: a new kind's tests subclass this."""

from __future__ import annotations

import base64
import json
import os
import pickle
import subprocess
import sys
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from softcask.pipeline.teachers.base import TeacherOptions
from softcask.pipeline.teachers.registry import TEACHERS

_PRINT_FINGERPRINT = (
    "import base64, json, pickle, sys; "
    "options = pickle.loads(base64.b64decode(sys.argv[1])); "
    "print(json.dumps(options.fingerprint_fields(), sort_keys=True))"
)


class TeacherContract(ABC):
    """Subclass with `options`, `retrained`, `inputs_B` and `num_outputs`."""

    num_outputs: int

    @abstractmethod
    def options(self, folder: Path) -> TeacherOptions:
        """Write a teacher's files into a folder, the same ones each time, and say how it is loaded."""

    @abstractmethod
    def retrained(self, folder: Path) -> TeacherOptions:
        """The same teacher with other weights; nothing else in its options differs but their path."""

    @abstractmethod
    def inputs_B(self) -> NDArray[Any]:
        """At least five different rows that the teacher takes, the same ones each time."""

    @pytest.fixture
    def teacher_options(self, tmp_path: Path) -> TeacherOptions:
        return self.options(tmp_path)

    def test_its_kind_is_registered_under_its_name(self, teacher_options: TeacherOptions) -> None:
        assert TEACHERS.get(teacher_options.kind) is type(teacher_options)

    def test_options_go_to_another_process_and_through_a_file_unchanged(
        self, teacher_options: TeacherOptions
    ) -> None:
        assert pickle.loads(pickle.dumps(teacher_options)) == teacher_options  # noqa: S301 (its own bytes)
        written = json.loads(teacher_options.model_dump_json())
        assert type(teacher_options).model_validate(written) == teacher_options

    def test_logits_are_finite_float32_with_one_row_an_input(self, teacher_options: TeacherOptions) -> None:
        teacher, inputs_B = teacher_options.load(), self.inputs_B()
        for count in (len(inputs_B), 1):
            logits_BC = teacher.logits(inputs_B[:count])
            assert isinstance(logits_BC, np.ndarray)
            assert logits_BC.dtype == np.float32
            assert logits_BC.shape == (count, self.num_outputs)
            assert np.isfinite(logits_BC).all()
        assert len(np.unique(teacher.logits(inputs_B), axis=0)) == len(inputs_B)

    def test_a_teacher_that_is_loaded_twice_gives_the_same_bits(
        self, teacher_options: TeacherOptions
    ) -> None:
        first, second = teacher_options.load(), teacher_options.load()
        assert first.name == second.name == teacher_options.name
        assert first.state_digest() == second.state_digest()
        logits_BC = first.logits(self.inputs_B())
        np.testing.assert_array_equal(logits_BC, second.logits(self.inputs_B()))
        np.testing.assert_array_equal(logits_BC, first.logits(self.inputs_B()))

    def test_another_thread_gives_the_same_bits(self, teacher_options: TeacherOptions) -> None:
        teacher, inputs_B = teacher_options.load(), self.inputs_B()
        with ThreadPoolExecutor(1) as pool:
            there_BC = pool.submit(teacher.logits, inputs_B).result()
        np.testing.assert_array_equal(there_BC, teacher.logits(inputs_B))

    def test_a_batch_is_left_as_it_was_and_may_be_read_only(self, teacher_options: TeacherOptions) -> None:
        teacher, inputs_B = teacher_options.load(), self.inputs_B()
        logits_BC = teacher.logits(inputs_B)
        np.testing.assert_array_equal(inputs_B, self.inputs_B())
        inputs_B.flags.writeable = False
        np.testing.assert_array_equal(teacher.logits(inputs_B), logits_BC)

    def test_logits_once_given_do_not_change_with_the_next_batch(
        self, teacher_options: TeacherOptions
    ) -> None:
        teacher, inputs_B = teacher_options.load(), self.inputs_B()
        logits_BC = teacher.logits(inputs_B)
        kept_BC = logits_BC.copy()
        teacher.logits(inputs_B[::-1].copy())
        np.testing.assert_array_equal(logits_BC, kept_BC)

    def test_the_fingerprint_is_the_same_in_another_process(self, teacher_options: TeacherOptions) -> None:
        pickled = base64.b64encode(pickle.dumps(teacher_options)).decode()
        here = json.dumps(teacher_options.fingerprint_fields(), sort_keys=True)
        for seed in ("1", "2"):
            there = subprocess.run(
                [sys.executable, "-c", _PRINT_FINGERPRINT, pickled],
                env={**os.environ, "PYTHONHASHSEED": seed},
                capture_output=True,
                text=True,
                check=True,
            )
            assert there.stdout.strip() == here

    def test_the_fingerprint_tells_no_place_and_no_machine(self, tmp_path: Path) -> None:
        one, other = tmp_path / "one", tmp_path / "other"
        one.mkdir()
        other.mkdir()
        options = self.options(one)
        fields = options.fingerprint_fields()
        assert str(tmp_path) not in json.dumps(fields)
        assert self.options(other).fingerprint_fields() == fields
        elsewhere = {"num_cpus": 7, "num_gpus": 0.5, "batch_size": 3, "group": "g", "device": "cuda:3"}
        known = {key: value for key, value in elsewhere.items() if key in type(options).model_fields}
        assert options.model_copy(update=known).fingerprint_fields() == fields

    def test_the_fingerprint_counts_the_stated_code_version(self, teacher_options: TeacherOptions) -> None:
        changed = teacher_options.model_copy(update={"code_version": "2"})
        assert changed.fingerprint_fields() != teacher_options.fingerprint_fields()

    def test_other_weights_change_the_fingerprint_the_state_and_the_logits(self, tmp_path: Path) -> None:
        options, retrained = self.options(tmp_path), self.retrained(tmp_path)
        assert retrained.fingerprint_fields() != options.fingerprint_fields()
        assert retrained.load().state_digest() != options.load().state_digest()
        assert np.any(retrained.load().logits(self.inputs_B()) != options.load().logits(self.inputs_B()))
