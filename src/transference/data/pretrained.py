"""A pretrained model of the transformers library, in evaluation, from one kind of cell to vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor

from transference.core.errors import ConfigError
from transference.core.seeding import fence
from transference.data.features import WORDS, sentence_settings


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
        preparer: Any = {
            "text": transformers.AutoTokenizer,
            "image": transformers.AutoImageProcessor,
            "audio": transformers.AutoFeatureExtractor,
        }[kind]
        try:
            with _quiet(), fence(0, "pretrained"):
                self.prepare = preparer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
                model, told = transformers.AutoModel.from_pretrained(
                    folder,
                    trust_remote_code=False,
                    local_files_only=True,
                    use_safetensors=True,
                    dtype=torch.float32,
                    output_loading_info=True,
                )
        except (OSError, ValueError, ImportError, KeyError) as error:
            reason = f"{error}".strip().partition("\n")[0][:200]
            raise ConfigError(f"The encoder {shown!r} cannot be loaded to read {kind}: {reason}") from error
        missing = [key for key in told["missing_keys"] if "pool" not in key]
        if missing:
            raise ConfigError(f"The encoder {shown!r} lacks weights, such as {sorted(missing)[0]!r}. Choose another.")
        self.pooled = not told["missing_keys"]
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.rate = int(getattr(self.prepare, "sampling_rate", 0))
        self.settings = sentence_settings(folder)
        self.limit = self._limit(length)

    def _limit(self, length: int | None) -> int:
        """Most tokens of a text; some models use two of their positions for padding."""
        positions = getattr(self.model.config, "max_position_embeddings", None) or WORDS + 2
        allowed = getattr(self.prepare, "model_max_length", None) or positions - 2
        limits = [length, self.settings["limit"], min(allowed, positions - 2 if allowed > positions else positions)]
        return min(limit for limit in limits if limit)

    def encode(self, inputs: Sequence[Any]) -> list[NDArray[np.float32]]:
        """One vector an input: texts, images, or waveforms at `rate`."""
        with torch.inference_mode():
            return [row.float().cpu().numpy() for row in getattr(self, f"_{self.kind}")(inputs)]

    def _text(self, texts: Sequence[str]) -> Tensor:
        fed = self.prepare(list(texts), padding=True, truncation=True, max_length=self.limit, return_tensors="pt")
        fed = {key: value.to(self.device) for key, value in fed.items()}
        if hasattr(self.model, "get_text_features"):
            return _pooled(self.model.get_text_features(**fed))
        states = self._encoder()(**fed).last_hidden_state  # (n, tokens, d)
        if self.settings["first"]:
            vectors = states[:, 0]
        else:
            mask = fed["attention_mask"][:, :, None].to(states.dtype)
            vectors = (states * mask).sum(1) / mask.sum(1).clamp_min(1)
        return torch.nn.functional.normalize(vectors, dim=1) if self.settings["normalise"] else vectors

    def _image(self, images: Sequence[Any]) -> Tensor:
        pixels = self.prepare(images=list(images), return_tensors="pt")["pixel_values"].to(self.device)
        if hasattr(self.model, "get_image_features"):
            return _pooled(self.model.get_image_features(pixel_values=pixels))
        answer = self.model(pixel_values=pixels)
        if self.pooled and getattr(answer, "pooler_output", None) is not None:
            return answer.pooler_output.flatten(1)
        states = answer.last_hidden_state  # (n, tokens, d), or (n, d, height, width)
        return states[:, 0] if states.ndim == 3 else states.flatten(2).mean(2)

    def _audio(self, waves: Sequence[NDArray[np.float32]]) -> list[Tensor]:
        """One by one: padding would change what a group-normalised encoder answers."""
        vectors = []
        for wave in waves:
            fed = self.prepare(wave, sampling_rate=self.rate, return_tensors="pt").to(self.device)
            if hasattr(self.model, "get_audio_features"):
                vectors.append(_pooled(self.model.get_audio_features(**fed))[0])
            else:
                vectors.append(self._encoder()(**fed).last_hidden_state[0].mean(0))
        return vectors

    def _encoder(self) -> Any:
        return self.model.get_encoder() if self.model.config.is_encoder_decoder else self.model


def _pooled(answer: Any) -> Tensor:
    return answer if isinstance(answer, Tensor) else answer.pooler_output


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's progress bars and advice, which it is asked to give again afterwards."""
    log = transformers.utils.logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()
