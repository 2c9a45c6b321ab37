from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from tests.mended_torchvision import mend
from tests.pipeline.teachers.contract import TeacherContract

from softcask.pipeline.teachers.transformers_kind import TransformersTeacherOptions
from softcask.storage_schemas.errors import TeacherError

mend()
os.environ.setdefault("HF_HUB_OFFLINE", "1")
pytest.importorskip("torchvision")
tokenizers, transformers = pytest.importorskip("tokenizers"), pytest.importorskip("transformers")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "good", "bad", "film", "very", "long", "and", "dull"]
TEXT = np.dtypes.StringDType()


def teacher(**more: Any) -> TransformersTeacherOptions:
    return TransformersTeacherOptions.model_validate({"name": "hf-a", **more})


def spread(module: torch.nn.Module, seed: int) -> torch.nn.Module:
    """With weights that make rows differ, as those fresh from a config hardly do."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return module.eval()


def image_model(seed: int = 1, **config: Any) -> Any:
    stated = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
        **{"id2label": {0: "tench, Tinca tinca", 1: "goldfish", 2: "crane"}, **config},
    )
    torch.manual_seed(0)
    return spread(transformers.ViTForImageClassification(stated), seed)


def saved_image_model(folder: Path, seed: int = 1, **config: Any) -> str:
    target = folder / f"vit{seed}"
    image_model(seed, **config).save_pretrained(target)
    transformers.ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(target)
    return str(target)


def tokenizer(**more: Any) -> Any:
    made = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    stated = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", **more}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, **stated)


def text_model(seed: int = 1, **config: Any) -> Any:
    stated = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=24,
        **{"id2label": {0: "negative", 1: "positive"}, **config},
    )
    torch.manual_seed(0)
    return spread(transformers.BertForSequenceClassification(stated), seed)


def saved_text_model(folder: Path, seed: int = 1, **config: Any) -> str:
    target = folder / f"bert{seed}"
    text_model(seed, **config).save_pretrained(target)
    tokenizer().save_pretrained(target)
    return str(target)


def texts(*rows: str) -> NDArray[Any]:
    return np.array(rows, dtype=TEXT)


SENTENCES = texts(
    "a good film", "bad", "a very long and dull film", "good and bad", "a very very very long film and good"
)


def photos(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)


class TestImageClassificationContract(TeacherContract):
    num_outputs = 3

    def options(self, folder: Path) -> TransformersTeacherOptions:
        return self._options(folder, 1)

    def retrained(self, folder: Path) -> TransformersTeacherOptions:
        return self._options(folder, 2)

    def inputs_B(self) -> NDArray[Any]:
        return photos(6, 40, 36, 3)

    def _options(self, folder: Path, seed: int) -> TransformersTeacherOptions:
        return teacher(model=saved_image_model(folder, seed), task="image-classification")


class TestSequenceClassificationContract(TestImageClassificationContract):
    num_outputs = 2

    def inputs_B(self) -> NDArray[Any]:
        return SENTENCES.copy()

    def _options(self, folder: Path, seed: int) -> TransformersTeacherOptions:
        return teacher(model=saved_text_model(folder, seed), task="sequence-classification")


@pytest.mark.parametrize("backend", ["torchvision", "pil"])
@pytest.mark.parametrize("shape", [(32, 32), (50, 40)])
def test_images_go_through_the_models_own_processor(
    backend: str, shape: tuple[int, int], tmp_path: Path
) -> None:
    rows, model = photos(4, *shape, 3), saved_image_model(tmp_path)
    sized = np.stack(
        [np.array(Image.fromarray(row).resize((32, 32), Image.Resampling.BILINEAR)) for row in rows]
    )
    # By hand from the processor's file: scaled by 1/255, mean and std .5.
    pixels = torch.from_numpy(sized.transpose(0, 3, 1, 2).astype(np.float32) / 255 - 0.5) / 0.5
    with torch.inference_mode():
        expected = image_model()(pixels).logits.numpy()
    options = teacher(model=model, task="image-classification", image_processor=backend)
    logits_BC = options.load().logits(rows)
    assert np.abs(logits_BC - expected).max() < 0.03 * expected.std()
    by_channel = np.ascontiguousarray(rows.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(options.load().logits(by_channel), logits_BC)


def test_images_of_the_size_that_is_cropped_to_are_not_cropped_again(tmp_path: Path) -> None:
    model = saved_image_model(tmp_path)
    processor = transformers.CLIPImageProcessor(
        size={"shortest_edge": 40},
        crop_size={"height": 32, "width": 32},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    processor.save_pretrained(model)
    rows = photos(3, 32, 32, 3)
    with torch.inference_mode():
        pixels = torch.from_numpy(rows.transpose(0, 3, 1, 2).astype(np.float32) / 255 - 0.5) / 0.5
        expected = image_model()(pixels).logits.numpy()
    for backend in ("torchvision", "pil"):
        loaded = teacher(model=model, task="image-classification", image_processor=backend).load()
        np.testing.assert_allclose(loaded.logits(rows), expected, rtol=1e-4, atol=1e-5)
        assert loaded.logits(photos(3, 60, 44, 3)).shape == (3, 3)


def test_grey_images_are_repeated(tmp_path: Path) -> None:
    loaded = teacher(model=saved_image_model(tmp_path), task="image-classification").load()
    grey = photos(3, 28, 28)
    np.testing.assert_array_equal(loaded.logits(grey), loaded.logits(np.repeat(grey[..., None], 3, axis=-1)))


def logits_one_by_one(rows: list[tuple[str, ...]]) -> NDArray[np.float64]:
    """In float64, each row alone, without padding."""
    made, tokens = text_model().double(), tokenizer()
    with torch.inference_mode():
        return np.stack([made(**tokens(*row, return_tensors="pt")).logits[0].numpy() for row in rows])


@pytest.mark.parametrize("more", [{}, {"padding": "max_length"}, {"padding": "max_length", "max_length": 20}])
def test_a_texts_logits_do_not_depend_on_its_neighbours_beyond_rounding(
    more: dict[str, Any], tmp_path: Path
) -> None:
    loaded = teacher(model=saved_text_model(tmp_path), task="sequence-classification", **more).load()
    expected = logits_one_by_one([(each,) for each in SENTENCES.tolist()])
    np.testing.assert_allclose(loaded.logits(SENTENCES), expected, rtol=0, atol=2e-6)
    np.testing.assert_allclose(loaded.logits(SENTENCES[:1]), expected[:1], rtol=0, atol=2e-6)
    assert np.abs(np.diff(expected, axis=0)).min() > 1e-4, "or any row would do for any other"


def test_pairs_of_texts_are_told_apart(tmp_path: Path) -> None:
    pairs = [("a good film", "bad"), ("bad", "a good film"), ("dull", "a very long film and bad")]
    loaded = teacher(model=saved_text_model(tmp_path), task="sequence-classification").load()
    logits_BC = loaded.logits(np.array(pairs, dtype=TEXT))
    np.testing.assert_allclose(logits_BC, logits_one_by_one(pairs), rtol=0, atol=2e-6)


def test_numbers_of_tokens_are_taken_as_they_are(tmp_path: Path) -> None:
    loaded = teacher(model=saved_text_model(tmp_path), task="sequence-classification").load()
    tokens_BL = np.array([[2, 4, 5, 7, 3, 0], [2, 6, 3, 0, 0, 0]], dtype=np.int32)
    np.testing.assert_allclose(
        loaded.logits(tokens_BL), loaded.logits(texts("a good film", "bad")), rtol=0, atol=2e-6
    )
    with pytest.raises(TeacherError, match="2 numbers are none of the tokenizer's 12 tokens"):
        loaded.logits(np.array([[2, 12, -1]]))
    with pytest.raises(TeacherError, match="rows have 25 tokens, the model takes 24"):
        loaded.logits(np.ones((1, 25), dtype=np.int64))


def test_what_is_too_long_is_cut_where_the_config_says(tmp_path: Path) -> None:
    model = saved_text_model(tmp_path)
    loaded = teacher(model=model, task="sequence-classification", max_length=4).load()
    np.testing.assert_array_equal(loaded.logits(texts("bad film and dull")), loaded.logits(texts("bad film")))
    whole = teacher(model=model, task="sequence-classification").load()
    endless = " ".join(["dull"] * 100)
    np.testing.assert_array_equal(whole.logits(texts(endless)), whole.logits(texts(" ".join(["dull"] * 22))))
    with pytest.raises(TeacherError, match="'hf-a': max_length is 25, tokenizer and model take 24 tokens"):
        teacher(model=model, task="sequence-classification", max_length=25).load()


def decoder(folder: Path, **config: Any) -> Any:
    """A model that judges by the last token, and has none for padding unless it is told."""
    stated = transformers.GPT2Config(
        vocab_size=len(WORDS), n_embd=16, n_layer=1, n_head=2, n_positions=24, num_labels=2, **config
    )
    torch.manual_seed(0)
    made = spread(transformers.GPT2ForSequenceClassification(stated), 1)
    made.save_pretrained(folder)
    return made


def test_a_model_that_judges_by_the_last_token_is_told_what_is_padding(tmp_path: Path) -> None:
    made, tokens = decoder(tmp_path), tokenizer()
    tokens.save_pretrained(tmp_path)
    loaded = teacher(model=str(tmp_path), task="sequence-classification").load()
    with torch.inference_mode():
        alone = [made(**tokens(each, return_tensors="pt")).logits[0].numpy() for each in SENTENCES.tolist()]
    np.testing.assert_allclose(loaded.logits(SENTENCES), np.stack(alone), rtol=0, atol=2e-6)


def test_a_model_without_a_token_for_padding_is_refused(tmp_path: Path) -> None:
    decoder(tmp_path)
    tokenizer(pad_token=None).save_pretrained(tmp_path)
    with pytest.raises(TeacherError, match="'hf-a': neither tokenizer nor model have a token for padding"):
        teacher(model=str(tmp_path), task="sequence-classification").load()


def test_labels_of_the_configuration_pick_outputs(tmp_path: Path) -> None:
    model, rows = saved_image_model(tmp_path), photos(3, 32, 32, 3)
    options = teacher(model=model, task="image-classification", class_map=["crane", "tench"])
    all_BC = teacher(model=model, task="image-classification").load().logits(rows)
    np.testing.assert_array_equal(options.load().logits(rows), all_BC[:, [2, 0]])
    wrong = teacher(model=model, task="image-classification", class_map=["crane", "gold fish", "zebra"])
    with pytest.raises(TeacherError, match=r"2 of 3 classes.*'gold fish' \(near: 'goldfish'\), 'zebra'"):
        wrong.load()


def test_labels_that_nobody_named_are_no_names(tmp_path: Path) -> None:
    model = saved_text_model(tmp_path, id2label={0: "LABEL_0", 1: "LABEL_1"})
    assert teacher(model=model, task="sequence-classification").output_names() is None


def test_the_fingerprint_holds_the_files_that_count_and_no_others(tmp_path: Path) -> None:
    model = Path(saved_text_model(tmp_path))
    options = teacher(model=str(model), task="sequence-classification")
    before = options.fingerprint_fields()
    assert set(before) == {"kind", "dtype", "code_version", "task", "padding", "files"}
    assert set(before["files"]) >= {"config.json", "model.safetensors", "tokenizer.json"}
    (model / "README.md").write_text("# new")
    (model / "preprocessor_config.json").write_text("{}")
    assert options.fingerprint_fields() == before
    (model / "tokenizer.json").write_text((model / "tokenizer.json").read_text() + " ")
    assert options.fingerprint_fields() != before


def test_weights_in_several_files_are_all_counted_and_missed(tmp_path: Path) -> None:
    model, whole = tmp_path / "shards", Path(saved_text_model(tmp_path))
    text_model().save_pretrained(model, max_shard_size="3KB")
    tokenizer().save_pretrained(model)
    options = teacher(model=str(model), task="sequence-classification")
    shards = sorted(path.name for path in model.glob("model-*"))
    assert len(shards) > 1 and {*shards, "model.safetensors.index.json"} <= set(
        options.fingerprint_fields()["files"]
    )
    assert options.weights_bytes() == sum((model / name).stat().st_size for name in shards)
    np.testing.assert_array_equal(
        options.load().logits(SENTENCES),
        teacher(model=str(whole), task="sequence-classification").load().logits(SENTENCES),
    )
    (model / shards[0]).unlink()
    for ask in (options.load, options.fingerprint_fields):
        with pytest.raises(TeacherError, match=f"'hf-a': model .*: no {shards[0]} in that folder"):
            ask()


def test_a_model_that_was_not_trained_to_classify_is_refused(tmp_path: Path) -> None:
    model = Path(saved_text_model(tmp_path))
    text_model().bert.save_pretrained(model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "architectures": ["BertModel"]}))
    with pytest.raises(TeacherError, match=r"'hf-a': .*lack classifier\.bias, classifier\.weight.*random"):
        teacher(model=str(model), task="sequence-classification").load()


@pytest.mark.parametrize("task", ["image-classification", "sequence-classification"])
def test_rows_of_the_other_kind_are_the_teachers_error(task: str, tmp_path: Path) -> None:
    of_images = task == "image-classification"
    model = saved_image_model(tmp_path) if of_images else saved_text_model(tmp_path)
    loaded = teacher(model=model, task=task).load()
    wrong = SENTENCES if of_images else photos(2, 32, 32, 3)
    part = "rows are text" if of_images else r"rows of shape \[32, 32, 3\] uint8 are no text"
    with pytest.raises(TeacherError, match=f"teacher 'hf-a': .*{part}"):
        loaded.logits(wrong)


def test_a_model_for_another_task_is_refused(tmp_path: Path) -> None:
    image, text = saved_image_model(tmp_path), saved_text_model(tmp_path)
    tokenizer().save_pretrained(image)
    transformers.ViTImageProcessor().save_pretrained(text)
    for model, task in ((image, "sequence-classification"), (text, "image-classification")):
        with pytest.raises(TeacherError, match=f"'hf-a': model .* cannot load it for {task}: ValueError"):
            teacher(model=model, task=task).load()


def test_images_without_a_processor_and_texts_without_a_tokenizer_are_refused(tmp_path: Path) -> None:
    image, text = Path(saved_image_model(tmp_path)), Path(saved_text_model(tmp_path))
    (image / "preprocessor_config.json").unlink()
    for path in text.glob("*token*"):
        path.unlink()
    for model, task, part in (
        (image, "image-classification", r"no preprocessor_config\.json or processor_config\.json"),
        (text, "sequence-classification", r"no tokenizer\.json or vocab\.txt or"),
    ):
        options = teacher(model=str(model), task=task)
        for ask in (options.load, options.fingerprint_fields):
            with pytest.raises(TeacherError, match=f"teacher 'hf-a': model .*: {part}.* in that folder"):
                ask()


def test_code_that_lies_beside_a_model_is_not_run(tmp_path: Path) -> None:
    model, ran = Path(saved_text_model(tmp_path)), tmp_path / "ran"
    config = json.loads((model / "config.json").read_text())
    config |= {
        "model_type": "mine",
        "auto_map": {"AutoModelForSequenceClassification": "mine.Mine", "AutoConfig": "mine.Mine"},
    }
    (model / "config.json").write_text(json.dumps(config))
    (model / "mine.py").write_text(f"open({str(ran)!r}, 'w')\nclass Mine: pass\n")
    with pytest.raises(TeacherError, match="cannot load it for sequence-classification"):
        teacher(model=str(model), task="sequence-classification").load()
    assert not ran.exists()


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    model = Path(saved_text_model(tmp_path))
    (model / "model.safetensors").unlink()
    torch.save(text_model().state_dict(), model / "pytorch_model.bin")
    with pytest.raises(TeacherError, match=r"no model\.safetensors in that folder.*pytorch_model"):
        teacher(model=str(model), task="sequence-classification").load()


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache as the Hub's client keeps it, with the model `org/judge`; no network, and a token to keep."""
    import huggingface_hub.constants as constants

    cache, commit = tmp_path / "hub", "0123456789abcdef0123456789abcdef01234567"
    repository = cache / "models--org--judge"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(commit)
    shutil.copytree(saved_text_model(tmp_path), repository / "snapshots" / commit)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecretsecret")
    return cache


