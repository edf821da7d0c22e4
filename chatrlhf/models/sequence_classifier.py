"""A sequence classifier from elsewhere as a reward: toxicity, sentiment, a trained reward model.

Any transformers folder or hub id whose model is a sequence classifier. The value of a reply is the
logit of one label: ``log p / (1 - p)`` with p the probability of the label. Labels that exclude
one another share a softmax; a model with one output, or one of several independent labels, gives
the logit itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from chatrlhf.errors import ModelError
from chatrlhf.models.weights import load_tokenizer, quiet_transformers, read_config

ClassifierInput = Literal["pair", "reply"]
_LONGEST = 4096  # tokenizers without a limit state an astronomical one
_TOKENS_IF_UNSTATED = 512


class SequenceClassifier:
    """A frozen classifier and the one label of it that counts.

    With ``reads`` "pair" the tokenizer gets prompt and reply as a pair of texts, joined as the
    model was taught to (``[CLS] prompt [SEP] reply [SEP]`` for BERT); with "reply" the reply
    alone. What is too long loses tokens of the longer text first.
    """

    def __init__(
        self, model: Any, tokenizer: Any, label_id: int, reads: ClassifierInput = "pair"
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._label_id = label_id
        self._reads = reads

    @torch.no_grad()
    def logits(self, texts: Sequence[tuple[str, str]], micro_batch: int) -> Tensor:
        """The label's logit for (prompt, reply) texts, (B,) float32 on the CPU."""
        size = micro_batch if self._can_pad else 1
        parts = [self._logits(texts[at : at + size]) for at in range(0, len(texts), size)]
        return torch.cat(parts) if parts else torch.zeros(0)

    @property
    def _can_pad(self) -> bool:
        return self._tokenizer.pad_token is not None and self._model.config.pad_token_id is not None

    def _logits(self, texts: Sequence[tuple[str, str]]) -> Tensor:
        prompts, replies = [prompt for prompt, _ in texts], [reply for _, reply in texts]
        batch = self._tokenizer(
            *((prompts, replies) if self._reads == "pair" else (replies,)),
            padding=self._can_pad,
            truncation="longest_first",
            max_length=_room(self._tokenizer, self._model.config),
            return_tensors="pt",
        )
        logits: Tensor = self._model(**batch.to(self._model.device)).logits.float().cpu()
        own = logits[:, self._label_id]
        if logits.shape[-1] == 1 or _is_multi_label(self._model.config):
            return own
        others = [place for place in range(logits.shape[-1]) if place != self._label_id]
        return own - logits[:, others].logsumexp(-1)


def load_classifier(
    name: str, label: str, *, reads: ClassifierInput = "pair", device: torch.device | str = "cpu"
) -> SequenceClassifier:
    """Load the classifier ``name``, a folder or a hub id, to read its ``label``.

    Hub ids are downloaded once. No code of the model's own runs, and only safetensors are read.

    Raises:
        ModelError: there is no such folder or hub id, it is no sequence classifier, or it has no
            such label.
    """
    folder = _local_folder(name)
    config = read_config(folder)
    labels = [config.id2label[place] for place in sorted(config.id2label)]
    by_lower_case = {text.lower(): place for place, text in enumerate(labels)}
    if label.lower() not in by_lower_case:
        raise ModelError(
            f"The classifier {name} has no label {label!r}; it has {', '.join(labels)}. "
            "Set reward.classifier_label to one of them."
        )
    model = _load(name, folder, config).to(device)
    return SequenceClassifier(model, load_tokenizer(folder), by_lower_case[label.lower()], reads)


def _local_folder(name: str) -> Path:
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise ModelError(
            f"reward.classifier = {name!r} is neither a folder nor a hub id (owner/name). Correct "
            "it, or remove it and the weight of the classifier."
        )
    from huggingface_hub import snapshot_download

    wanted = ["*.safetensors", "*.json", "*.txt", "*.model"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted, ignore_patterns=["*/*"]))
    except Exception as error:  # the hub's HTTP library has error classes of its own
        raise ModelError(
            f"The classifier {name} is not on this machine and cannot be downloaded: {error} "
            "Connect to the internet, or set reward.classifier to a local folder."
        ) from error


def _load(name: str, folder: Path, config: Any) -> Any:
    from transformers import AutoModelForSequenceClassification

    try:
        with quiet_transformers():
            model, report = AutoModelForSequenceClassification.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
    except (ValueError, OSError, RuntimeError, KeyError, ImportError) as error:
        raise ModelError(f"The classifier {name} cannot be loaded: {error}") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(
            f"The classifier {name} lacks {len(missing)} weights, such as {missing[0]}, so it was "
            "not trained to classify. Choose a sequence classifier."
        )
    model.requires_grad_(requires_grad=False)
    return model.eval()


def _room(tokenizer: Any, config: Any) -> int:
    stated = [tokenizer.model_max_length, getattr(config, "max_position_embeddings", None)]
    plausible = [length for length in stated if length is not None and length <= _LONGEST]
    return int(min(plausible, default=_TOKENS_IF_UNSTATED))


def _is_multi_label(config: Any) -> bool:
    return bool(config.problem_type == "multi_label_classification")
