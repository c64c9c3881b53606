"""The tokenizer and the image processor of a checkpoint: loaded, and refused where they do not fit the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor, AutoTokenizer, PreTrainedTokenizerBase

from comem_ray.artifacts import ArtifactError
from comem_ray.config import ConfigError
from comem_ray.prompts import CONTROL_TOKENS, IMAGE_TOKEN
from comem_ray.weights import brief, first_names, read_settings

TOKENIZER_FILES = (("tokenizer.json",), ("vocab.json", "merges.txt"))
PROCESSOR_FILES = (("preprocessor_config.json",), ("processor_config.json",))
PATCH_FIELDS = {  # of the image processor: of the vision tower
    "patch_size": "patch_size",
    "merge_size": "spatial_merge_size",
    "temporal_patch_size": "temporal_patch_size",
}


def load_tokenizer(folder: Path, rows: int, image_token_id: int) -> PreTrainedTokenizerBase:
    """The tokenizer of the checkpoint in `folder`, whose token embedding has `rows` rows.

    Raises ConfigError where it is missing, lacks a control token of our prompts or has more tokens than rows.
    Raises ArtifactError where a file is damaged.
    """
    _require_files(folder, "tokenizer", TOKENIZER_FILES)
    _read_all(folder, ("tokenizer.json", "tokenizer_config.json", "vocab.json"))
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
    except Exception as error:  # the tokenizers library raises plain Exception
        raise ArtifactError(f"{folder}: the tokenizer cannot be used ({brief(error)}): download it again") from error
    ids = {token: tokenizer(token, add_special_tokens=False)["input_ids"] for token in CONTROL_TOKENS}
    if missing := [token for token, tokens in ids.items() if len(tokens) != 1]:
        raise ConfigError(
            f"{folder}: the tokenizer lacks {len(missing)} control tokens ({first_names(missing)}): "
            "take the tokenizer of a Qwen2-VL or Qwen2.5-VL Instruct checkpoint"
        )
    if len(tokenizer) > rows:
        raise ConfigError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, the model {rows}: take the tokenizer of this model"
        )
    if ids[IMAGE_TOKEN] != [image_token_id]:
        raise ConfigError(
            f"{folder}: {IMAGE_TOKEN} is token {ids[IMAGE_TOKEN][0]}, config.json says {image_token_id}: "
            "take the tokenizer of this model"
        )
    return tokenizer


def load_image_processor(folder: Path, vision: Any) -> Any:
    """The image processor of the checkpoint in `folder`; `vision` is the configuration of its vision tower.

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
    fields = {
        "patch_size": "patch_size",
        "merge_size": "spatial_merge_size",
        "temporal_patch_size": "temporal_patch_size",
    }
    for own, wanted in fields.items():
        if getattr(processor, own, None) != getattr(vision, wanted):
            raise ConfigError(
                f"{folder}: preprocessor_config.json says {own} {getattr(processor, own, None)}, the vision tower has "
                f"{getattr(vision, wanted)}: take the preprocessor_config.json of this model"
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
