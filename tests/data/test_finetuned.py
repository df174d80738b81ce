"""What a model that is fine-tuned is given: its own token numbers and pixels, read alike at prediction."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import transformers
from PIL import Image
from tiny_models import minilm, save_bare, save_bert, save_pictures, save_vit

from transference.core.errors import ConfigError, DataError
from transference.core.spec import ModalitySpec
from transference.core.views import Views
from transference.data.corrupt import CONTROLS, control
from transference.data.modality import ModalityConfig
from transference.data.readers import Column, read_column
from transference.data.tabular import features


def text(encoder: str = "bert", **more: object) -> ModalityConfig:
    return ModalityConfig(kind="text", column="t", encoder=f"hf:{encoder}", fine_tune=True, **more)


def image(encoder: str = "vit") -> ModalityConfig:
    return ModalityConfig(kind="image", column="p", encoder=f"hf:{encoder}", fine_tune=True)


def stored(spec: ModalitySpec) -> ModalitySpec:
    """As an exported file holds it."""
    raw = json.loads(json.dumps(asdict(spec)))
    return ModalitySpec(**{**raw, "shape": tuple(raw["shape"]), "folder": ""})


def views(column: Column) -> Views:
    given = Views.of(primary="x", x=np.arange(len(column.array))[:, None])
    return Views(
        {"x": given["x"], "t": column.array},
        {"x": given.specs["x"], "t": column.spec},
        "x",
        present={"t": column.present},
        lengths={} if column.lengths is None else {"t": column.lengths},
    )


def test_token_numbers_are_one_higher_so_that_nothing_real_is_padding(tmp_path: Path) -> None:
    save_bert(tmp_path / "bert")
    save_bare(tmp_path / "bare")
    cells = ["red fox", None, "red red dog sea"]
    column = read_column(cells, text(), tmp_path, name="t")
    assert column.array.tolist() == [[3, 6, 7, 4, 0, 0], [0] * 6, [3, 6, 6, 8, 9, 4]]
    assert column.lengths is not None
    assert column.lengths.tolist() == [4, 0, 6]
    assert (column.spec.kind, column.spec.vocabulary, column.spec.encoder) == ("text", 10, "")
    bare = read_column(cells, text("bare"), tmp_path, name="t")
    assert bare.array.tolist() == [[1, 2, 0, 0], [0] * 4, [1, 1, 3, 4]]
    counted = features(views(bare), ["t"])
    assert counted.tolist() == [[0, 1, 1, 0, 0], [0] * 5, [0, 2, 0, 1, 1]]  # "red", number 0, is a word


def test_a_long_text_is_cut_as_its_tokenizer_does_it(tmp_path: Path) -> None:
    save_bert(tmp_path / "bert")
    column = read_column(["red fox dog sea"], text(length=4), tmp_path, name="t")
    assert column.array.tolist() == [[3, 6, 7, 4]]
    assert read_column(["sea " * 99], text(), tmp_path, name="t").spec.shape == (30,)  # 32 positions, 2 may be taken
    with pytest.raises(ConfigError, match="'length' of a text that 'hf:bert' reads must be more than 2 tokens. Got 2"):
        read_column(["red"], text(length=2), tmp_path, name="t")


def test_pixels_are_those_of_the_image_processor(tmp_path: Path) -> None:
    save_vit(tmp_path / "vit")
    (name,) = save_pictures(tmp_path, 1)
    (tmp_path / "bad.png").write_text("no image")
    column = read_column([name, None, "bad.png"], image(), tmp_path, name="p", strict=False)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "vit")
    with Image.open(tmp_path / name) as opened:
        wanted = processor(images=opened.convert("RGB"), return_tensors="np")["pixel_values"][0]
    assert column.spec.shape == (3, 16, 16)
    np.testing.assert_array_equal(column.array[0], wanted)
    assert wanted.min() < 0  # not in [0, 1], as images are elsewhere
    assert column.present.tolist() == [True, False, False]
    assert [(fault.row, fault.column) for fault in column.faults] == [(2, "p")]


def test_new_rows_are_read_alike_without_the_weights(tmp_path: Path) -> None:
    save_bert(tmp_path / "bert")
    save_vit(tmp_path / "vit")
    (name,) = save_pictures(tmp_path, 1)
    for how, cell, longer in ((text(), "red fox", "red fox dog sea"), (image(), name, name)):
        column = read_column([cell], how, tmp_path, name="m")
        (tmp_path / how.encoder[3:] / "model.safetensors").unlink()
        new = read_column(["", cell, longer], stored(column.spec), tmp_path)
        assert new.spec == column.spec == stored(column.spec)
        assert str(tmp_path) not in repr(column.spec)  # where it was read is no part of what it is
        np.testing.assert_array_equal(new.array[1], column.array[0])
        assert new.present.tolist() == [False, True, True]
        with pytest.raises(ConfigError, match="must have its weights as safetensors"):
            read_column([cell], how, tmp_path, name="m")
    assert new.array.shape == (3, 3, 16, 16)


@pytest.mark.parametrize("what", ["tokenizer", "processor"])
def test_files_that_differ_or_are_gone_are_told(what: str, tmp_path: Path) -> None:
    folder = save_bert(tmp_path / "bert") if what == "tokenizer" else save_vit(tmp_path / "vit")
    cell = "red fox" if what == "tokenizer" else save_pictures(tmp_path, 1)[0]
    how = text() if what == "tokenizer" else image()
    spec = stored(read_column([cell], how, tmp_path, name="m").spec)
    changed = folder / ("vocab.txt" if what == "tokenizer" else "preprocessor_config.json")
    changed.write_text(changed.read_text() + "\n")
    with pytest.raises(DataError, match=f"The {what} of 'hf:{folder.name}' .* not the one .*: its files differ"):
        read_column([cell], spec, tmp_path)
    shutil.rmtree(folder)
    with pytest.raises(DataError, match=f"is read with the {what} of 'hf:{folder.name}', and there is neither such"):
        read_column([cell], spec, tmp_path)


def test_what_cannot_be_fine_tuned_is_told_before_training(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'fine_tune' trains the weights .*, and none is named. Name an 'encoder'"):
        ModalityConfig(kind="text", fine_tune=True)
    with pytest.raises(ValueError, match="Fine-tuning reads text and images, and the kind is 'audio'"):
        ModalityConfig(kind="audio", encoder="hf:some", fine_tune=True)
    save_vit(tmp_path / "vit")
    save_bert(tmp_path / "bert")
    save_pictures(tmp_path, 1)
    with pytest.raises(ConfigError, match="'hf:vit' cannot be .* text"):
        read_column(["red"], text("vit"), tmp_path, name="t")
    shutil.copy(tmp_path / "vit" / "preprocessor_config.json", tmp_path / "bert")
    with pytest.raises(ConfigError, match="'hf:bert' cannot be fine-tuned to read image: ValueError"):
        read_column(["0.png"], image("bert"), tmp_path, name="p")


@pytest.mark.parametrize("kind", CONTROLS)
def test_controls_make_token_numbers_that_the_model_has(kind: str, tmp_path: Path) -> None:
    save_bert(tmp_path / "bert")
    column = read_column(["red fox", "sea", None, "dog dog red fox"], text(), tmp_path, name="t")
    X = control(views(column), kind, 0, ["t"])  # type: ignore[arg-type]
    numbers, real = X["t"], np.arange(6) < X.lengths["t"][:, None]
    assert (numbers == numbers.round()).all()
    assert ((numbers > 0) == (real & X.present["t"][:, None])).all()
    assert numbers.max() < column.spec.vocabulary


def test_a_real_tokenizer_without_torch(tmp_path: Path) -> None:
    spec = read_column(["A dog runs on the beach."], text(str(minilm())), tmp_path, name="t").spec
    assert spec.vocabulary == 30523
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import json\nfrom pathlib import Path\n"
        "from transference.core.spec import ModalitySpec\n"
        "from transference.data.readers import read_column\n"
        "raw = json.loads(sys.argv[1])\n"
        "spec = ModalitySpec(**{**raw, 'shape': tuple(raw['shape'])})\n"
        "print(read_column(['A dog runs on the beach.'], spec, Path()).array[0].astype(int).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code, json.dumps(asdict(spec))], capture_output=True, text=True)
    wanted = transformers.AutoTokenizer.from_pretrained(minilm())("A dog runs on the beach.")["input_ids"]
    assert done.stdout.strip() == str([number + 1 for number in wanted]), done.stderr
