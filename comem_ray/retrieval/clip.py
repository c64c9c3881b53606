"""The CLIP model of the retriever: any open_clip model, by name and tag or from local files.

Preparation (image -> pixels, text -> tokens) and encoding are separate, so that threads can prepare the next batch
while the current one is computed. Local weights must be safetensors: nothing is unpickled.

Letters: n images or texts, C width of the CLIP space. Knows nothing of items, files of embeddings or Ray.
Source: Radford et al. 2021 (arXiv 2103.00020); the models and the preprocessing are open_clip's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from comem_ray.artifacts import ArtifactError, file_sha256, fingerprint
from comem_ray.config import ClipConfig, ConfigError
from comem_ray.finite import NotFinite, dtype_name, right_precision
from comem_ray.home import home_hint, resolve
from comem_ray.weights import brief, read_settings, require_finite, require_fit, tensor_shapes

RANDOM_SEED = 0
UNUSABLE = (
    RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError, ArithmeticError, OSError,
    SafetensorError,
)  # fmt: skip
"""What open_clip raises where fields or weights are another model's."""
CHARS_PER_TOKEN = 16  # text beyond this many characters per token of the context is not tokenised
ARCHITECTURE_FIELDS = {"embed_dim": int, "vision_cfg": dict, "text_cfg": dict}
CACHED_WORDS = 200_000  # beyond them the tokenizer's cache is emptied: it would remember every word of Wikipedia


@dataclass(frozen=True)
class ClipSource:
    """The parts of an open_clip model, located and checked, but not loaded."""

    name: str
    architecture: dict[str, Any]
    preprocessing: dict[str, Any]
    weights: Path | None
    folder: Path | None  # that of a local model configuration

    @cached_property
    def fingerprint(self) -> str:
        """Digest (hex) of architecture, weights and preprocessing, but not of precision or device."""
        weights = file_sha256(self.weights) if self.weights else f"random {RANDOM_SEED}"
        return fingerprint([self.architecture, self.preprocessing, weights])


def locate(config: ClipConfig) -> ClipSource:
    """Locates the model of a configuration, and downloads the weights of a tag if the cache lacks them.

    Raises ConfigError if the model, the file or the tag does not exist.
    """
    return _local_source(config) if config.model.endswith(".json") else _named_source(config)


def _named_source(config: ClipConfig) -> ClipSource:
    name = config.model.replace("/", "-")
    if name not in open_clip.list_models():
        raise ConfigError(
            f"clip.model: open_clip has no model {config.model!r}; use one of its names (ViT-B-32, ViT-L-14, "
            "ViT-SO400M-14-SigLIP, ...) or the path of a model configuration that ends with .json"
        )
    architecture, preprocessing = open_clip.get_model_config(name), asdict(PreprocessCfg())
    tags = open_clip.list_pretrained_tags_by_model(name)
    if config.pretrained not in tags:
        return ClipSource(name, architecture, preprocessing, _local_weights(config.pretrained, tags), None)
    tag = open_clip.get_pretrained_cfg(name, config.pretrained)
    architecture["quick_gelu"] = tag.get("quick_gelu", False)  # the activation its weights were trained with
    try:
        weights = Path(open_clip.download_pretrained(tag))
    except Exception as error:  # whatever the hub's client raises: offline, refused, disk full
        raise ConfigError(f"clip.pretrained: cannot download {config.pretrained!r} of {name}: {error}") from error
    return ClipSource(name, architecture, merge_preprocess_dict(preprocessing, tag), weights, None)


def _local_source(config: ClipConfig) -> ClipSource:
    path = resolve(config.model)
    if not path.is_file():
        reason = "it is a folder: name the .json file in it" if path.is_dir() else "No such file or directory"
        raise ConfigError(f"clip.model: cannot read {path}: {reason}{home_hint(path)}")
    try:
        data = read_settings(path)
    except ArtifactError as error:
        raise ConfigError(f"clip.model: {error}") from error
    # Two forms are in use: the architecture alone, or (open_clip_config.json) architecture and preprocessing.
    architecture, preprocessing = data.get("model_cfg", data), data.get("preprocess_cfg") or {}
    architecture = architecture if isinstance(architecture, dict) else {}
    if missing := [n for n, kind in ARCHITECTURE_FIELDS.items() if not isinstance(architecture.get(n), kind)]:
        raise ConfigError(f"clip.model: {path} is not an open_clip model configuration: it lacks {', '.join(missing)}")
    try:
        preprocessing = merge_preprocess_dict(asdict(PreprocessCfg()), preprocessing)
    except (TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"clip.model: preprocess_cfg of {path} cannot be used: {brief(error)}") from error
    return ClipSource(path.stem, architecture, preprocessing, _local_weights(config.pretrained, []), path.parent)


