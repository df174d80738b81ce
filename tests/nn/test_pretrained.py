"""A pretrained model as encoder: frozen or trained, never shuffled, never re-initialised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import save_bare, save_bert, save_pictures, save_vit
from torch import Tensor, nn

import transference
from transference.core.batch import Batch
from transference.core.errors import ConfigError
from transference.core.registry import names
from transference.core.spec import ModalitySpec
from transference.core.views import Views
from transference.data.modality import ModalityConfig
from transference.data.readers import read_column
from transference.nn.encoders import VectorEncoder, encoder
from transference.nn.initial import initialise
from transference.nn.pretrained import PretrainedEncoder
from transference.train.loop import PRETRAINED_SHARE, Stage, Step, train
from transference.train.schedule import Schedule

CELLS = ["red fox", "dog", "sea sea dog red", "fox"] * 6
BRIEF = Schedule(updates=3, batch_size=8, device="cpu")


def read(folder: Path, kind: str, trained: bool = True, fine_tune: bool = True) -> Views:
    """24 rows of text or pictures, and a vector beside them that tells the classes 0 and 1 of ``k % 2`` apart."""
    cells = CELLS if kind == "text" else save_pictures(folder, 24)
    model = save_bert(folder / "model") if kind == "text" else save_vit(folder / "model")
    how = ModalityConfig(kind=kind, column="m", encoder=f"hf:{model.name}", fine_tune=fine_tune)  # type: ignore[arg-type]
    column = read_column(cells, how, folder, name="m", cache=folder / "cache")
    spec = replace(column.spec, reading={**column.spec.reading, "trained": trained}) if fine_tune else column.spec
    other = Views.of(primary="v", v=np.random.default_rng(0).normal(size=(24, 3)) + np.arange(24)[:, None] % 2)
    return Views(
        {"m": column.array, "v": other["v"]},
        {"m": spec, "v": other.specs["v"]},
        "m",
        lengths={} if column.lengths is None else {"m": column.lengths},
    )


def tensors(X: Views) -> tuple[Tensor, Tensor | None]:
    return torch.from_numpy(X["m"]), torch.from_numpy(X.lengths["m"]) if "m" in X.lengths else None


def weights(part: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in part.named_parameters()}


@pytest.mark.parametrize("kind", ["text", "image"])
def test_it_begins_as_the_encoder_of_the_frozen_features(kind: str, tmp_path: Path) -> None:
    X, frozen = read(tmp_path, kind), read(tmp_path, kind, fine_tune=False)
    part, other = encoder(X.specs["m"], 4), encoder(frozen.specs["m"], 4)
    assert isinstance(part, PretrainedEncoder)
    assert type(other) is VectorEncoder
    for each in (part, other):
        initialise(nn.ModuleDict({"m": each}), 0)
    values, lengths = tensors(X)
    features = torch.from_numpy(frozen["m"])
    torch.testing.assert_close(part.vectors(values, lengths), features, atol=1e-5, rtol=1e-5)
    part.fit_statistics(values, lengths)
    other.fit_statistics(features, None)
    torch.testing.assert_close(part(values, lengths), other(features, None), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("trained", [False, True])
def test_only_trained_weights_move_and_they_move_slowly(trained: bool, tmp_path: Path) -> None:
    X = read(tmp_path, "text", trained)
    model = nn.ModuleDict({"m": encoder(X.specs["m"], 4)})
    initialise(model, 0)
    values, lengths = tensors(X)
    model["m"].fit_statistics(values, lengths)  # type: ignore[operator]
    assert {p.requires_grad for p in model["m"].backbone.parameters()} == {trained}  # type: ignore[union-attr]
    before = weights(model)
    rows = torch.arange(24)
    batch = Batch({"m": values}, {"m": rows >= 0}, {"m": lengths}, rows % 2, rows)  # type: ignore[dict-item]

    def losses(model: nn.ModuleDict, batch: Batch) -> Mapping[str, Tensor]:
        return {"size": model["m"](batch.views["m"], batch.lengths["m"]).square().sum()}

    schedule = Schedule(updates=1, learning_rate=0.1, weight_decay=0.0, warmup=0.0)
    train(model, [Stage("train", (Step(losses),))], batch, schedule, seed=0)
    moved = {name: (value - before[name]).abs().max().item() for name, value in model.named_parameters()}
    assert moved["m.linear.weight"] == pytest.approx(0.1, rel=1e-3)  # the first step of Adam is the rate
    largest = max(value for name, value in moved.items() if name.startswith("m.backbone."))
    assert largest == (pytest.approx(0.1 * PRETRAINED_SHARE, rel=1e-2) if trained else 0.0)


def test_padding_never_matters_no_row_sees_another_and_nothing_is_random(tmp_path: Path) -> None:
    X = read(tmp_path, "text")
    part = encoder(X.specs["m"], 4).train()
    values, lengths = tensors(X)
    assert lengths is not None
    dirty = torch.where(torch.arange(values.shape[1]) < lengths[:, None], values, 9)
    assert torch.equal(part(dirty, lengths), part(values, lengths))
    torch.testing.assert_close(part(values[1:2], lengths[1:2])[0], part(values, lengths)[1], atol=1e-5, rtol=1e-4)
    with torch.no_grad():  # a few rows at a time
        torch.testing.assert_close(part(values.repeat(2, 1), lengths.repeat(2))[24:], part(values, lengths))


def test_a_row_without_a_token_is_finite_and_so_is_its_gradient(tmp_path: Path) -> None:
    part: Any = encoder(read(tmp_path, "text").specs["m"], 4)
    values, lengths = torch.zeros(2, 6), torch.tensor([0, 3])
    masks: list[Tensor] = []
    part.backbone.model.register_forward_pre_hook(
        lambda _, args, given: masks.append(given["attention_mask"]), with_kwargs=True
    )
    answer = part(values, lengths)
    answer.sum().backward()
    assert answer.isfinite().all()
    assert masks[0].any(1).all()  # nothing to attend to is no number in some of a transformer's implementations
    assert all(p.grad.isfinite().all() for p in part.parameters() if p.grad is not None)
    assert part(values[:0], lengths[:0]).shape == (0, 4)


def test_every_token_number_reaches_the_model_as_the_tokenizer_meant_it(tmp_path: Path) -> None:
    how = ModalityConfig(kind="text", column="m", encoder=f"hf:{save_bare(tmp_path / 'bare')}", fine_tune=True)
    column = read_column(["red fox", "red", "dog red red"], how, tmp_path, name="m")
    part: Any = encoder(column.spec, 4)
    found = part.vectors(torch.from_numpy(column.array), torch.from_numpy(column.lengths))
    model = part.backbone.model
    for row, numbers in enumerate(([0, 1], [0], [2, 0, 0])):
        wanted = model(input_ids=torch.tensor([numbers])).last_hidden_state[0].mean(0)
        torch.testing.assert_close(found[row], wanted, atol=1e-5, rtol=1e-5)


def test_other_weights_than_the_rows_were_read_for_are_refused(tmp_path: Path) -> None:
    spec: ModalitySpec = read(tmp_path, "text").specs["m"]
    save_bert(tmp_path / "model", seed=1)
    with pytest.raises(ConfigError, match="The encoder 'hf:model' of 'm' is not the one .*: its files differ"):
        encoder(spec, 4)


@pytest.mark.parametrize("kind", ["text", "image"])
@pytest.mark.parametrize("method_id", names())
def test_every_method_learns_from_it_as_primary_and_as_secondary(method_id: str, kind: str, tmp_path: Path) -> None:
    X, y = read(tmp_path, kind), np.array(["even", "odd", "even", "odd"] * 6)
    for primary in ("m", "v"):
        given = X.only(["m", "v"], primary=primary)
        method = transference.create(method_id, width=4, schedule=BRIEF).fit(given, y)
        assert np.isfinite(method.predict_proba(given)).all()


@pytest.mark.parametrize(
    ("method_id", "parameters"),
    [
        ("transfer.distillation", {"weight": 0.0}),
        ("colearning.alignment.latent", {"weight": 0.0}),
        ("colearning.alignment.contrastive", {"weight": 0.0}),
        ("colearning.translation.cyclic", {"translation": 0.0, "cycle": 0.0}),
        ("colearning.fusion.modality_dropout", {"drop": 1.0, "drop_primary": 0.0, "layers": 0}),
    ],
)
def test_without_its_weight_a_method_is_the_baseline_bit_for_bit(
    method_id: str, parameters: Mapping[str, Any], tmp_path: Path
) -> None:
    X, y = read(tmp_path, "text"), np.arange(24) % 2
    plain = transference.create("unimodal", width=4, schedule=BRIEF).fit(X, y)
    method = transference.create(method_id, width=4, schedule=BRIEF, **parameters).fit(X, y)
    assert (method.predict_proba(X) == plain.predict_proba(X)).all()


def test_the_first_trained_layer_sees_numbers_that_noise_may_be_added_to(tmp_path: Path) -> None:
    X, y = read(tmp_path, "text"), np.arange(24) % 2
    part = encoder(X.specs["m"], 4)
    part.fit_statistics(*tensors(X))
    seen = part.standard(*tensors(X))
    assert seen.shape == (24, *part.standard_shape)
    torch.testing.assert_close(seen.std(0, correction=0), torch.ones(16), atol=1e-3, rtol=1e-3)
    method = transference.create("induction.self_training", width=4, schedule=BRIEF, consistency=0.5).fit(X, y)
    assert np.isfinite(method.history_["consistency"]).all()