def test_a_name_on_the_hub_is_read_from_its_cache(hub_cache: Path, tmp_path: Path) -> None:
    by_name = teacher(model="org/judge", task="sequence-classification")
    by_path = teacher(model=saved_text_model(tmp_path), task="sequence-classification")
    assert by_name.fingerprint_fields() == by_path.fingerprint_fields()
    np.testing.assert_array_equal(by_name.load().logits(SENTENCES), by_path.load().logits(SENTENCES))


@pytest.mark.parametrize("more", [{}, {"local_files_only": True}, {"revision": "v2"}])
def test_what_cannot_be_had_from_the_hub_is_said_with_the_cache_and_what_to_do(
    more: dict[str, Any], hub_cache: Path
) -> None:
    model = "org/judge" if more.get("revision") else "org/jugde"
    options = teacher(model=model, task="sequence-classification", **more)
    for ask in (options.load, options.fingerprint_fields):
        with pytest.raises(TeacherError) as caught:
            ask()
        message = str(caught.value)
        assert message.startswith(f"teacher 'hf-a': model '{model}'")
        for part in (
            "no folder beside the run file",
            str(hub_cache),
            f"hf download {model}",
            "HF_TOKEN",
            "HF_HOME",
        ):
            assert part in message
        assert "secret" not in message and ("'v2'" in message) == ("revision" in more)