def _local_weights(pretrained: str | None, tags: list[str]) -> Path | None:
    if pretrained is None:
        return None
    path = resolve(pretrained)
    if path.is_dir():
        raise ConfigError(f"clip.pretrained: {path} is a folder: name the .safetensors file in it")
    if not path.is_file():
        known = f"a tag of the model ({', '.join(tags)})" if tags else "a tag (this model has none)"
        raise ConfigError(
            f"clip.pretrained: {pretrained!r} is neither {known} nor a file: {path} does not exist{home_hint(path)}"
        )
    if path.suffix != ".safetensors":
        raise ConfigError(f"clip.pretrained: {path} must be a .safetensors file; others may run code when loaded")
    try:
        tensor_shapes(path)
    except ArtifactError as error:
        raise ConfigError(f"clip.pretrained: {path} does not make a model: {error}") from error
    return path


class ClipEncoder:
    """Images and texts to L2-normalised vectors, computed in `precision` on a GPU and in float32 on the CPU.

    Raises ConfigError if the model cannot be located, or its weights do not fit it; ArtifactError if the weights hold
    NaN or infinity.
    """

    def __init__(self, config: ClipConfig, device: str = "cpu"):
        self._source, self._batch_size, self._device = locate(config), config.batch_size, torch.device(device)
        self._dtype = torch.float32 if self._device.type == "cpu" else getattr(torch, config.precision)
        self._model = _build(self._source).to(self._device, self._dtype).eval()
        require_finite(
            self._source.weights or Path(self._source.name), self._model.named_parameters(), "clip.precision"
        )
        self._transform = _transform(self._model, self._source)
        self._tokenizer = _tokenizer(self._source)
        self.width: int = self._source.architecture["embed_dim"]

    @property
    def fingerprint(self) -> str:
        """Digest (hex) of architecture, weights and preprocessing."""
        return self._source.fingerprint

    def preprocess(self, image: Image.Image) -> Tensor:
        """Pixels (3, H, W) float32 for the model. Threads may call it at the same time."""
        return self._transform(image)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Tokens (n, context) int64. Longer texts are cut. No part of a text becomes a control token."""
        limit = CHARS_PER_TOKEN * self._tokenizer.context_length
        tokens = self._tokenizer([text[:limit] for text in texts])
        if isinstance(self._tokenizer, SimpleTokenizer) and len(self._tokenizer.cache) > CACHED_WORDS:
            self._tokenizer.cache.clear()
        return tokens

    def encode_images(self, pixels: Tensor) -> np.ndarray:
        """Vectors (n, C) float32, L2-normalised, of `pixels` (n, 3, H, W). Raises NotFinite, with positions."""
        return self._finite(self._encode_images(pixels))

    def encode_texts(self, tokens: Tensor) -> np.ndarray:
        """Vectors (n, C) float32, L2-normalised, of `tokens` (n, context). Raises NotFinite, with positions."""
        return self._finite(self._encode_texts(tokens))

    def embed_images(self, images: Sequence[Image.Image | Tensor]) -> np.ndarray:
        """Vectors (n, C) float32, L2-normalised, of images or of what `preprocess` made of them.

        Raises NotFinite, with positions.
        """
        batches = (torch.stack([self._pixels(image) for image in batch]) for batch in self._batches(images))
        return self._finite(self._stack([self._encode_images(pixels) for pixels in batches]))

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors (n, C) float32, L2-normalised. Raises NotFinite, with positions."""
        return self._finite(self._stack([self._encode_texts(self.tokenize(batch)) for batch in self._batches(texts)]))

    def _pixels(self, image: Image.Image | Tensor) -> Tensor:
        return image if isinstance(image, Tensor) else self.preprocess(image)

    def _encode_images(self, pixels: Tensor) -> np.ndarray:
        return self._encode(self._model.encode_image, pixels.to(self._device, self._dtype))

    def _encode_texts(self, tokens: Tensor) -> np.ndarray:
        return self._encode(self._model.encode_text, tokens.to(self._device))

    def _encode(self, encode: Callable[[Tensor], Tensor], inputs: Tensor) -> np.ndarray:
        with torch.inference_mode():
            return torch.nn.functional.normalize(encode(inputs).float(), dim=-1).cpu().numpy()

    def _finite(self, vectors: np.ndarray) -> np.ndarray:
        failed = np.flatnonzero(~np.isfinite(vectors).all(axis=1)).tolist()
        if failed:
            raise NotFinite(
                f"the CLIP model gives infinite numbers in {dtype_name(self._dtype)} for {len(failed)} of "
                f"{len(vectors)} inputs: {right_precision(self._dtype, 'clip.precision')}",
                failed,
            )
        return vectors

    def _batches(self, values: Sequence[Any]) -> Iterator[Sequence[Any]]:
        return (values[i : i + self._batch_size] for i in range(0, len(values), self._batch_size))

    def _stack(self, parts: list[np.ndarray]) -> np.ndarray:
        return np.concatenate([np.empty((0, self.width), np.float32), *parts])


