"""Trains the demo's open_clip model from nothing, on the CPU: `python -m examples.countries.train.clip --out FOLDER`.

Three phases: images (two views of a map are to match among 127 others), images among look-alikes (by the model of the
first phase), texts (a question is to match the text of the item that it names). Each is kept in `FOLDER/phases`, so
that a rerun resumes after the last finished one. The loss is CLIP's symmetric cross-entropy (Radford et al. 2021, arXiv
2103.00020), image to image and text to text: the demo never compares an image with a text.

The image tower is timm's smallest ResNet, as convolutions learn shapes far sooner than a small transformer does.
"""

from __future__ import annotations

import argparse
import logging
import math
import random
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast

from comem_ray.artifacts import write_atomic, write_json
from examples.countries.train.clip_data import (
    ViewPairs,
    one_view_each,
    text_pairs,
    training_maps,
)
from examples.countries.world.countries import training_countries
from examples.countries.world.lexicon import invented_name
from examples.countries.world.outlines import Map
from examples.countries.world.sentences import LANGUAGES, item_text

log = logging.getLogger(__name__)

NAME = "comem-demo-clip"
TOKENIZER = f"{NAME}-tokenizer"  # a folder beside the configuration
HEIGHT, WIDTH = 63, 84
CONTEXT, VOCABULARY = 64, 2048
MEAN, STD = 0.5, 0.25
BATCH = 128
INVENTED_MAPS = 6000
STEPS = {"images": 300, "lookalikes": 250, "texts": 250}
LEARNING_RATE = {"images": 2e-3, "lookalikes": 1e-3, "texts": 2e-3}

MODEL: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {
        "timm_model_name": "test_resnet",
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": "linear",
        "image_size": [HEIGHT, WIDTH],
    },
    "text_cfg": {
        "context_length": CONTEXT,
        "vocab_size": VOCABULARY,
        "hf_tokenizer_name": TOKENIZER,
        "width": 96,
        "heads": 3,
        "layers": 2,
    },
}
PREPROCESSING = {
    "size": [HEIGHT, WIDTH],
    "mean": [MEAN] * 3,
    "std": [STD] * 3,
    "interpolation": "bicubic",
    "resize_mode": "squash",  # the whole image, whatever its shape
}


def train(out: Path, seed: int = 0, invented: int = INVENTED_MAPS, steps: dict[str, int] | None = None) -> None:
    """Writes `comem-demo-clip.json`, `.safetensors` and the tokenizer's folder into `out`.

    Takes about 11 minutes on two cores with the default sizes (one computes, the other draws); tests take smaller ones.
    """
    steps = steps or STEPS
    phases = out / "phases"
    phases.mkdir(parents=True, exist_ok=True)
    _write_tokenizer(out / TOKENIZER, seed)
    write_json(out / f"{NAME}.json", {"model_cfg": MODEL, "preprocess_cfg": PREPROCESSING})
    model = _untrained(seed)
    maps = training_maps(invented, seed=10_000 * (seed + 1))
    phases_to_run: dict[str, Callable[[], None]] = {
        "images": lambda: _train_images(model, maps, steps, seed, lookalikes=False),
        "lookalikes": lambda: _train_images(model, maps, steps, seed, lookalikes=True),
        "texts": lambda: _train_texts(model, out / TOKENIZER, steps["texts"], seed),
    }
    for number, (phase, run) in enumerate(phases_to_run.items(), start=1):
        path = phases / f"{number}-{phase}.safetensors"
        if not path.exists():
            model.train()
            run()
            _save(model, path)
        model.load_state_dict(load_file(path))
    _save(model, out / f"{NAME}.safetensors")


def _save(model: Any, path: Path) -> None:
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    write_atomic(path, lambda p: save_file(weights, p))