@pytest.mark.parametrize(
    ("stated", "part"),
    [
        ({"task": "text-generation"}, "'image-classification' or 'sequence-classification'"),
        ({"task": "image-classification", "max_length": 3}, "max_length does not concern the task"),
        ({"task": "sequence-classification", "image_processor": "pil"}, "image_processor does not concern"),
        ({"model": "a/b/c", "task": "image-classification"}, "expected a folder, or a name on the Hub"),
        ({"model": "", "task": "image-classification"}, "expected a folder, or a name on the Hub"),
        ({"task": "sequence-classification", "token": "x"}, "Extra inputs are not permitted"),
    ],
)
def test_options_that_make_no_sense_are_refused(stated: dict[str, Any], part: str) -> None:
    with pytest.raises(ValidationError) as caught:
        teacher(**{"model": "org/judge", **stated})
    assert part in str(caught.value)


def test_a_folder_beside_the_run_file_goes_before_a_name_on_the_hub(tmp_path: Path) -> None:
    (tmp_path / "org" / "judge").mkdir(parents=True)
    for model, expected in (
        ("org/judge", str(tmp_path / "org" / "judge")),
        ("org/other", "org/other"),
        ("./other", str(tmp_path / "other")),
    ):
        raw = {"name": "a", "kind": "transformers", "model": model, "task": "image-classification"}
        options = TransformersTeacherOptions.model_validate(raw, context={"base": str(tmp_path)})
        assert options.model == expected


def test_a_fingerprint_needs_neither_torch_nor_transformers(tmp_path: Path) -> None:
    script = (
        "import sys; from softcask.pipeline.teachers.registry import TEACHERS; "
        "stated = {'name': 'a', 'model': sys.argv[1], 'task': 'sequence-classification'}; "
        "options = TEACHERS.get('transformers')(**stated); "
        "options.fingerprint_fields(); print(options.output_names()); "
        "print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    command = [sys.executable, "-c", script, saved_text_model(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert done == ["(('negative',), ('positive',))", "False False"]


def test_a_torchvision_that_is_missing_or_does_not_fit_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = saved_image_model(tmp_path)
    monkeypatch.setitem(sys.modules, "torchvision", None)  # its import raises ModuleNotFoundError
    monkeypatch.setattr("softcask.pipeline.teachers.transformers_kind.find_spec", lambda _: None)
    with pytest.raises(TeacherError, match="'hf-a': torchvision is not installed here: pip install"):
        teacher(model=model, task="image-classification").load()
    teacher(model=model, task="image-classification", image_processor="pil").load()
