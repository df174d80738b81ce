"""A pretrained model's files: where they are, what they say, and a digest of those that count. No torch.

Models are loaded from safetensors only, and no code that comes with a model is run.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transference.core.errors import ConfigError

PREPARATION = (".json", ".txt", ".model")  # files of tokenizers and processors, and how the model is built
WEIGHTS = (".safetensors",)
VERSION = 1  # of what a cell becomes when a model is fine-tuned
WORDS = 512  # tokens of a text, where neither the study nor the model says
_PREPARERS = {"text": "AutoTokenizer", "image": "AutoImageProcessor", "audio": "AutoFeatureExtractor"}


def find_model(encoder: str, folder: Path) -> Path:
    """The files of ``hf:<id or folder>``: a folder beside the table, a folder, or a model of the Hugging Face hub."""
    wanted = encoder.removeprefix("hf:")
    places = [folder / wanted, Path(wanted).expanduser()]
    return next((place for place in places if (place / "config.json").is_file()), None) or _from_hub(wanted)


def require_weights(found: Path, encoder: str) -> None:
    """Raise ConfigError unless the weights are there in a form that is loaded."""
    if not any(found.glob("*.safetensors")):
        raise ConfigError(
            f"The encoder {encoder!r} must have its weights as safetensors. Got none in its folder instead. "
            "Choose a model that has them, or convert it with 'save_pretrained'."
        )


def digest(found: Path, suffixes: Iterable[str], about: str) -> str:
    """Of all files with these endings, in subfolders too, and of `about`."""
    total, counted = hashlib.blake2b(about.encode(), digest_size=16), frozenset(suffixes)
    for path in sorted(found.rglob("*")):
        if path.suffix in counted and path.is_file():
            total.update(f"\0{path.relative_to(found).as_posix()}\0".encode())
            with path.open("rb") as file:
                total.update(hashlib.file_digest(file, "blake2b").digest())
    return total.hexdigest()


def identities(found: Path, what: str) -> dict[str, str]:
    """What tells a model that is fine-tuned from others: its preparation of cells, by a "tokenizer" or "processor",
    which new rows need too, and its weights, which they do not.
    """
    return {"identity": digest(found, PREPARATION, f"{VERSION} {what}"), "weights": digest(found, WEIGHTS, "")}


def load_preparer(found: Path, shown: str, kind: str) -> Any:
    """The tokenizer, image processor or feature extractor of a model."""
    require_transformers()
    import transformers

    with loading(shown, kind):
        preparer = getattr(transformers, _PREPARERS[kind])
        return preparer.from_pretrained(found, trust_remote_code=False, local_files_only=True)


def most_tokens(tokenizer: Any, config: Any, found: Path, length: int | None) -> int:
    """Most tokens of a text, `length` at most; some models use two of their positions for padding."""
    positions = getattr(config, "max_position_embeddings", None) or WORDS + 2
    allowed = getattr(tokenizer, "model_max_length", None) or positions - 2
    own = min(allowed, positions - 2 if allowed > positions else positions)
    return min(limit for limit in (length, sentence_settings(found)["limit"], own) if limit)


def sentence_settings(found: Path) -> dict[str, Any]:
    """What a sentence-transformers folder says: the most tokens, pooling by the first token, unit length."""
    limit = _json(found / "sentence_bert_config.json").get("max_seq_length")
    pooling = _json(found / "1_Pooling" / "config.json")
    modules = _json(found / "modules.json")
    normalise = any(str(module.get("type", "")).endswith("Normalize") for module in modules or [])
    return {"limit": limit, "first": bool(pooling.get("pooling_mode_cls_token")), "normalise": normalise}


def require_transformers() -> None:
    from importlib.util import find_spec

    if find_spec("transformers") is None:
        raise ConfigError(
            "A pretrained encoder needs transformers, not installed here. Run: pip install 'transference[pretrained]'"
        )


@contextmanager
def loading(shown: str, kind: str) -> Iterator[None]:
    """Inside, a model is loaded: without progress bars and advice, and what fails is told in the house's words."""
    import transformers

    log = transformers.utils.logging
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    except (OSError, ValueError, ImportError, KeyError) as error:
        reason = f"{error}".strip().partition("\n")[0][:200]
        raise ConfigError(f"The encoder {shown!r} cannot be loaded to read {kind}: {reason}") from error
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()


def _from_hub(name: str) -> Path:
    require_transformers()
    import huggingface_hub
    from huggingface_hub.errors import HFValidationError

    patterns = [f"*{suffix}" for suffix in PREPARATION + WEIGHTS]
    try:
        try:
            return Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns, local_files_only=True))
        except OSError:  # not there yet
            return Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns))
    except (OSError, HFValidationError, ConnectionError) as error:
        raise ConfigError(
            f"The encoder 'hf:{name}' is neither a folder with a config.json, nor a model that can be fetched "
            f"({type(error).__name__}). Correct the name, go online once, or give the folder of a downloaded model."
        ) from error


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
