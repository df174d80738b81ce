"""Frozen features: what they are, that they are computed once, and that damage is noticed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import transformers
from PIL import Image
from tiny_models import SMALL, minilm, quietly, save_bert, save_vit

from transference.core.errors import ConfigError, DataError
from transference.core.spec import ModalitySpec
from transference.data.features import encode_frozen
from transference.data.modality import ModalityConfig
from transference.data.readers import read_column


@pytest.fixture
def bert(tmp_path) -> Path:
    return save_bert(tmp_path / "bert")


@pytest.fixture
def vit(tmp_path) -> Path:
    return save_vit(tmp_path / "vit")


@pytest.fixture
def wav2vec2(tmp_path) -> Path:
    torch.manual_seed(0)
    folder = tmp_path / "wav2vec2"
    convolutions = {"conv_dim": (8, 8), "conv_stride": (5, 4), "conv_kernel": (10, 8), "num_feat_extract_layers": 2}
    positions = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    quietly(
        transformers.Wav2Vec2Model(transformers.Wav2Vec2Config(**SMALL, **convolutions, **positions)).save_pretrained,
        folder,
    )
    transformers.Wav2Vec2FeatureExtractor(sampling_rate=8000).save_pretrained(folder)
    return folder


@pytest.fixture
def calls() -> Iterator[list[int]]:
    """Grows by the number of rows at every forward pass of a whole model."""
    seen: list[int] = []

    def count(module: torch.nn.Module, inputs: object, answer: object) -> None:
        if isinstance(module, transformers.PreTrainedModel):
            seen.append(len(answer.last_hidden_state))  # type: ignore[attr-defined]

    handle = torch.nn.modules.module.register_module_forward_hook(count)
    yield seen
    handle.remove()


def text(folder: Path, **more) -> ModalityConfig:
    return ModalityConfig(kind="text", column="t", encoder=f"hf:{folder}", **more)


def test_text_is_the_mean_over_its_real_tokens(bert, tmp_path):
    cells = ["red fox", None, "dog", "sea sea sea dog"]
    column = encode_frozen(cells, text(bert), tmp_path, tmp_path / "cache")
    model = transformers.BertModel.from_pretrained(bert, add_pooling_layer=False).eval()
    for row, numbers in ((0, [2, 5, 6, 3]), (2, [2, 7, 3]), (3, [2, 8, 8, 8, 7, 3])):
        with torch.no_grad():
            wanted = model(torch.tensor([numbers])).last_hidden_state[0].mean(0).numpy()
        np.testing.assert_allclose(column.array[row], wanted, atol=1e-5)
    assert column.present.tolist() == [True, False, True, True]
    assert not column.array[1].any()
    assert (column.spec.kind, column.spec.shape, column.spec.encoder) == ("vector", (16,), f"hf:{bert}")


def test_the_second_time_nothing_is_computed(bert, tmp_path, calls):
    cells = ["red fox", "dog", "red fox"]
    first = encode_frozen(cells, text(bert), tmp_path, tmp_path / "cache")
    assert sum(calls) == 2  # distinct cells
    again = encode_frozen([*cells, "sea"], text(bert), tmp_path, tmp_path / "cache")
    assert sum(calls) == 3
    assert (again.array[:3] == first.array).all()
    encode_frozen(cells, text(bert), tmp_path, tmp_path / "other")
    assert sum(calls) == 5


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_entry_is_told_and_computed_again(bert, tmp_path, calls, damage):
    cells = ["red fox", "dog"]
    first = encode_frozen(cells, text(bert), tmp_path, tmp_path / "cache")
    entry = sorted((tmp_path / "cache").rglob("*.safetensors"))[0]
    good = entry.read_bytes()
    flipped = good[:-1] + bytes([good[-1] ^ 1])
    entry.write_bytes({"cut": good[:-5], "flip": flipped, "empty": b""}[damage])
    calls.clear()
    with pytest.warns(UserWarning, match=f"The cached feature {entry.name} is damaged .* computed again"):
        again = encode_frozen(cells, text(bert), tmp_path, tmp_path / "cache")
    assert sum(calls) == 1
    np.testing.assert_allclose(again.array, first.array, atol=1e-6)
    encode_frozen(cells, text(bert), tmp_path, tmp_path / "cache")
    assert sum(calls) == 1


def test_other_weights_or_preprocessing_are_other_entries(bert, tmp_path, calls):
    encode_frozen(["red fox dog"], text(bert), tmp_path, tmp_path / "cache")
    short = encode_frozen(["red fox dog"], text(bert, length=3), tmp_path, tmp_path / "cache")
    assert sum(calls) == 2
    save_bert(bert, seed=1)
    other = encode_frozen(["red fox dog"], text(bert, length=3), tmp_path, tmp_path / "cache")
    assert sum(calls) == 3
    assert np.abs(other.array - short.array).max() > 0.1
    with pytest.raises(DataError, match="is not the one that the model was trained with: its files differ"):
        encode_frozen(["red"], short.spec, tmp_path, tmp_path / "cache")


def test_a_fitted_spec_reads_new_cells_the_same_way(bert, tmp_path):
    column = read_column(["red fox", "dog"], text(bert), tmp_path, name="words", cache=tmp_path / "cache")
    raw = json.loads(json.dumps(asdict(column.spec)))
    spec = ModalitySpec(**{**raw, "shape": tuple(raw["shape"])})
    new = read_column(["dog", ""], spec, tmp_path, cache=tmp_path / "cache")
    assert (new.array[0] == column.array[1]).all()
    assert new.present.tolist() == [True, False]
    assert new.spec == spec


def test_images_without_a_trained_pooling_give_their_first_token(vit, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    Image.new("L", (30, 20), 255).save(tmp_path / "b.png")
    (tmp_path / "c.png").write_text("no image")
    config = ModalityConfig(kind="image", column="p", encoder="hf:vit")
    column = encode_frozen(["a.png", "b.png", "c.png"], config, tmp_path, tmp_path / "cache", strict=False)
    model = transformers.ViTModel.from_pretrained(vit, add_pooling_layer=False).eval()
    white = torch.ones(3, 16, 16)  # processed: (x - 0.5) / 0.5
    batch = torch.stack([torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1).float(), white])
    with torch.no_grad():
        wanted = model(batch).last_hidden_state[:, 0].numpy()
    np.testing.assert_allclose(column.array[:2], wanted, atol=1e-5)
    assert column.present.tolist() == [True, True, False]
    assert [(fault.row, fault.column) for fault in column.faults] == [(2, "p")]


def test_audio_is_the_mean_over_frames_and_knows_no_neighbours(wav2vec2, tmp_path):
    generator = np.random.default_rng(0)
    for name, size in (("a.wav", 800), ("b.wav", 400)):
        soundfile.write(tmp_path / name, generator.uniform(-0.5, 0.5, size), 8000)
    config = ModalityConfig(kind="audio", column="s", encoder="hf:wav2vec2")
    column = encode_frozen(["a.wav", "b.wav"], config, tmp_path, tmp_path / "cache")
    wave, _ = soundfile.read(tmp_path / "b.wav", dtype="float32")
    normal = (wave - wave.mean()) / np.sqrt(wave.var() + 1e-7)
    model = transformers.Wav2Vec2Model.from_pretrained(wav2vec2).eval()
    with torch.no_grad():
        wanted = model(torch.from_numpy(normal)[None]).last_hidden_state[0].mean(0).numpy()
    np.testing.assert_allclose(column.array[1], wanted, atol=1e-5)
    alone = encode_frozen(["b.wav"], config, tmp_path, tmp_path / "other")
    assert (alone.array[0] == column.array[1]).all()


def test_a_sentence_model_puts_like_beside_like(tmp_path):
    cells = ["A dog runs on the beach.", "A puppy is running along the shore.", "The bank raised its interest rates."]
    column = encode_frozen(cells, text(minilm()), tmp_path, tmp_path / "cache")
    likeness = column.array @ column.array.T
    np.testing.assert_allclose(np.diag(likeness), 1, atol=1e-5)  # its folder asks for unit length
    assert likeness[0, 1] > 0.5 > 0.2 > likeness[0, 2]


def test_what_cannot_be_loaded_is_told(bert, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match="'hf:no/such-model' is neither a folder .* Correct the name, go online once"):
        encode_frozen(["red"], ModalityConfig(kind="text", column="t", encoder="hf:no/such-model"), tmp_path)
    with pytest.raises(ConfigError, match="cannot be loaded to read image"):
        Image.new("L", (4, 4)).save(tmp_path / "a.png")
        config = ModalityConfig(kind="image", column="p", encoder=f"hf:{bert}")
        encode_frozen(["a.png"], config, tmp_path, tmp_path / "cache")
    (bert / "model.safetensors").rename(bert / "model.bin")
    with pytest.raises(ConfigError, match="must have its weights as safetensors"):
        encode_frozen(["red"], text(bert), tmp_path, tmp_path / "cache")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs transformers, .*pip install 'transference\[pretrained\]'"):
        encode_frozen(["red"], ModalityConfig(kind="text", column="t", encoder="hf:some/model"), tmp_path)
