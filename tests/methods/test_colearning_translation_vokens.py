"""Vokens: the hinge in closed form, retrieval by brute force, context, what weights of 0 mean, and the controls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from transference.colearning.translation.vokens import Tokens, Vokens, guess_loss, hinge, nearest
from transference.core.errors import ConfigError
from transference.core.registry import create
from transference.core.spec import DataSpec, ModalitySpec
from transference.core.views import Views
from transference.data.loader import to_batch
from transference.nn.losses import supervised
from transference.train.schedule import Schedule
from transference.unimodal import Unimodal

QUICK = Schedule(updates=8, batch_size=12, device="cpu")


def unit(*shape: int, seed: int) -> Tensor:
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(values, dim=-1)


def data(n: int = 40, seed: int = 0) -> tuple[Views, NDArray[Any]]:
    """Texts of up to 9 words, one of them empty, beside numbers and a series that half of the rows have."""
    g = np.random.default_rng(seed)
    y = g.integers(0, 2, n)
    words = np.where(np.arange(9) < g.integers(2, 10, n)[:, None], g.integers(1, 30, (n, 9)), 0)
    words[5] = 0
    X = Views.of(
        primary="words",
        kinds={"words": "text"},
        words=words,
        z=g.normal(size=(n, 4)) + y[:, None],
        motion=g.normal(size=(n, 7, 3)),
    )
    return X.replace("motion", X["motion"], present=np.arange(n) % 2 == 0), np.where(np.arange(n) < 28, y, -1)


def planted(seed: int, noise: bool = False, n: int = 600) -> tuple[Views, NDArray[Any], NDArray[Any]]:
    """Four topics with 80 words each; four words of five are of the text's topic, which z shows. Eight labels."""
    g = np.random.default_rng(seed)
    topic = g.integers(0, 4, n)
    meaning = np.where(g.random((n, 6)) < 0.8, topic[:, None], g.integers(0, 4, (n, 6)))
    words = 1 + g.permutation(320)[meaning * 80 + g.integers(0, 80, (n, 6))]
    z = g.normal(size=(n, 4)) if noise else np.eye(4)[topic] + 0.3 * g.normal(size=(n, 4))
    y = (topic < 2).astype(int)
    return Views.of(primary="words", kinds={"words": "text"}, words=words, z=z), y, np.where(np.arange(n) < 8, y, -1)


def test_the_hinge_is_the_margin_where_all_scores_are_equal_and_0_where_they_are_apart() -> None:
    real = torch.ones(5, 3, dtype=torch.bool)
    same = unit(1, 4, seed=0).expand(5, 4)
    assert hinge(same[:, None].expand(5, 3, 4), same, real, 0.5).item() == pytest.approx(0.5, abs=1e-15)
    eye = torch.eye(5, dtype=torch.float64)
    assert hinge(eye[:, None].expand(5, 3, 5), eye, real, 0.5).item() == 0.0  # apart by 1
    assert hinge(eye[:, None].expand(5, 3, 5), eye, real, 1.25).item() == pytest.approx(0.25)
    assert hinge(eye[:1, None], eye[:1], real[:1, :1]).item() == 0.0  # nothing to be told from


def test_the_hinge_against_a_slow_loop_that_skips_padding() -> None:
    tokens, things = unit(6, 4, 3, seed=0), unit(6, 3, seed=1)
    real = torch.arange(4) < torch.tensor([4, 1, 3, 0, 2, 4])[:, None]
    costs = []
    for r in range(6):
        for i in range(4):
            if real[r, i]:
                match = float(tokens[r, i] @ things[r])
                gaps = [max(0.0, 0.5 - match + float(tokens[r, i] @ things[s])) for s in range(6) if s != r]
                costs.append(sum(gaps) / 5)
    assert hinge(tokens, things, real).item() == pytest.approx(sum(costs) / len(costs), rel=1e-12)
    tokens.requires_grad_(True)
    hinge(tokens, things, real).backward()
    assert tokens.grad is not None
    assert not tokens.grad[~real].any()
    assert tokens.grad[real].any()


def test_retrieval_is_the_argmax_of_brute_force_however_it_is_cut() -> None:
    tokens, keys = unit(50, 4, seed=0), unit(13, 4, seed=1)
    slow = [max(range(13), key=lambda k: float(token @ keys[k])) for token in tokens]
    distance = [min(range(13), key=lambda k: float((token - keys[k]).square().sum())) for token in tokens]
    assert slow == distance
    for rows in (4096, 7, 1):
        assert nearest(tokens, keys, rows).tolist() == slow


