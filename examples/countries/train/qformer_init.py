"""Closed-form initial weights of stage `reading`: a Q-Former that already attends to the right tokens of an item.

With random weights it attends to all tokens alike, and finding those that belong to a slot of the notes takes it longer
than everything after. But one linear function per slot tells from a token's hidden state whether it belongs to the slot
("its capital is ..."), and one linear map gives its word. Both are fitted to a few hundred invented items:

- keys: one ridge regression per slot, with target 1 at the slot's tokens and 0 elsewhere; a little less at every
  further token of a word, so that attention fades along it as the notes do; and one for the tokens of the image;
- queries: eight directions orthogonal to every regression, of a norm so large that the layers hardly change them. The
  first heads attend to the slot's own tokens, the last ones to the image;
- output: ridge regressions from the heads of either kind to the word codes and to the signature.

Letters: N tokens, D width, S slots, W the width of the heads that read words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from comem_ray.model.qformer import QFormer
from examples.countries.train.hidden_states import ItemHiddenStates
from examples.countries.train.image_cache import CachedImageSequencer
from examples.countries.train.notes import FADING, NORM, SIGNATURE, SLOTS, WORD, Codebook, Tokenize, image_signatures
from examples.countries.world.countries import Country

IMAGE_HEADS = 5  # of 16; the others attend to words
SHARPNESS = 12.0  # of attention: the score at a slot's tokens, in nats above that of others
QUERY_NORM = 96.0  # what eight layers add has a norm of some 50
RIDGE = 0.01  # of the mean variance, in the regressions of keys
FIT_RIDGE = 0.03  # of the mean square, in those of the output
OTHER_WORDS = 0.1  # weight of the template's words in the regression; words of facts have 1
OUTPUT_SCALE = 0.25  # of to_out: eight passes add up


@dataclass(frozen=True)
class _FitData:
    """What the regressions are fitted to: the Q-Former's inputs of some items, after its norm."""

    states_ND: Tensor
    ids_N: Tensor
    attention_NS: Tensor  # target score of a slot's query with a token's key: 1 at most, 0 at tokens of no fact
    images: list[Tensor]  # indices of the tokens of each item's image
    signatures: Tensor  # (items, D)


