from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from pydantic import ValidationError
from tests.pipeline.teachers.contract import TeacherContract

from softcask.pipeline.teachers.onnx_kind import OnnxTeacherOptions
from softcask.storage_schemas.errors import TeacherError


def teacher(model: Path | str, **more: Any) -> OnnxTeacherOptions:
    return OnnxTeacherOptions.model_validate({"name": "net-a", "model": str(model), **more})


def numbers(seed: int) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    shapes = {"w1": (12, 8), "b1": (8,), "w2": (8, 5), "b2": (5,)}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def network(
    seed: int = 1, *, rows: str | int = "N", last: str | None = None, taken: int = 1
) -> onnx.ModelProto:
    """Two layers, 12 -> 8 -> 5, with a ReLU between them; written node by node."""
    nodes = [
        helper.make_node("Cast", ["x"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Gemm", ["cast", "w1", "b1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["logits"]),
        *([helper.make_node(last, ["logits"], ["y"], axis=1)] if last else []),
    ]
    outputs = ["y"] if last else ["logits"]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", taken, [rows, 12])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, 5]) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in numbers(seed).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="by hand")
    model.ir_version = 9
    onnx.checker.check_model(model)
    return model


def saved(path: Path, model: onnx.ModelProto, **more: Any) -> Path:
    onnx.save_model(model, path, **more)
    return path


def by_hand(rows: NDArray[Any], seed: int = 1) -> NDArray[np.float64]:
    w = {name: array.astype(np.float64) for name, array in numbers(seed).items()}
    result: NDArray[np.float64] = np.maximum(rows @ w["w1"] + w["b1"], 0) @ w["w2"] + w["b2"]
    return result


ROWS = np.random.default_rng(7).normal(size=(7, 12)).astype(np.float32)


class TestOnnxTeacherContract(TeacherContract):
    num_outputs = 5

    def options(self, folder: Path) -> OnnxTeacherOptions:
        return teacher(saved(folder / "net1.onnx", network(1)))

    def retrained(self, folder: Path) -> OnnxTeacherOptions:
        return teacher(saved(folder / "net2.onnx", network(2)))

    def inputs_B(self) -> NDArray[Any]:
        return ROWS.copy()


class TestOnnxTeacherWithTensorsBesideContract(TestOnnxTeacherContract):
    num_outputs = 5

    def options(self, folder: Path) -> OnnxTeacherOptions:
        return self._beside(folder / "one", 1)

    def retrained(self, folder: Path) -> OnnxTeacherOptions:
        return self._beside(folder / "other", 2)

    def _beside(self, folder: Path, seed: int) -> OnnxTeacherOptions:
        folder.mkdir(exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        stated = {"save_as_external_data": True, "location": "net.onnx.data", "size_threshold": 0}
        return teacher(saved(folder / "net.onnx", network(seed), **stated))


def test_logits_are_those_of_the_formula(tmp_path: Path) -> None:
    loaded = teacher(saved(tmp_path / "net.onnx", network())).load()
    np.testing.assert_allclose(loaded.logits(ROWS), by_hand(ROWS), rtol=1e-5, atol=1e-5)


def test_rows_are_prepared_first(tmp_path: Path) -> None:
    rows = np.random.default_rng(7).integers(0, 256, (5, 2, 2, 3), dtype=np.uint8)
    stated = {"scale": 1 / 255, "mean": [0.5, 0.4, 0.3], "std": 0.25, "layout": "hwc_to_chw"}
    model = network()
    model.graph.node.insert(0, helper.make_node("Flatten", ["x"], ["flat"], axis=1))
    model.graph.node[1].input[0] = "flat"
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 2, 2]))
    loaded = teacher(saved(tmp_path / "net.onnx", model), preprocessing=stated).load()
    prepared = ((rows / 255 - [0.5, 0.4, 0.3]) / 0.25).transpose(0, 3, 1, 2).reshape(5, 12)
    np.testing.assert_allclose(loaded.logits(rows), by_hand(prepared), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "taken", [TensorProto.UINT8, TensorProto.INT64, TensorProto.FLOAT16, TensorProto.DOUBLE]
)
def test_an_input_gets_numbers_of_its_own_type(taken: int, tmp_path: Path) -> None:
    rows = np.random.default_rng(7).integers(0, 256, (5, 12), dtype=np.uint8)
    loaded = teacher(saved(tmp_path / "net.onnx", network(taken=taken))).load()
    np.testing.assert_allclose(loaded.logits(rows), by_hand(rows.astype(float)), rtol=1e-5, atol=1e-3)