def _untrained(seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = open_clip.model.CLIP(**MODEL)
    return model.to(memory_format=torch.channels_last)


def _train_images(model: Any, maps: list[Map], steps: dict[str, int], seed: int, lookalikes: bool) -> None:
    phase = "lookalikes" if lookalikes else "images"
    neighbours = _lookalikes(model, maps, seed) if lookalikes else None
    size = min(BATCH, len(maps) // 2)
    pairs = ViewPairs(maps, len(training_countries()), (WIDTH, HEIGHT), size, steps[phase], seed, neighbours)
    batches = DataLoader(pairs, batch_size=None, num_workers=1, prefetch_factor=4)
    encode = lambda pixels: model.visual(_normalised(pixels.flatten(0, 1)))  # noqa: E731
    _optimise(model.visual, model.logit_scale, batches, encode, steps[phase], phase)


def _train_texts(model: Any, tokenizer_folder: Path, steps: int, seed: int) -> None:
    tokenizer = open_clip.tokenizer.HFTokenizer(str(tokenizer_folder), context_length=CONTEXT)
    parts = torch.nn.ModuleList([model.transformer, model.token_embedding, model.ln_final])
    parts.register_parameter("positions", model.positional_embedding)
    parts.register_parameter("projection", model.text_projection)
    scale = torch.nn.Parameter(torch.tensor(math.log(1 / 0.07)))
    batches = (
        tokenizer([*questions, *texts]) for questions, texts in (text_pairs(n, BATCH, seed) for n in range(steps))
    )
    _optimise(parts, scale, batches, model.encode_text, steps, "texts")


def _optimise(
    trained: torch.nn.Module,
    scale: torch.nn.Parameter,
    batches: Iterable[Tensor],
    encode: Callable[[Tensor], Tensor],
    steps: int,
    phase: str,
) -> None:
    """AdamW with a cosine over `steps` batches; `encode` gives (2n, C), the first n rows paired with the last n."""
    matrices = [p for p in trained.parameters() if p.ndim > 1]
    vectors = [p for p in trained.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": [*vectors, scale], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    start, losses = time.monotonic(), []
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            warm, cosine = min(1.0, (step + 1) / 60), 0.5 * (1 + math.cos(math.pi * step / steps))
            group["lr"] = LEARNING_RATE[phase] * warm * (cosine + 0.01)
        loss = _contrastive(encode(batch), scale)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if (step + 1) % 50 == 0 or step + 1 == steps:
            mean, seconds = sum(losses[-50:]) / len(losses[-50:]), time.monotonic() - start
            log.info("%s: step %d of %d, loss %.3f, %.0f s", phase, step + 1, steps, mean, seconds)


def _contrastive(features: Tensor, scale: Tensor) -> Tensor:
    first, second = normalize(features, dim=-1).chunk(2)
    logits = scale.exp().clamp(max=80) * first @ second.T
    right = torch.arange(len(first))
    return (cross_entropy(logits, right) + cross_entropy(logits.T, right)) / 2


def _normalised(pixels: Tensor) -> Tensor:
    return ((pixels.float() / 255 - MEAN) / STD).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def _lookalikes(model: Any, maps: list[Map], seed: int) -> Any:
    """For every map its 32 nearest others by the model so far, int64 (maps, 32)."""
    model.eval()
    views = one_view_each(maps, (WIDTH, HEIGHT), seed)
    vectors = torch.cat([normalize(model.visual(_normalised(part)), dim=-1) for part in views.split(256)])
    model.train()
    nearest = [(part @ vectors.T).topk(33).indices[:, 1:] for part in vectors.split(512)]
    return torch.cat(nearest).numpy()


def _write_tokenizer(folder: Path, seed: int) -> None:
    """A byte-level BPE over the training countries' texts and invented names; lower case, without accents."""
    if (folder / "tokenizer.json").exists():
        return
    rng = random.Random(f"names {seed}")
    corpus = [
        item_text(c, language) for c in training_countries() for language in LANGUAGES if language in (*c.names, "en")
    ]
    corpus += [invented_name(rng) for _ in range(5000)]
    backend = Tokenizer(BPE())
    backend.normalizer = normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()])
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 1,  # the end token comes last: open_clip pools where the id is highest
        special_tokens=["<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(corpus, trainer)
    backend.add_special_tokens(["<end>"])
    assert backend.get_vocab_size() <= VOCABULARY
    end = backend.token_to_id("<end>")
    backend.post_processor = processors.TemplateProcessing(single="$A <end>", special_tokens=[("<end>", end)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<end>")
    tokenizer.save_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.countries.train.clip", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder of the model; also keeps finished phases")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    torch.set_num_threads(1)  # the loader draws on the second core; and sums do not depend on the number of cores
    train(args.out, args.seed)


if __name__ == "__main__":
    main()