def test_a_guess_is_sought_among_the_blanked_words_of_the_batch() -> None:
    tokens = Tokens(ModalitySpec("words", "text", (5,), vocabulary=20), 4, 5)
    answers, truth = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([7, 3, 7, 11])
    table = tokens.words.weight.detach()
    costs = []
    for answer, word in zip(answers, truth.tolist(), strict=True):
        scores = {other: float(torch.exp(answer @ table[other])) for other in {3, 7, 11}}
        costs.append(-np.log(scores[word] / sum(scores.values())))
    assert guess_loss(tokens, answers, truth).item() == pytest.approx(np.mean(costs), rel=1e-5)
    steps = Tokens(ModalitySpec("motion", "series", (5, 3)), 4, 5)
    assert guess_loss(steps, torch.zeros(2, 3), torch.tensor([[1.0, 2, 3], [0, 0, 1]])).item() == pytest.approx(15 / 6)
    assert guess_loss(tokens, answers[:0], truth[:0]).item() == 0.0


@pytest.mark.parametrize(
    "modality", [ModalitySpec("words", "text", (6,), vocabulary=20), ModalitySpec("s", "series", (6, 3))]
)
def test_a_blanked_token_is_not_seen_and_its_context_is(modality: ModalitySpec) -> None:
    tokens = Tokens(modality, 8, 6, blanks=True)
    tokens.reset_parameters()
    values = torch.randint(1, 20, (2, *modality.shape), generator=torch.Generator().manual_seed(0)).float()
    real, blanked = torch.ones(2, 6, dtype=torch.bool), torch.zeros(2, 6, dtype=torch.bool)
    blanked[:, 2] = True
    for changed, seen in ((2, False), (4, True)):
        other = values.clone()
        other[:, changed] = 9.0
        one, two = (tokens(tokens.read(each, None)[0], real, blanked) for each in (values, other))
        assert torch.equal(one[:, 2], two[:, 2]) is not seen
    assert not torch.equal(tokens(tokens.read(values, None)[0], real), one)


def test_the_losses_by_hand() -> None:
    X, y = data()
    order = np.random.default_rng(0).permutation(40)
    model = Vokens(voken=3.0, masked=0.0, clusters=5, schedule=QUICK).fit(X[order], y[order])
    net, vokens = model.net_, model.vokenize(X)
    model._retrieve(net, to_batch(X[order], y[order]))  # as before its second stage
    assert {name: ids.shape for name, ids in vokens.items()} == {"z": (40, 9), "motion": (40, 9)}
    with torch.no_grad():
        losses = model.losses(net, to_batch(X, y))
        given = torch.from_numpy(X["words"]).long()
        states = net.language(given, given > 0)
        for name, ids in vokens.items():
            costs = []
            for row in range(40):
                for i in range(9):
                    assert (ids[row, i] == -1) == (given[row, i] == 0)
                    if given[row, i] > 0:
                        costs.append(-float(net.vokens[name](states[row, i]).log_softmax(0)[ids[row, i]]))
            assert losses[f"voken of {name}"].item() == pytest.approx(3 / 2 * np.mean(costs), rel=1e-4)
        pooled = [
            row[there].mean(0) if there.any() else torch.zeros(32) for row, there in zip(states, given > 0, strict=True)
        ]
        features = net.encoders["words"](torch.from_numpy(X["words"]), None) + torch.stack(pooled) @ net.bridge
        log_p = net.head(features).log_softmax(1)[np.arange(28), y[:28]]
    assert losses["task"].item() == pytest.approx(-log_p.mean().item(), rel=1e-4)
    assert net.bridge.any()
    np.testing.assert_allclose(model.embed(X)["words"], features.numpy(), atol=1e-5)
    np.testing.assert_allclose(model.decide(X), net.head(features).softmax(1).detach().numpy(), atol=1e-5)


def test_a_share_of_the_real_tokens_is_blanked_and_guessed() -> None:
    X, y = data(400)
    model = Vokens(voken=0.0, masked=2.0, schedule=QUICK).fit(X, y)
    net, seen = model.net_, []
    net.language.register_forward_hook(lambda part, given, answer: seen.append((*given, answer)))
    loss = model.losses(net, to_batch(X, y))["masked token"]
    given, real, blanked, states = seen[0]
    assert not blanked[~real].any()
    assert blanked.sum() / real.sum() == pytest.approx(0.15, abs=0.03)
    again = guess_loss(net.language, net.guess(states[blanked]), given[blanked])
    assert loss.item() == pytest.approx(2 * again.item(), rel=1e-5)
    seen.clear()
    model.decide(X)
    assert len(seen[0]) == 3  # nothing is blanked in an answer


