"""Where the warm-up starts: a Q-Former that already looks at the right tokens of an item.

From random weights it attends to all tokens alike, and finding those that a slot of the notes is about takes it longer
than everything after. But where a token stands ("its capital is ...") can be told from its hidden state by one linear
function a slot, and what it says by one linear map. Both are fitted to a few hundred invented items, in closed form:

- keys: a ridge discriminant a slot, 1 on average at its tokens; one for the tokens of the picture;
- queries: eight directions that no discriminant sees, loud enough to stay the same through the layers. The first heads
  look at the slot's own tokens, the last ones at the picture;
- output: from what the heads of either kind bring to the word codes and to the signature, by ridge regression.

Letters: N tokens, D width, S slots, W the width of the heads that read words.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from comem_ray.demo.countries import Country
from comem_ray.demo.model.lessons import Lessons
from comem_ray.demo.model.notes import NORM, SIGNATURE, SLOTS, WORD, Codebook, Ids, signatures
from comem_ray.demo.model.pictures import SeenBackbone
from comem_ray.model.memory_encoder import MemoryEncoder
from comem_ray.model.qformer import QFormer

ITEMS = 256
PICTURE_HEADS = 5  # of 16; the others read words
SHARPNESS = 16.0  # of attention: the score at a slot's tokens, in nats above that of others
LOUDNESS = 96.0  # norm of a query; what eight layers add has some 50
RIDGE = 0.1  # of the mean variance, in the discriminants
FIT_RIDGE = 0.03  # of the mean square, in the regressions
OTHER_WORDS = 0.1  # weight of the words of the template in the regression, beside those of facts
STEP = 0.25  # of to_out: eight passes add up


@dataclass(frozen=True)
class _Read:
    """What the Q-Former is given of some items, after its norm."""

    states_ND: Tensor
    ids_N: Tensor
    places: list[Tensor]  # (S) of each slot, places among the N tokens; slot 0: the picture's
    pictures: list[Tensor]  # places of each item's picture
    signatures: Tensor  # (items, D)


@torch.no_grad()
def start_qformer(encoder: MemoryEncoder, lessons: Lessons, book: Codebook, seed: int, items: int = ITEMS) -> None:
    """Sets the Q-Former's weights as above; what is not named stays seeded. The encoder's LoRA has no effect yet."""
    qformer = encoder.adapter.qformer
    width, heads = qformer.to_q.in_features, qformer.heads
    picture_heads = max(1, heads * PICTURE_HEADS // 16)
    words = (heads - picture_heads) * qformer.head_width
    nn.init.eye_(qformer.proj_in.weight)
    read = _read(encoder, lessons, random.Random(f"start {seed}"), items)
    found = discriminants(read.states_ND, read.places)
    queries = _unseen_by(found, seed)
    _aim(qformer, found, queries, picture_heads)
    nn.init.eye_(qformer.to_kv.weight[heads * qformer.head_width :])
    nn.init.eye_(qformer.to_out.weight).mul_(STEP)
    qformer.ffn[-1].weight.mul_(0.1)  # type: ignore[operator]
    output = torch.cat([_word_map(read, book, words), _signature_map(read, words)], 1)
    qformer.proj_out.weight.copy_(output @ (torch.eye(width) - queries.T @ queries))  # the queries say nothing
    qformer.norm_out.weight.fill_(NORM / width**0.5)
    qformer.norm_out.bias.copy_(book.mean)


def fact_places(country: Country, ids: Sequence[int], plain_ids: Ids) -> list[list[int]]:
    """Places in an item's tokens of what its slots hold, as `notes.slots` has it; none of slot 0, the picture's."""
    assert country.currency is not None
    held = [country.name, country.capital, country.currency.word, country.languages[0], country.area]
    name, capital, currency, language, region = (_find(ids, plain_ids(f" {word}")) for word in held)
    return [[], name[:1], name[1:], capital[:1], capital[1:2], capital[2:], currency, language + region]


def _find(ids: Sequence[int], phrase: list[int]) -> list[int]:
    """Places of the first occurrence, none where there is none."""
    for start in range(len(ids) - len(phrase) + 1):
        if list(ids[start : start + len(phrase)]) == phrase:
            return list(range(start, start + len(phrase)))
    return []


def _read(encoder: MemoryEncoder, lessons: Lessons, rng: random.Random, items: int) -> _Read:
    backbone = encoder.backbone
    assert isinstance(backbone, SeenBackbone)
    qformer, image = encoder.adapter.qformer, backbone.sequencer.image_token_id
    states, ids, pictures, seen = [], [], [], []
    places: list[list[int]] = [[] for _ in range(SLOTS)]
    for _ in range(items):
        country, text, picture = lessons.item(rng)
        sequence = encoder.sequence(text, picture)
        batch = backbone.sequencer.batch([sequence], padding="right")
        hidden = backbone.hidden_states(batch, backbone.embed(batch, backbone.picture_features(batch)))[0]
        states.append(qformer.norm_x(qformer.proj_in(hidden)).float().cpu())
        of_picture = [i for i, token in enumerate(sequence.ids) if token == image]
        pictures.append(torch.tensor(of_picture) + len(ids))
        for slot, own in enumerate(fact_places(country, sequence.ids, backbone.sequencer.plain_ids)):
            places[slot] += [len(ids) + i for i in (own if slot else of_picture)]
        ids += sequence.ids
        seen.append(picture)
    signed = signatures(backbone.sequencer.tokens(seen))
    return _Read(
        torch.cat(states), torch.tensor(ids), [torch.tensor(p, dtype=torch.long) for p in places], pictures, signed
    )


def discriminants(states_ND: Tensor, places: Sequence[Tensor]) -> Tensor:
    """Rows (S, D): linear functions that are larger by 1, on average, at a slot's places than elsewhere.

    A slot that no item has anything for gets a row of zeros.
    """
    mean, covariance = states_ND.mean(0), torch.cov(states_ND.T)
    apart = torch.stack([states_ND[p].mean(0) - mean if len(p) else torch.zeros_like(mean) for p in places])
    ridge = RIDGE * covariance.diagonal().mean() * torch.eye(len(mean))
    rows = torch.linalg.solve(covariance + ridge, apart.T).T
    return rows / (rows * apart).sum(1, keepdim=True).clamp(min=1e-6)


def _unseen_by(rows_SD: Tensor, seed: int) -> Tensor:
    """As many orthonormal rows, orthogonal to all the given ones."""
    others = torch.randn(rows_SD.shape, generator=torch.Generator().manual_seed(seed))
    return torch.linalg.qr(torch.cat([rows_SD, others]).T).Q.T[len(rows_SD) :]


def _aim(qformer: QFormer, found_SD: Tensor, queries_SD: Tensor, picture_heads: int) -> None:
    """Sets queries and keys: in every head, dimension s of a key is discriminant s, of a query whether it is slot s."""
    heads, head_width, width = qformer.heads, qformer.head_width, found_SD.shape[1]
    qformer.queries.copy_(LOUDNESS * queries_SD)
    to_q = qformer.to_q.weight.view(heads, head_width, width)
    to_k = qformer.to_kv.weight[: heads * head_width].view(heads, head_width, width)
    # After its norm a query has the length sqrt(D); scores are divided by sqrt(head_width).
    asking = SHARPNESS * head_width**0.5 / width**0.5 * queries_SD
    to_k[:, :SLOTS] = found_SD
    to_q[:, :SLOTS] = asking
    to_q[heads - picture_heads :, :SLOTS] = 0
    to_q[heads - picture_heads :, 0] = asking.sum(0)


def _word_map(read: _Read, book: Codebook, words: int) -> Tensor:
    """From the first `words` dimensions of a token's state to its word code, of the norm WORD on average: (D, W)."""
    text = torch.ones(len(read.ids_N), dtype=torch.bool)
    text[read.places[0]] = False
    weights = torch.full((len(read.ids_N),), OTHER_WORDS)
    weights[torch.cat(read.places[1:])] = 1.0
    return WORD * _fitted(read.states_ND[text, :words], book.words[read.ids_N[text]], weights[text])


def _signature_map(read: _Read, words: int) -> Tensor:
    """From the other dimensions of a picture's mean state to its signature, of the norm SIGNATURE: (D, D - W)."""
    states = torch.stack([read.states_ND[p, words:].mean(0) for p in read.pictures])
    return SIGNATURE * _fitted(states, read.signatures, torch.ones(len(states)))


def _fitted(inputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The ridge regression (targets, inputs), scaled so that what it gives has the norm 1 on average."""
    weighted = inputs * weights[:, None]
    ridge = FIT_RIDGE * (weighted * inputs).sum() / inputs.shape[1] * torch.eye(inputs.shape[1])
    fitted = torch.linalg.solve(weighted.T @ inputs + ridge, weighted.T @ targets).T
    norms = (inputs @ fitted.T).norm(dim=-1)
    return fitted * weights.sum() / (norms * weights).sum()
