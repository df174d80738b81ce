"""A frozen causal language model that is told of a row, and says the row's text word after word.

What it is told comes from a learned encoder of the primary modality: as vectors before the words, or as keys and values
that every place of every layer sees. The model learns nothing of this; its gradient passes through.

    nats  mean over the words of  -log p(word | the primary modality, the words before it),  the end among them

A text that the model does not read, and any other modality, has no words here: its low-level input, see
`nn.reversible`, is said at once, by a linear map of the state from which the first word is said.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from transference.core.batch import Batch
from transference.core.errors import ConfigError, must_be
from transference.core.spec import DataSpec, ModalitySpec
from transference.nn.encoders import mask_of
from transference.nn.heads import head
from transference.nn.language import Sentences, true_tokens
from transference.nn.losses import unexplained
from transference.nn.named import ByModality
from transference.nn.reversible import Reversible
from transference.nn.trunk import Past, Trunk, given_trunk, numbers_of, own_trunk, says_words, trunk_of


class Reading:
    """A causal model in the middle of reading: what it has read is kept, and what comes next goes on from there.

    Parameters
    ----------
    trunk
        The model.
    context
        Keys and values of each layer, (n, heads, m, head), that every place sees; they have no places of their own.
    shown
        (n, m) bool: which of them are seen; None = all.
    """

    def __init__(self, trunk: Trunk, context: Past | None = None, shown: Tensor | None = None) -> None:
        from transformers import DynamicCache

        self.trunk = trunk
        self.cache = DynamicCache()
        self.seen = shown
        self.count: Tensor | int = 0  # places so far
        for layer, (keys, values) in enumerate(context or ()):
            self.cache.update(keys, values, layer)
            if self.seen is None:
                self.seen = torch.ones_like(keys[:, 0, :, 0], dtype=torch.bool)

    def on(self, vectors: Tensor, real: Tensor) -> Tensor:
        """(n, length, out) states of the next places; arguments as of `Trunk`."""
        places = (self.count + real.cumsum(1) - 1).clamp_min(0)
        self.count = self.count + real.sum(1, keepdim=True)
        self.seen = real if self.seen is None else torch.cat([self.seen, real], 1)
        fed = {"inputs_embeds": vectors, "attention_mask": self.seen.long(), "position_ids": places}
        base = self.trunk.model.base_model
        return base(**fed, past_key_values=self.cache, use_cache=True).last_hidden_state


class Speaker(nn.Module):
    """A frozen causal language model, and the text that it says.

    The model is `language_model`; else the one that a text was read with (`fine_tune` in the study file); else a small
    one of its own, which is still to be trained on a text of the rows, its 1024 most frequent words, 24 of a row; so
    for tokens of an encoder, which says none. Of several texts, secondary modalities come before the primary one, then
    they go by name.

    Parameters
    ----------
    spec
        All modalities.
    language_model
        ``hf:<id or folder>`` of a causal language model, or None. A text that was read as its tokens is said.
    width
        Of an own model.
    lead
        How many vectors come before the first word.

    Attributes
    ----------
    text
        The secondary modality that is said; None where there is none.
    heard
        The text that an own model has to be trained on; None where there is none, or the model is given.
    start, end
        Numbers of the word before the first one and of the one after the last; there may be no end.
    longest
        Most words that are said, the end among them; 0 where there is no text.
    """

    def __init__(self, spec: DataSpec, language_model: str | None, width: int, lead: int) -> None:
        super().__init__()
        texts = [spec.modalities[name] for name in (*spec.secondary, spec.primary)]
        texts = [text for text in texts if text.kind == "text" and len(text.shape) == 1 and text.vocabulary > 0]
        known = [text for text in texts if says_words(text) and language_model in (None, text.reading["tokenizer"])]
        found = trunk_of(known[0], says=True) if known else None
        if found is None and language_model is not None:
            found = given_trunk(language_model, says=True)
        self.form: Sentences | None = None
        if found is None:
            known = texts
            self.form = Sentences(texts[0]) if texts else None
        self.modality: ModalitySpec | None = known[0] if known else None
        self.heard = None if self.form is None or self.modality is None else self.modality.name
        said = self.modality is not None and self.modality.name != spec.primary
        self.text = self.modality.name if said and self.modality is not None else None
        self.start, self.end = 0, None if self.form is None else 0
        self.longest = 0 if self.form is None else self.form.steps
        if found is None:
            size = 2 if self.form is None else self.form.size
            self.trunk = own_trunk(size, width, lead + max(0, self.longest - 1), causal=True)
        else:
            self.trunk = found
            self._limits(language_model or str(known[0].reading["tokenizer"]), lead)
        self.trunk.requires_grad_(False)

    def _limits(self, shown: str, lead: int) -> None:
        """What a given model can read, and how its texts begin and end."""
        if not self.trunk.causal:
            raise ConfigError(must_be("The language model", "causal", f"{shown!r}, an encoder", "Choose another."))
        config: Any = self.trunk.model.config
        most = getattr(config, "max_position_embeddings", None)
        if most is not None and lead > most:
            raise ConfigError(must_be(f"The number of vectors before the words of {shown!r}", f"at most {most}", lead))
        end, begin = _number(config.eos_token_id, config.vocab_size), _number(config.bos_token_id, config.vocab_size)
        self.start, self.end = next((each for each in (begin, end) if each is not None), 0), end
        if self.modality is not None:
            words = self.modality.shape[0] + (end is not None)
            self.longest = words if most is None else min(words, most - lead + 1)

    def tokens(self, values: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """(n, longest) numbers of the model's words, and bool: which are to be said, the first end after them too."""
        if self.form is not None:
            numbers = self.form(values, lengths)
            return numbers, true_tokens(numbers)
        if self.modality is None:
            return values[:, :0].long(), values[:, :0] > 0
        numbers, _ = numbers_of(self.modality, values, lengths)
        real = (mask_of(lengths, values) > 0) & (values > 0)
        if self.end is not None:
            numbers = F.pad(numbers.where(real, self.end), (0, 1), value=self.end)
            real = F.pad(real, (1, 0), value=True)
        return numbers[:, : self.longest], real[:, : self.longest]

    def starts(self, n: int | torch.SymInt, count: int) -> Tensor:
        """(n, count, width): the word before the first one, `count` times."""
        device = next(self.trunk.parameters()).device
        return self.trunk.words(torch.full((n, count), self.start, device=device))

    def nats(self, states: Tensor, numbers: Tensor, real: Tensor) -> Tensor:
        """Mean cost of the real words of (n, longest), each said from the state (n, longest, out); 0 without any."""
        if not real.any():
            return states.sum() * 0.0
        return F.cross_entropy(self.trunk.says(states[real]), numbers[real])

    def rows(self, numbers: Tensor) -> Tensor:
        """(n, *shape) as rows of the modality hold them, from (n, longest) numbers, -1 after the end."""
        words = numbers + 1
        if self.form is not None:
            kept = self.form.number.nonzero()[:, 0]
            own = torch.zeros(self.form.size, dtype=torch.int64, device=numbers.device)
            words = own.index_put((self.form.number[kept],), kept)[numbers.clamp_min(0)]
        length = self.modality.shape[0] if self.modality is not None else 0
        words = words.where(numbers >= 0, 0)[:, :length]
        return F.pad(words, (0, length - words.shape[1])).float()


