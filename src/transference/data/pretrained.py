"""A pretrained model of the transformers library, from one kind of cell to vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor, nn

from transference.core.errors import ConfigError
from transference.core.seeding import exact, fence
from transference.data.hub import load_preparer, loading, most_tokens, sentence_settings


class Backbone(nn.Module):
    """A model, and what of its answer stands for a cell: the same whether its weights are frozen or trained.

    Parameters
    ----------
    model
        Of the transformers library.
    pooled
        Whether the weights of its pooling are trained ones.
    first, normalise
        Of text: whether its first token stands for it, rather than the mean over its tokens; whether vectors have unit
        length.
    """

    def __init__(self, model: Any, *, pooled: bool = True, first: bool = False, normalise: bool = False) -> None:
        super().__init__()
        self.model = model
        self.pooled = pooled
        self.first = first
        self.normalise = normalise

    def text(self, fed: Mapping[str, Tensor]) -> Tensor:
        """(n, d) from ``input_ids`` and ``attention_mask``, each (n, tokens), and what else the tokenizer gave."""
        if hasattr(self.model, "get_text_features"):
            return _pooled(self.model.get_text_features(**fed))
        states = self._encoder()(**fed).last_hidden_state  # (n, tokens, d)
        if self.first:
            vectors = states[:, 0]
        else:
            mask = fed["attention_mask"][:, :, None].to(states.dtype)
            vectors = (states * mask).sum(1) / mask.sum(1).clamp_min(1)
        return nn.functional.normalize(vectors, dim=1) if self.normalise else vectors

    def image(self, pixels: Tensor) -> Tensor:
        """(n, d) from (n, channels, height, width) as the model's processor leaves them."""
        if hasattr(self.model, "get_image_features"):
            return _pooled(self.model.get_image_features(pixel_values=pixels))
        answer = self.model(pixel_values=pixels)
        if self.pooled and getattr(answer, "pooler_output", None) is not None:
            return answer.pooler_output.flatten(1)
        states = answer.last_hidden_state  # (n, tokens, d), or (n, d, height, width)
        return states[:, 0] if states.ndim == 3 else states.flatten(2).mean(2)

    def audio(self, fed: Mapping[str, Tensor]) -> Tensor:
        """(n, d), the mean over frames, from what the feature extractor gave for sounds of equal length."""
        if hasattr(self.model, "get_audio_features"):
            return _pooled(self.model.get_audio_features(**fed))
        return self._encoder()(**fed).last_hidden_state.mean(1)

    def size(self, shown: str, kind: str, shape: tuple[int, ...]) -> int:
        """How many numbers stand for a cell of this shape; raises ConfigError where the model does not take such."""
        try:
            with torch.no_grad():
                if kind == "text":
                    one = torch.ones((1, 1), dtype=torch.int64)
                    return self.text({"input_ids": one, "attention_mask": one}).shape[1]
                return self.image(torch.zeros(1, *shape)).shape[1]
        except (TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}".partition("\n")[0][:200]
            raise ConfigError(
                f"The encoder {shown!r} cannot be fine-tuned to read {kind}: {reason}. Leave 'fine_tune' out."
            ) from error

    def _encoder(self) -> Any:
        return self.model.get_encoder() if self.model.config.is_encoder_decoder else self.model


def load_backbone(found: Path, shown: str, kind: str) -> Backbone:
    """The model in a folder, in evaluation mode.

    Parameters
    ----------
    found
        Config and safetensors weights.
    shown
        How the study names it, for messages.
    kind
        "text", "image" or "audio".

    Raises
    ------
    ConfigError
        When it cannot be loaded, or lacks weights other than those of its pooling.
    """
    model, told = _loaded(found, shown, kind, transformers.AutoModel)
    missing = [key for key in told["missing_keys"] if "pool" not in key]
    if missing:
        raise ConfigError(f"The encoder {shown!r} lacks weights, such as {sorted(missing)[0]!r}. Choose another.")
    settings = sentence_settings(found)
    pooled = not told["missing_keys"]
    return Backbone(model, pooled=pooled, first=settings["first"], normalise=settings["normalise"]).eval()


def load_language_model(found: Path, shown: str) -> Any:
    """The model in a folder with what says words at its end, in evaluation mode.

    Raises
    ------
    ConfigError
        When it cannot be loaded, or lacks weights.
    """
    model, told = _loaded(found, shown, "text", transformers.AutoModelForCausalLM)
    if told["missing_keys"]:
        raise ConfigError(
            f"The language model {shown!r} lacks weights, such as {sorted(told['missing_keys'])[0]!r}. It may be an "
            "encoder, which says no words. Choose another."
        )
    return model.eval()


def _loaded(found: Path, shown: str, kind: str, auto: Any) -> tuple[Any, dict[str, Any]]:
    """The model in a folder, and what was not as expected about its weights."""
    with loading(shown, kind), fence(0, "pretrained"):
        return auto.from_pretrained(
            found,
            trust_remote_code=False,
            local_files_only=True,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )


class Pretrained:
    """A frozen encoder.

    Parameters
    ----------
    folder
        Config, safetensors weights and preprocessing files.
    shown
        How the study names it, for messages.
    kind
        "text", "image" or "audio".
    length
        Most tokens of a text; None = what the model allows.

    Attributes
    ----------
    rate
        Samples a second that it wants; 0 unless audio.
    """

    def __init__(self, folder: Path, shown: str, kind: str, length: int | None) -> None:
        self.kind = kind
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.prepare = load_preparer(folder, shown, kind)
        self.backbone = load_backbone(folder, shown, kind).to(self.device).requires_grad_(False)
        self.rate = int(getattr(self.prepare, "sampling_rate", 0))
        self.limit = most_tokens(self.prepare, self.backbone.model.config, folder, length)

    def encode(self, inputs: Sequence[Any]) -> list[NDArray[np.float32]]:
        """One vector an input: texts, images, or waveforms at `rate`."""
        with exact(), torch.inference_mode():
            return [row.float().cpu().numpy() for row in getattr(self, f"_{self.kind}")(inputs)]

    def _text(self, texts: Sequence[str]) -> Tensor:
        fed = self.prepare(list(texts), padding=True, truncation=True, max_length=self.limit, return_tensors="pt")
        return self.backbone.text({key: value.to(self.device) for key, value in fed.items()})

    def _image(self, images: Sequence[Any]) -> Tensor:
        pixels = self.prepare(images=list(images), return_tensors="pt")["pixel_values"]
        return self.backbone.image(pixels.to(self.device))

    def _audio(self, waves: Sequence[NDArray[np.float32]]) -> list[Tensor]:
        """One by one: padding would change what a group-normalised encoder answers."""
        prepared = (self.prepare(wave, sampling_rate=self.rate, return_tensors="pt") for wave in waves)
        return [self.backbone.audio(fed.to(self.device))[0] for fed in prepared]


def _pooled(answer: Any) -> Tensor:
    return answer if isinstance(answer, Tensor) else answer.pooler_output