class MaskedAlone(Unimodal):
    """Masked prediction beside the task, written down without a thought of vokens."""

    def build(self, spec: DataSpec) -> Any:
        net: Any = super().build(spec)
        net.language = Tokens(spec.modalities["words"], self.width // 2, 32, blanks=True)
        net.guess = nn.Linear(self.width // 2, self.width // 2)
        net.bridge = nn.Parameter(torch.zeros(self.width // 2, self.width))
        return net

    def losses(self, net: Any, batch: Any) -> dict[str, Tensor]:
        words = batch.views["words"].long()
        blanked = (torch.rand(words.shape) < 0.15) & (words > 0)
        states = net.language(words, words > 0, blanked)
        task = supervised(net.head(self.read(net, batch, states)), batch.target, self.spec_.task)
        return {"task": task, "masked token": guess_loss(net.language, net.guess(states[blanked]), words[blanked])}

    def scores(self, net: Any, batch: Any) -> Tensor:
        words = batch.views["words"].long()
        return net.head(self.read(net, batch, net.language(words, words > 0)))

    def read(self, net: Any, batch: Any, states: Tensor) -> Tensor:
        real = (batch.views["words"] > 0).float()[:, :, None]
        return net.encode(batch, "words") + ((states * real).sum(1) / real.sum(1).clamp_min(1)) @ net.bridge


def test_without_vokens_it_is_masked_prediction_alone_bit_for_bit() -> None:
    X, y = data()
    X, y = X[:28], y[:28]
    alone = MaskedAlone(schedule=QUICK, seed=4).fit(X, y)
    other = X.replace("z", X["z"][::-1].copy()).replace("motion", X["motion"] * 5)
    for rows in (X, other):
        zero = Vokens(voken=0.0, schedule=QUICK, seed=4).fit(rows, y)
        assert zero.history_ == alone.history_
        np.testing.assert_array_equal(zero.decide(X), alone.decide(X))
    assert set(zero.net_.state_dict()) == set(alone.net_.state_dict())
    assert not np.array_equal(Vokens(voken=0.1, schedule=QUICK, seed=4).fit(X, y).decide(X), alone.decide(X))
    with pytest.raises(ConfigError, match="no vokens: the 'voken' parameter of Vokens is 0"):
        zero.vokenize(X)


def test_without_vokens_and_blanks_it_is_unimodal_bit_for_bit() -> None:
    X, y = data()
    plain = create("unimodal", schedule=QUICK, seed=4).fit(X, y)
    zero = Vokens(voken=0.0, masked=0.0, schedule=QUICK, seed=4).fit(X, y)
    np.testing.assert_array_equal(zero.decide(X), plain.decide(X))
    assert zero.history_ == plain.history_
    assert set(zero.net_.state_dict()) == set(plain.net_.state_dict())
    vector = Views.of(primary="z", z=X["z"], words=X["z"])  # one token, of which nothing can be guessed
    np.testing.assert_array_equal(
        Vokens(voken=0.0, schedule=QUICK).fit(vector, y).decide(vector),
        create("unimodal", schedule=QUICK).fit(vector, y).decide(vector),
    )


def test_the_bank_holds_what_is_there_and_all_rows_get_vokens() -> None:
    X, y = data()
    model = Vokens(keys=6, clusters=None, schedule=QUICK).fit(X, y)
    matching, batch = model.net_.matching, to_batch(X, y)
    with torch.no_grad():
        (f,), real = matching.match_tokens(batch, ["motion"])
        g = matching.match_things(batch, "motion")
    bank = matching.keys[matching.names.index("motion")]
    closest = (bank @ g.T).max(1)
    assert bank.shape == (6, 32)
    torch.testing.assert_close(closest.values, torch.ones(6))
    assert len(closest.indices.unique()) == 6
    assert (closest.indices % 2 == 0).all()  # the rows that have it
    ids = model.vokenize(X.only(["words"]))["motion"]
    slow = torch.einsum("itd,kd->itk", f, bank).argmax(2).where(real, -1)
    np.testing.assert_array_equal(ids, slow.numpy())
    assert (ids[1] >= 0).any()  # which lacks the motion
    assert (ids[5] == -1).all()  # which has no word


def test_clusters_are_fewer_directions_of_unit_length() -> None:
    X, y = data()
    bank = Vokens(clusters=3, schedule=QUICK).fit(X, y).net_.matching.keys
    torch.testing.assert_close(bank.norm(dim=2), torch.ones(2, 3))
    constant = X.replace("z", np.ones_like(X["z"]))
    used = Vokens(clusters=3, schedule=QUICK).fit(constant, y).net_.matching.keys.any(2).sum(1)
    assert used.tolist() == [3, 1]  # of the motion and of z


def test_random_vokens_are_the_retrieved_ones_elsewhere_and_stage_2_leaves_the_matching_alone() -> None:
    X, y = data()
    retrieved = Vokens(clusters=5, schedule=QUICK).fit(X, y)
    random = Vokens(clusters=5, vokens="random", voken=7.0, schedule=QUICK).fit(X, y)
    for name, value in retrieved.net_.matching.state_dict().items():
        assert torch.equal(value, random.net_.matching.state_dict()[name])
    assert not any(parameter.requires_grad for parameter in random.net_.matching.parameters())
    found = retrieved.vokenize(X)
    for model in (retrieved, random):
        model._retrieve(model.net_, to_batch(X, y))  # as before its second stage
    for name, ids in found.items():
        np.testing.assert_array_equal(retrieved._table[1][name].numpy(), ids)
        exchanged = random._table[1][name].numpy()
        np.testing.assert_array_equal(exchanged == -1, ids == -1)
        assert sorted(exchanged.ravel()) == sorted(ids.ravel())
        assert not np.array_equal(exchanged, ids)
    stages = np.isfinite(retrieved.history_["match: hinge with z"])
    assert retrieved.history_["update"][-1] == 16
    assert stages.sum() == 8


def test_a_word_gets_another_voken_in_another_context() -> None:
    """Word 13 means what its neighbour means; its place in the text is always the same."""
    g = np.random.default_rng(0)
    kind = g.integers(0, 4, 200)
    words = np.stack([1 + 3 * kind + g.integers(0, 3, 200), np.full(200, 13)], 1)
    X = Views.of(primary="words", kinds={"words": "text"}, words=words, z=np.eye(4)[kind])
    schedule = Schedule(updates=80, batch_size=32, learning_rate=1e-2)
    ids = Vokens(clusters=4, width=16, schedule=schedule).fit(X, kind).vokenize(X)["z"][:, 1]
    counts = np.array([np.bincount(ids[kind == k], minlength=4) for k in range(4)])
    assert counts.max(1).sum() > 190
    assert len(set(counts.argmax(1))) == 4


def test_only_the_first_tokens_and_nothing_but_the_primary_is_read() -> None:
    X, y = data()
    model = Vokens(tokens=4, schedule=QUICK).fit(X, y)
    further = X["words"].copy()
    further[:, 4:] = 3.0
    ids = model.vokenize(X)["z"]
    assert ids.shape == (40, 4)
    np.testing.assert_array_equal(model.vokenize(X.replace("words", further))["z"], ids)
    poisoned = X
    for name in X.secondary:
        poisoned = poisoned.replace(name, np.full_like(X[name], np.nan))
    for other in (X.only(["words"]), poisoned):
        np.testing.assert_array_equal(model.decide(other), model.decide(X))
        np.testing.assert_array_equal(model.vokenize(other)["z"], ids)


def test_padding_changes_no_loss() -> None:
    X, y = data()
    X = X.replace("words", X["words"], lengths=(X["words"] > 0).sum(1))
    model = Vokens(voken=1.0, masked=0.0, schedule=QUICK).fit(X, y)
    wide = np.where(np.arange(9) < X.lengths["words"][:, None], X["words"], 17).astype(np.float32)
    batches = [to_batch(views, y) for views in (X, X.replace("words", wide))]
    model._retrieve(model.net_, batches[0])  # as before its second stage
    one, two = ({**model.losses(model.net_, b), **model._matching_losses(model.net_, b)} for b in batches)
    for name in ("voken of z", "voken of motion", "hinge with z"):
        torch.testing.assert_close(two[name], one[name])


def test_vokens_find_what_words_mean_and_neither_random_ones_nor_noise_do() -> None:
    schedule = Schedule(updates=100, batch_size=24, learning_rate=1e-2, device="cpu")
    arms: dict[str, tuple[bool, dict[str, Any]]] = {
        "masked": (False, {"voken": 0.0}),
        "vokens": (False, {}),
        "random": (False, {"vokens": "random"}),
        "noise": (True, {}),
    }
    right: dict[str, list[float]] = {name: [] for name in (*arms, "unimodal")}
    for seed in range(2):
        for name, (noise, more) in arms.items():
            X, y, few = planted(seed, noise)
            model = Vokens(clusters=4, width=32, schedule=schedule, seed=seed, **more).fit(X[:400], few[:400])
            right[name].append(model.score(X[400:], y[400:]))
        alone = create("unimodal", width=32, schedule=schedule, seed=seed).fit(X[:400], few[:400])
        right["unimodal"].append(alone.score(X[400:], y[400:]))
    mean = {name: np.mean(values) for name, values in right.items()}
    assert mean["vokens"] > max(mean["masked"], mean["unimodal"]) + 0.1
    assert mean["random"] < mean["masked"] + 0.05
    assert mean["noise"] < mean["masked"] + 0.05