@torch.no_grad()
def init_qformer(
    qformer: QFormer, states: ItemHiddenStates, items: int, sequencer: CachedImageSequencer, book: Codebook, seed: int
) -> None:
    """Sets the Q-Former's weights as above, in place, from the first `items` of `states`; all others to seeded ones."""
    width, heads = qformer.to_q.in_features, qformer.heads
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        qformer.load_state_dict(QFormer(width, **qformer.sizes).state_dict())
    image_heads = max(1, heads * IMAGE_HEADS // 16)
    word_width = (heads - image_heads) * qformer.head_width
    nn.init.eye_(qformer.proj_in.weight)
    data = _fit_data(qformer, states, items, sequencer)
    keys = slot_regressions(data.states_ND, data.attention_NS)
    queries = orthogonal_rows(keys, seed)
    set_attention(qformer, keys, queries, image_heads)
    nn.init.eye_(qformer.to_kv.weight[heads * qformer.head_width :])
    nn.init.eye_(qformer.to_out.weight).mul_(OUTPUT_SCALE)
    qformer.ffn[-1].weight.mul_(0.1)  # type: ignore[operator]
    output = torch.cat([_word_map(data, book, word_width), _signature_map(data, word_width)], 1)
    qformer.proj_out.weight.copy_(output @ (torch.eye(width) - queries.T @ queries))  # without the queries themselves
    qformer.norm_out.weight.fill_(NORM / width**0.5)
    qformer.norm_out.bias.copy_(book.mean)


def find_facts(country: Country, ids: Sequence[int], tokenize: Tokenize) -> list[list[list[int]]]:
    """Indices in an item's token `ids` of each phrase of its slots, as in `notes.word_slots`; slot 0 has none."""
    assert country.currency is not None
    facts = [country.name, country.capital, country.currency.word, country.languages[0], country.area]
    name, capital, currency, language, region = (_find(ids, tokenize(f" {fact}")) for fact in facts)
    phrases = [[], [name[:1]], [name[1:]], [capital[:1]], [capital[1:2]], [capital[2:]], [currency], [language, region]]
    return [[p for p in slot if p] for slot in phrases]


def _find(ids: Sequence[int], phrase: list[int]) -> list[int]:
    """Indices of the first occurrence of `phrase`; empty where there is none."""
    for start in range(len(ids) - len(phrase) + 1):
        if list(ids[start : start + len(phrase)]) == phrase:
            return list(range(start, start + len(phrase)))
    return []


def _fit_data(qformer: QFormer, states: ItemHiddenStates, items: int, sequencer: CachedImageSequencer) -> _FitData:
    normed, ids, attention, images = [], list[int](), [], []
    for (country, _, _), sequence, hidden in zip(states.items[:items], states.sequences, states.hidden, strict=False):
        x = qformer.norm_x(qformer.proj_in(hidden.to(qformer.proj_in.weight.device)))
        normed.append(x.float().cpu())
        image_indices = [i for i, token in enumerate(sequence.ids) if token == sequencer.image_token_id]
        facts = find_facts(country, sequence.ids, sequencer.plain_ids)
        attention.append(attention_targets(facts, image_indices, len(sequence)))
        images.append(torch.tensor(image_indices) + len(ids))
        ids += sequence.ids
    signatures = image_signatures(sequencer.tokens([item.image for item in states.items[:items]]))
    return _FitData(torch.cat(normed), torch.tensor(ids), torch.cat(attention), images, signatures)


def attention_targets(facts: Sequence[Sequence[Sequence[int]]], image_indices: Sequence[int], tokens: int) -> Tensor:
    """Target scores (tokens, S) of one item. Attention is exp(SHARPNESS x score) and fades along a word by FADING."""
    targets = torch.zeros(tokens, len(facts))
    targets[list(image_indices), 0] = 1
    for slot, phrases in enumerate(facts):
        for phrase in phrases:
            for order, index in enumerate(phrase):
                targets[index, slot] = max(0.1, 1 + order * math.log(FADING) / SHARPNESS)
    return targets


def slot_regressions(states_ND: Tensor, attention_NS: Tensor) -> Tensor:
    """Rows (S, D): linear functions that are larger by 1, on average, at a slot's tokens than elsewhere.

    A slot's tokens weigh as much as all others together. A slot without tokens in any item gets a row of zeros.
    """
    rows = []
    for target in attention_NS.T:
        own = target > 0
        if not own.any():
            rows.append(torch.zeros(states_ND.shape[1]))
            continue
        weights = torch.where(own, 0.5 / own.sum(), 0.5 / (~own).sum())
        centred = states_ND - weights @ states_ND
        square = centred.T @ (weights[:, None] * centred)
        ridge = RIDGE * square.diagonal().mean() * torch.eye(len(square))
        row = torch.linalg.solve(square + ridge, centred.T @ (weights * (target - weights @ target)))
        scores = states_ND @ row
        rows.append(row / (scores[own].mean() - scores[~own].mean()))
    return torch.stack(rows)


def orthogonal_rows(rows_SD: Tensor, seed: int) -> Tensor:
    """As many orthonormal rows (S, D), orthogonal to all the given ones."""
    others = torch.randn(rows_SD.shape, generator=torch.Generator().manual_seed(seed))
    return torch.linalg.qr(torch.cat([rows_SD, others]).T).Q.T[len(rows_SD) :]


def set_attention(qformer: QFormer, keys_SD: Tensor, queries_SD: Tensor, image_heads: int) -> None:
    """Sets queries and keys: in every head, dimension s of a key is regression s, of a query whether it is slot s."""
    heads, head_width, width = qformer.heads, qformer.head_width, keys_SD.shape[1]
    qformer.queries.copy_(QUERY_NORM * queries_SD)
    to_q = qformer.to_q.weight.view(heads, head_width, width)
    to_k = qformer.to_kv.weight[: heads * head_width].view(heads, head_width, width)
    # After its norm a query has the length sqrt(D); scores are divided by sqrt(head_width).
    slot_queries = SHARPNESS * head_width**0.5 / width**0.5 * queries_SD
    to_k[:, :SLOTS] = keys_SD
    to_q[:, :SLOTS] = slot_queries
    to_q[heads - image_heads :, :SLOTS] = 0
    to_q[heads - image_heads :, 0] = slot_queries.sum(0)


def _word_map(data: _FitData, book: Codebook, width: int) -> Tensor:
    """From the first `width` dimensions of a token's state to its word code, of the norm WORD on average: (D, W)."""
    text = data.attention_NS[:, 0] == 0
    weights = torch.where(data.attention_NS.amax(1) > 0, 1.0, OTHER_WORDS)
    return WORD * ridge_regression(data.states_ND[text, :width], book.words[data.ids_N[text]], weights[text])


def _signature_map(data: _FitData, width: int) -> Tensor:
    """From the other dimensions of an image's mean state to its signature, of the norm SIGNATURE: (D, D - W)."""
    states = torch.stack([data.states_ND[i, width:].mean(0) for i in data.images])
    return SIGNATURE * ridge_regression(states, data.signatures, torch.ones(len(states)))


def ridge_regression(inputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The ridge regression (targets, inputs), scaled so that its outputs have the norm 1 on average."""
    weighted = inputs * weights[:, None]
    ridge = FIT_RIDGE * (weighted * inputs).sum() / inputs.shape[1] * torch.eye(inputs.shape[1])
    fitted = torch.linalg.solve(weighted.T @ inputs + ridge, weighted.T @ targets).T
    norms = (inputs @ fitted.T).norm(dim=-1)
    return fitted * weights.sum() / (norms * weights).sum()