def test_large_whole_numbers_are_not_rounded(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Sub", ["x", "base"], ["rest"]),
        helper.make_node("Cast", ["rest"], ["logits"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.INT64, ["N", 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(np.array(2**40), "base")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    loaded = teacher(saved(tmp_path / "net.onnx", model)).load()
    np.testing.assert_array_equal(loaded.logits(np.array([[2**40 + 1, 2**40 - 3]])), [[1, -3]])


@pytest.mark.parametrize("rows", [1, 3])
def test_a_model_of_batches_of_one_length_gets_such(rows: int, tmp_path: Path) -> None:
    loaded = teacher(saved(tmp_path / "net.onnx", network(rows=rows))).load()
    for count in (7, 1, 3):
        np.testing.assert_allclose(loaded.logits(ROWS[:count]), by_hand(ROWS[:count]), rtol=1e-5, atol=1e-5)


def test_outputs_are_picked_by_number(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.onnx", network())
    np.testing.assert_allclose(
        teacher(path, class_map=[4, 0]).load().logits(ROWS), by_hand(ROWS)[:, [4, 0]], rtol=1e-5, atol=1e-5
    )
    with pytest.raises(TeacherError, match="'net-a': class_map names output 5, but it has outputs 0 to 4"):
        teacher(path, class_map=[5]).load().logits(ROWS)
    with pytest.raises(TeacherError, match="'net-a': .*does not name its outputs"):
        teacher(path, class_map=["cat", "dog"]).load()


def test_one_of_several_outputs_must_be_named(tmp_path: Path) -> None:
    model = network()
    model.graph.output.append(helper.make_tensor_value_info("r", TensorProto.FLOAT, ["N", 8]))
    path = saved(tmp_path / "net.onnx", model)
    with pytest.raises(TeacherError, match=r"'net-a': the model has outputs \['logits', 'r'\]; say which"):
        teacher(path).load()
    with pytest.raises(TeacherError, match=r"the model has no output 'logit', but \['logits', 'r'\]"):
        teacher(path, output="logit").load()
    np.testing.assert_allclose(
        teacher(path, output="logits").load().logits(ROWS), by_hand(ROWS), rtol=1e-5, atol=1e-5
    )


def test_probabilities_are_refused_and_their_logarithms_are_not(tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="'net-a': output 'y' is made by Softmax: .*'logits'"):
        teacher(saved(tmp_path / "net.onnx", network(last="Softmax"))).load()
    logits_BC = by_hand(ROWS)
    expected = logits_BC - np.log(np.exp(logits_BC).sum(axis=1, keepdims=True))
    loaded = teacher(saved(tmp_path / "net.onnx", network(last="LogSoftmax"))).load()
    np.testing.assert_allclose(loaded.logits(ROWS), expected, rtol=1e-5, atol=1e-5)


def test_rows_that_do_not_fit_are_the_teachers_error_with_both_shapes(tmp_path: Path) -> None:
    loaded = teacher(saved(tmp_path / "net.onnx", network())).load()
    with pytest.raises(TeacherError, match=r"teacher 'net-a': onnxruntime raised .* shape \[2, 9\] .*'x'"):
        loaded.logits(np.zeros((2, 9), dtype=np.float32))
    with pytest.raises(TeacherError, match="teacher 'net-a': the transfer set's rows are text"):
        loaded.logits(np.array(["a", "b"], dtype=np.dtypes.StringDType()))
    of_bytes = teacher(saved(tmp_path / "net.onnx", network(taken=TensorProto.UINT8))).load()
    with pytest.raises(TeacherError, match="'net-a': the model takes uint8, and rows are float32"):
        of_bytes.logits(ROWS)


@pytest.mark.parametrize("content", [b"", b"\x00rubbish", b"PK\x03\x04"])
def test_what_is_no_model_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(TeacherError, match="teacher 'net-a': .*net.onnx"):
        teacher(path).load()


def test_files_that_are_missing_name_the_teacher(tmp_path: Path) -> None:
    for ask in (teacher(tmp_path / "no.onnx").load, teacher(tmp_path / "no.onnx").fingerprint_fields):
        with pytest.raises(TeacherError, match="teacher 'net-a': model .*no.onnx: there is no such file"):
            ask()
    stated = {"save_as_external_data": True, "location": "net.data", "size_threshold": 0}
    beside = teacher(saved(tmp_path / "net.onnx", network(), **stated))
    (tmp_path / "net.data").unlink()
    for ask in (beside.load, beside.fingerprint_fields):
        with pytest.raises(TeacherError, match=r"teacher 'net-a': .*net\.data"):
            ask()


def test_tensors_beside_a_model_count_in_its_fingerprint_and_lie_in_its_folder(tmp_path: Path) -> None:
    stated = {"save_as_external_data": True, "location": "net.data", "size_threshold": 0}
    path = saved(tmp_path / "net.onnx", network(), **stated)
    before = teacher(path).fingerprint_fields()
    content = bytearray((tmp_path / "net.data").read_bytes())
    content[-1] ^= 1
    (tmp_path / "net.data").write_bytes(content)
    after = teacher(path).fingerprint_fields()
    assert before["model"] == after["model"] and before["beside"] != after["beside"]
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "../net.data" if entry.key == "location" else entry.value
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(TeacherError, match=r"keeps tensors in '\.\./net\.data'; expected files in its own"):
        teacher(tmp_path / "inner" / "net.onnx").load()


def test_tensors_of_inner_graphs_are_found(tmp_path: Path) -> None:
    inner = network()
    stated = {"save_as_external_data": True, "location": "inner.data", "size_threshold": 0}
    saved(tmp_path / "inner.onnx", inner, **stated)
    branch = onnx.load(tmp_path / "inner.onnx", load_external_data=False).graph
    outer = network()
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    outer.graph.node.append(node)
    (tmp_path / "outer.onnx").write_bytes(outer.SerializeToString())
    assert set(teacher(tmp_path / "outer.onnx").fingerprint_fields()["beside"]) == {"inner.data"}


def test_a_gpu_that_was_asked_for_and_is_not_there_is_never_replaced_by_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    path = saved(tmp_path / "net.onnx", network())
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    for more in ({"num_gpus": 0.5}, {"device": "cuda:1"}):
        with pytest.raises(TeacherError, match="'net-a': device = .*cannot use CUDA here.*onnxruntime-gpu"):
            teacher(path, **more).load()
    assert teacher(path, num_gpus=0.5, device="cpu").load().device == "cpu"


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_does_not_start_is_not_replaced_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    path = saved(tmp_path / "net.onnx", network())
    # As onnxruntime-gpu does where CUDA's libraries are missing: it warns, and goes on without.
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    with pytest.raises(TeacherError, match="'net-a': device = 'cuda'.*cannot use CUDA here"):
        teacher(path, device="cuda").load()


def test_what_a_model_was_written_for_is_recorded(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.onnx", network())
    assert teacher(path).recorded() == {"opset": {"ai.onnx": 17}, "producer": "by hand", "on": "CPU"}
    assert teacher(path, num_gpus=1).recorded()["on"] == "CUDA"


@pytest.mark.parametrize(
    ("stated", "part"),
    [
        ({"device": "tpu"}, "String should match pattern"),
        ({"model": "s3://bucket/net.onnx"}, "expected a file on a disk"),
        ({"class_map": [0, 0]}, "names an output twice"),
        ({"dtype": "float16"}, "Extra inputs are not permitted"),
    ],
)
def test_options_that_make_no_sense_are_refused(stated: dict[str, Any], part: str) -> None:
    with pytest.raises(ValidationError) as caught:
        teacher(stated.pop("model", "net.onnx"), **stated)
    assert part in str(caught.value)


def test_a_copy_elsewhere_is_the_same_teacher(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.onnx", network())
    shutil.copy(path, tmp_path / "renamed.onnx")
    one, other = teacher(path), teacher(tmp_path / "renamed.onnx")
    assert one.fingerprint_fields() == other.fingerprint_fields()
    assert one.load().state_digest() == other.load().state_digest()


def test_its_size_counts_the_files_beside_it(tmp_path: Path) -> None:
    stated = {"save_as_external_data": True, "location": "net.data", "size_threshold": 0}
    path = saved(tmp_path / "net.onnx", network(), **stated)
    assert teacher(path).weights_bytes() == path.stat().st_size + (tmp_path / "net.data").stat().st_size
    assert teacher(tmp_path / "no.onnx").weights_bytes() is None