def _build(source: ClipSource) -> Any:
    """The model on the CPU in float32, loaded by open_clip itself from a model folder."""
    with TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]):
        torch.manual_seed(RANDOM_SEED)
        data = {"model_cfg": source.architecture, "preprocess_cfg": source.preprocessing}
        Path(folder, "open_clip_config.json").write_text(json.dumps(data), encoding="utf-8")
        if source.weights:
            safe = source.weights.suffix == ".safetensors"
            Path(folder, "open_clip_model.safetensors" if safe else "model.bin").symlink_to(source.weights)
        try:
            return open_clip.create_model(f"local-dir:{folder}")
        except UNUSABLE as error:
            raise _refusal(source, error) from error


def _refusal(source: ClipSource, error: Exception) -> ConfigError:
    """Why no model came of architecture and weights: names and counts where the weights do not fit."""
    if source.weights is None or source.weights.suffix != ".safetensors":
        return ConfigError(f"clip.model: {source.weights or source.name} does not make a model: {brief(error)}")
    try:
        bare = _build(replace(source, weights=None))
    except ConfigError as of_architecture:
        return of_architecture
    shapes = {name: tuple(tensor.shape) for name, tensor in bare.state_dict().items()}
    try:
        require_fit(source.weights, tensor_shapes(source.weights), shapes, "Want the weights of clip.model")
    except ArtifactError as difference:
        return ConfigError(f"clip.pretrained: {source.weights} does not make a model: {difference}")
    return ConfigError(f"clip.pretrained: {source.weights} does not make a model: {brief(error)}")


def _transform(model: Any, source: ClipSource) -> Callable[[Image.Image], Tensor]:
    try:
        transform = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), is_train=False)
        transform(Image.new("RGB", (8, 8)))
    except UNUSABLE as error:
        raise ConfigError(f"clip.model: preprocess_cfg of {source.name} cannot be used: {brief(error)}") from error
    return transform


def _tokenizer(source: ClipSource) -> Any:
    try:
        return _load_tokenizer(source)
    except Exception as error:  # the tokenizers library raises plain Exception
        name = source.architecture["text_cfg"].get("hf_tokenizer_name", source.name)
        where = "" if source.folder is None else f" in {source.folder}, or on the hub"
        raise ConfigError(f"clip.model: the tokenizer {name!r} cannot be loaded{where}: {brief(error)}") from error


def _load_tokenizer(source: ClipSource) -> Any:
    text = source.architecture["text_cfg"]
    if source.folder is None:
        tokenizer = open_clip.get_tokenizer(source.name)
    elif "hf_tokenizer_name" in text:
        local = source.folder / text["hf_tokenizer_name"]
        name = str(local) if local.is_dir() else text["hf_tokenizer_name"]
        options = text.get("tokenizer_kwargs", {})
        mode = text.get("tokenizer_mode")
        tokenizer = HFTokenizer(name, context_length=text.get("context_length", 77), tokenizer_mode=mode, **options)
    else:
        tokenizer = SimpleTokenizer(context_length=text.get("context_length", 77), **text.get("tokenizer_kwargs", {}))
    if isinstance(tokenizer, SimpleTokenizer):
        tokenizer.cache.clear()  # it starts with the control tokens; without them "<end_of_text>" is spelt as any word
    else:
        tokenizer.tokenizer.split_special_tokens = True
    return tokenizer
