"""The tokenizer and the image processor of a checkpoint: loaded, and refused where they do not fit the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor, AutoTokenizer, PreTrainedTokenizerBase

from comem_ray.artifacts import ArtifactError
from comem_ray.config import ConfigError
from comem_ray.model.families import family_of
from comem_ray.weights import brief, first_names, read_settings

TOKENIZER_FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"))
PROCESSOR_FILES = (("preprocessor_config.json",), ("processor_config.json",))


def load_tokenizer(folder: Path, rows: int, settings: Any) -> PreTrainedTokenizerBase:
    """The tokenizer of the checkpoint in `folder`, whose token embedding has `rows` rows and whose config.json is
    `settings`.

    Raises ConfigError where it is missing, lacks a control token of our prompts or has more tokens than rows.
    Raises ArtifactError where a file is damaged.
    """
    family = family_of(settings)
    _require_files(folder, "tokenizer", TOKENIZER_FILES)
    _read_all(folder, ("tokenizer.json", "tokenizer_config.json", "vocab.json"))
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # the tokenizers library raises plain Exception
        raise ArtifactError(f"{folder}: the tokenizer cannot be used ({brief(error)}): download it again") from error
    control = (*family.chat(settings).control, *family.control, family.image_token)
    ids = {token: tokenizer(token, add_special_tokens=False)["input_ids"] for token in control}
    if missing := [token for token, tokens in ids.items() if len(tokens) != 1]:
        raise ConfigError(
            f"{folder}: the tokenizer lacks {len(missing)} control tokens ({first_names(missing)}): "
            f"take the tokenizer of a {family.title} checkpoint that is tuned for chat"
        )
    if len(tokenizer) > rows:
        raise ConfigError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, the model {rows}: take the tokenizer of this model"
        )
    if ids[family.image_token] != [settings.image_token_id]:
        raise ConfigError(
            f"{folder}: {family.image_token} is token {ids[family.image_token][0]}, config.json says "
            f"{settings.image_token_id}: take the tokenizer of this model"
        )
    return tokenizer


def load_image_processor(folder: Path, settings: Any) -> Any:
    """The image processor of the checkpoint in `folder`, whose config.json is `settings`.

    Raises ConfigError where it is missing or cuts other patches than the tower takes, ArtifactError where a file is
    damaged.
    """
    _require_files(folder, "image processor", PROCESSOR_FILES)
    _read_all(folder, ("preprocessor_config.json", "processor_config.json"))
    try:
        processor = AutoImageProcessor.from_pretrained(folder)
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise ArtifactError(
            f"{folder}: preprocessor_config.json cannot be used ({brief(error)}): download it again"
        ) from error
    if misfit := family_of(settings).misfit(processor, settings):
        raise ConfigError(
            f"{folder}: preprocessor_config.json says {misfit}: take the preprocessor_config.json of this model"
        )
    return processor


def _require_files(folder: Path, what: str, choices: tuple[tuple[str, ...], ...]) -> None:
    if not any(all((folder / name).is_file() for name in names) for names in choices):
        wanted = " or ".join(" and ".join(names) for names in choices)
        raise ConfigError(f"{folder} has no {what}: it lacks {wanted}; copy the checkpoint with all its files")


def _read_all(folder: Path, names: tuple[str, ...]) -> None:
    """Raises ArtifactError where one of the files that are there is damaged."""
    for name in names:
        if (folder / name).is_file():
            read_settings(folder / name)
