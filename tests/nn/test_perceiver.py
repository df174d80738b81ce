"""The perceiver: places, attention and tokens by hand, zeros that are inert, and what grows with the modalities."""

from __future__ import annotations

import math

import numpy as np
import torch

from transference.core.spec import DataSpec, ModalitySpec, Task
from transference.nn.perceiver import Crossing, HighNetwork, Perceiver, positions, thinned

torch.set_num_threads(1)

NAMES = ("a", "b", "c")


def spec_of(sizes: dict[str, int]) -> DataSpec:
    modalities = {name: ModalitySpec(name, "vector", (size,)) for name, size in sizes.items()}
    return DataSpec(modalities, next(iter(sizes)), Task("classification", ("p", "q"), 2))


def network(count: int, width: int = 64) -> HighNetwork:
    names = [f"m{k}" for k in range(count)]
    return HighNetwork(spec_of(dict.fromkeys(names, 5)), width, 4, 1, dict.fromkeys(names, 0), 5)


def test_positions_by_hand() -> None:
    found = positions(5)
    assert found.shape == (5, 9)
    for k, place in enumerate((-1.0, -0.5, 0.0, 0.5, 1.0)):
        angles = [math.pi * place * 2**b for b in range(4)]
        expected = [place, *[math.sin(angle) for angle in angles], *[math.cos(angle) for angle in angles]]
        np.testing.assert_allclose(found[k], expected, atol=1e-5)
    assert positions(1)[0].tolist() == [0.0] * 5 + [1.0] * 4


def test_attention_by_hand() -> None:
    torch.manual_seed(0)
    part = Crossing(6)
    asking, told = torch.randn(2, 3, 6), torch.randn(2, 4, 6)
    real = torch.tensor([[True, True, False, True], [True, False, False, False]])
    with torch.no_grad():
        found = part(asking, told, real)
        for i in range(2):
            key, value = part.key_value(part.told(told[i])).chunk(2, 1)
            for t in range(3):
                query = part.query(part.before(asking[i, t]))
                loud = [math.exp(float(query @ key[s]) / 6**0.5) for s in range(4) if real[i, s]]
                read = [value[s] for s in range(4) if real[i, s]]
                mean = torch.stack([w / (1 + sum(loud)) * v for w, v in zip(loud, read, strict=True)]).sum(0)
                x = asking[i, t] + part.out(mean)
                torch.testing.assert_close(found[i, t], x + part.deep(part.between(x)), rtol=1e-4, atol=1e-5)


def test_tokens_are_one_map_of_numbers_zeros_place_and_modality() -> None:
    torch.manual_seed(0)
    part = Perceiver(channels=7, width=6, latents=3, depth=2)
    numbers, place, row = torch.randn(4, 5, 3), positions(5), torch.randn(2, 6)
    standard = torch.cat(
        [
            (64 / 3) ** 0.5 * numbers,
            torch.zeros(4, 5, 4),  # up to the size of the largest
            place.expand(4, -1, -1),
            torch.eye(2)[1].expand(4, 5, -1),  # which modality
        ],
        2,
    )
    with torch.no_grad():
        weight = torch.cat([part.entry.content, part.entry.place.weight.T, row])
        tokens = standard @ weight + part.entry.place.bias
        torch.testing.assert_close(part.entry(numbers, place, row[1]), tokens, rtol=1e-4, atol=1e-5)
        latents = part.latents.value.expand(4, -1, -1)
        for _ in range(2):  # the same weights each time
            latents = part.block(part.crossing(latents, tokens), torch.ones(4, 3, dtype=torch.bool))
        found = part(numbers, torch.ones(4, 5, dtype=torch.bool), place, row[1])
        torch.testing.assert_close(found, latents, rtol=1e-4, atol=1e-5)


def test_room_for_larger_modalities_is_inert() -> None:
    torch.manual_seed(0)
    small, large = (Perceiver(channels, 6, 3, 1) for channels in (3, 9))
    state = small.state_dict()
    state["entry.content"] = torch.cat([state["entry.content"], torch.randn(6, 6)])
    large.load_state_dict(state)
    given = (torch.randn(4, 5, 3), torch.ones(4, 5, dtype=torch.bool), positions(5), torch.randn(6))
    assert torch.equal(small(*given), large(*given))
    large(*given).square().sum().backward()
    gradient = large.entry.content.grad
    assert gradient is not None
    assert bool((gradient[:3] != 0).any(1).all())
    assert not gradient[3:].any()


def test_a_modality_more_is_a_row_and_heads_more() -> None:
    sizes = {count: sum(p.numel() for p in network(count).parameters()) for count in (2, 3, 5)}
    head = {count: 2 * 64 * count * (count - 1) + 2 * (64 * count * (count - 1) + 1) for count in sizes}
    alone = 64 + 2 * 64 + 2 * 65  # a row, and LN and Linear of its own head
    shared = {count: sizes[count] - head[count] - count * alone for count in sizes}
    assert shared[2] == shared[3] == shared[5] > 0


def test_the_joint_head_reads_all_ordered_pairs() -> None:
    for count, size in ((2, 128), (3, 384)):
        net = network(count)
        assert net.together[0].normalized_shape == (size,)
        assert net.together[1].in_features == size
    assert not hasattr(network(1), "together")


def test_half_of_the_rows_of_three_modalities_lose_one() -> None:
    torch.manual_seed(0)
    full = torch.ones(4000, dtype=torch.bool)
    present = {"a": full, "b": full, "c": torch.arange(4000) % 2 == 0}
    kept = thinned(present)
    lost = torch.stack([present[name] & ~kept[name] for name in NAMES], 1)
    assert bool((lost.sum(1) <= 1).all())
    assert not lost[1::2].any()  # rows of two modalities keep both
    assert bool((torch.stack(list(kept.values())) <= torch.stack(list(present.values()))).all())
    np.testing.assert_allclose(lost[::2].float().mean(0), [1 / 6] * 3, atol=0.03)
    state = torch.random.get_rng_state()
    assert set(thinned({"a": full, "b": full})) == {"a", "b"}
    assert torch.equal(torch.random.get_rng_state(), state)