class Captioner(nn.Module, ABC):
    """A head, a `Speaker`, and what tells it of the primary modality: `lead` vectors before the words, or a context.

    Parameters
    ----------
    says
        Whether it learns to say the secondary modalities.
    """

    encoders: ByModality

    def __init__(self, spec: DataSpec, language_model: str | None, width: int, lead: int, says: bool) -> None:
        super().__init__()
        self.speaker = Speaker(spec, language_model, width, lead)
        self.primary, self.count = spec.primary, lead
        self.text = self.speaker.text if says else None
        others = [name for name in spec.secondary if says and name != self.text]
        self.forms = ByModality({name: Reversible(spec.modalities[name]) for name in others})
        out, forms = self.speaker.trunk.out, self.forms
        self.others = ByModality({name: nn.Linear(out, forms[name].size) for name in others})  # type: ignore[arg-type]
        self.head = head(out, spec.task)

    @property
    def tells(self) -> bool:
        """Whether there is anything that it learns to say."""
        return self.text is not None or len(self.others) > 0

    @abstractmethod
    def lead(self, batch: Batch) -> Tensor:
        """(n, count, width of the model): what comes before the first word, which is said from the last of them."""

    def context(self, batch: Batch) -> tuple[Past, Tensor] | None:
        """Keys and values that every place sees, and which rows have which; see `Reading`."""
        return None

    def encode(self, batch: Batch, name: str) -> Tensor:
        """(n, width) representation of the primary modality."""
        return self.encoders[name](batch.views[name], batch.lengths.get(name))

    def read(self, batch: Batch, words: Tensor, real: Tensor) -> Tensor:
        """(n, count + length, out) states of what leads and of (n, length) words, of which some are real."""
        vectors = self.lead(batch)
        real = torch.cat([torch.ones_like(vectors[:, :, 0], dtype=torch.bool), real], 1)
        vectors = torch.cat([vectors, self.speaker.trunk.words(words)], 1)
        context = self.context(batch)
        return self.speaker.trunk(vectors, real) if context is None else self.begun(context).on(vectors, real)

    def begun(self, context: tuple[Past, Tensor] | None) -> Reading:
        return Reading(self.speaker.trunk, *(context or ()))

    def state(self, batch: Batch) -> Tensor:
        """(n, out): that from which the first word is said; of the primary modality alone."""
        none = batch.rows[:, None][:, :0]
        return self.read(batch, none, none > 0)[:, -1]

    def told(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """`state`, and what it costs to say each secondary modality in the rows that have it."""
        costs = {}
        if self.text is None:
            state = self.state(batch)
        else:
            numbers, real = self._said(batch, self.text)
            states = self.read(batch, numbers[:, :-1], real[:, 1:])[:, self.count - 1 :]
            costs[f"words of {self.text}"] = self.speaker.nats(states, numbers, real)
            state = states[:, 0]
        for name, part in self.others.items():
            form: Reversible = self.forms[name]  # type: ignore[assignment]
            truth = form(batch.views[name], batch.lengths.get(name))
            costs[f"missed of {name}"] = unexplained(part(state), truth, form.variance, batch.present[name])
        return state, costs

    def language(self, batch: Batch) -> dict[str, Tensor]:
        """The cost of the text that an own model is trained on, told of nothing: the start in place of what leads."""
        speaker = self.speaker
        numbers, real = self._said(batch, str(speaker.heard))
        lead = speaker.starts(len(batch), self.count)
        vectors = torch.cat([lead, speaker.trunk.words(numbers[:, :-1])], 1)
        seen = torch.cat([torch.ones_like(lead[:, :, 0], dtype=torch.bool), real[:, 1:]], 1)
        return {"words": speaker.nats(speaker.trunk(vectors, seen)[:, self.count - 1 :], numbers, real)}

    def say(self, batch: Batch) -> Tensor:
        """(n, longest) numbers: always the likeliest word, -1 from the end on; of the primary modality alone."""
        speaker, vectors = self.speaker, self.lead(batch)
        reading = self.begun(self.context(batch))
        going = torch.ones_like(batch.rows, dtype=torch.bool)
        said = []
        for _ in range(speaker.longest):
            states = reading.on(vectors, torch.ones_like(vectors[:, :, 0], dtype=torch.bool))
            number = speaker.trunk.says(states[:, -1]).argmax(1)
            going = going if speaker.end is None else going & (number != speaker.end)
            said.append(number.where(going, -1))
            vectors = speaker.trunk.words(number)[:, None]
        return torch.stack(said, 1)

    def generated(self, batch: Batch, name: str) -> Tensor:
        """(n, *shape) of a secondary modality that it learned to say, from the primary one alone."""
        if name == self.text:
            return self.speaker.rows(self.say(batch))
        form: Reversible = self.forms[name]  # type: ignore[assignment]
        return form.rows(self.others[name](self.state(batch)))

    def _said(self, batch: Batch, name: str) -> tuple[Tensor, Tensor]:
        numbers, real = self.speaker.tokens(batch.views[name], batch.lengths.get(name))
        return numbers, real & batch.present[name][:, None]


def _number(given: Any, size: int) -> int | None:
    """A word's number out of a model's settings, which may be a list, or none of the vocabulary."""
    first = given[0] if isinstance(given, list) and given else given
    return first if isinstance(first, int) and 0 <= first < size else None
