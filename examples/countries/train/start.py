"""Where stage `reading` starts: a Q-Former that already looks at the right tokens of an item.

From random weights it attends to all tokens alike, and finding those that a slot of the notes is about takes it longer
than everything after. But where a token stands ("its capital is ...") can be told from its hidden state by one linear
function a slot, and what it says by one linear map. Both are fitted to a few hundred invented items, in closed form:

- keys: a ridge regression a slot, on 1 at its tokens and 0 elsewhere; on a little less at every further token of a
  word, so that attention fades along it as the notes do; and one for the tokens of the image;
- queries: eight directions that no regression sees, loud enough to stay the same through the layers. The first heads
  look at the slot's own tokens, the last ones at the image;
- output: from what the heads of either kind bring to the word codes and to the signature, by ridge regression.

Letters: N tokens, D width, S slots, W the width of the heads that read words.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from comem_ray.model.qformer import QFormer
from examples.countries.train.image_tokens import SeenSequencer
from examples.countries.train.notes import FADING, NORM, SIGNATURE, SLOTS, WORD, Codebook, Ids, signatures
from examples.countries.train.states import States
from examples.countries.world.countries import Country

IMAGE_HEADS = 5  # of 16; the others read words
SHARPNESS = 12.0  # of attention: the score at a slot's tokens, in nats above that of others
LOUDNESS = 96.0  # norm of a query; what eight layers add has some 50
RIDGE = 0.01  # of the mean variance, in the regressions of keys
FIT_RIDGE = 0.03  # of the mean square, in those of the output
OTHER_WORDS = 0.1  # weight of the words of the template in the regression, beside those of facts
STEP = 0.25  # of to_out: eight passes add up


@dataclass(frozen=True)
class _Read:
    """What the Q-Former is given of some items, after its norm."""

    states_ND: Tensor
    ids_N: Tensor
    aims_NS: Tensor  # how strongly a slot's query should meet a token's key: 1 at best, 0 where it is not about it
    images: list[Tensor]  # places of each item's image
    signatures: Tensor  # (items, D)


@torch.no_grad()
def start_qformer(
    qformer: QFormer, states: States, items: int, sequencer: SeenSequencer, book: Codebook, seed: int
) -> None:
    """Sets the Q-Former's weights as above, from the first `items` of `states`; all others to seeded ones."""
    width, heads = qformer.to_q.in_features, qformer.heads
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        qformer.load_state_dict(QFormer(width, **qformer.sizes).state_dict())
    image_heads = max(1, heads * IMAGE_HEADS // 16)
    words = (heads - image_heads) * qformer.head_width
    nn.init.eye_(qformer.proj_in.weight)
    read = _read(qformer, states, items, sequencer)
    found = discriminants(read.states_ND, read.aims_NS)
    queries = _unseen_by(found, seed)
    _aim(qformer, found, queries, image_heads)
    nn.init.eye_(qformer.to_kv.weight[heads * qformer.head_width :])
    nn.init.eye_(qformer.to_out.weight).mul_(STEP)
    qformer.ffn[-1].weight.mul_(0.1)  # type: ignore[operator]
    output = torch.cat([_word_map(read, book, words), _signature_map(read, words)], 1)
    qformer.proj_out.weight.copy_(output @ (torch.eye(width) - queries.T @ queries))  # the queries say nothing
    qformer.norm_out.weight.fill_(NORM / width**0.5)
    qformer.norm_out.bias.copy_(book.mean)


def fact_places(country: Country, ids: Sequence[int], plain_ids: Ids) -> list[list[list[int]]]:
    """Places in an item's tokens of each phrase of its slots, as `notes.slots` has them; none of slot 0's image."""
    assert country.currency is not None
    held = [country.name, country.capital, country.currency.word, country.languages[0], country.area]
    name, capital, currency, language, region = (_find(ids, plain_ids(f" {word}")) for word in held)
    phrases = [[], [name[:1]], [name[1:]], [capital[:1]], [capital[1:2]], [capital[2:]], [currency], [language, region]]
    return [[p for p in slot if p] for slot in phrases]


def _find(ids: Sequence[int], phrase: list[int]) -> list[int]:
    """Places of the first occurrence, none where there is none."""
    for start in range(len(ids) - len(phrase) + 1):
        if list(ids[start : start + len(phrase)]) == phrase:
            return list(range(start, start + len(phrase)))
    return []


def _read(qformer: QFormer, states: States, items: int, sequencer: SeenSequencer) -> _Read:
    normed, ids, aims, images = [], list[int](), [], []
    for (country, _, _), sequence, hidden in zip(states.items[:items], states.sequences, states.hidden, strict=False):
        x = qformer.norm_x(qformer.proj_in(hidden.to(qformer.proj_in.weight.device)))
        normed.append(x.float().cpu())
        of_image = [i for i, token in enumerate(sequence.ids) if token == sequencer.image_token_id]
        aims.append(_aims(fact_places(country, sequence.ids, sequencer.plain_ids), of_image, len(sequence)))
        images.append(torch.tensor(of_image) + len(ids))
        ids += sequence.ids
    signed = signatures(sequencer.tokens([seen for _, _, seen in states.items[:items]]))
    return _Read(torch.cat(normed), torch.tensor(ids), torch.cat(aims), images, signed)


def _aims(places: Sequence[Sequence[Sequence[int]]], of_image: Sequence[int], tokens: int) -> Tensor:
    """Aims (tokens, S) of one item. Attention goes as exp(SHARPNESS x score), and fades along a word by FADING."""
    aims = torch.zeros(tokens, len(places))
    aims[list(of_image), 0] = 1
    for slot, phrases in enumerate(places):
        for phrase in phrases:
            for order, place in enumerate(phrase):
                aims[place, slot] = max(0.1, 1 + order * math.log(FADING) / SHARPNESS)
    return aims


def discriminants(states_ND: Tensor, aims_NS: Tensor) -> Tensor:
    """Rows (S, D): linear functions that are larger by 1, on average, at a slot's tokens than elsewhere.

    A slot's tokens weigh as much as all others together. A slot that no item has anything for gets a row of zeros.
    """
    rows = []
    for aim in aims_NS.T:
        own = aim > 0
        if not own.any():
            rows.append(torch.zeros(states_ND.shape[1]))
            continue
        weights = torch.where(own, 0.5 / own.sum(), 0.5 / (~own).sum())
        centred = states_ND - weights @ states_ND
        square = centred.T @ (weights[:, None] * centred)
        ridge = RIDGE * square.diagonal().mean() * torch.eye(len(square))
        row = torch.linalg.solve(square + ridge, centred.T @ (weights * (aim - weights @ aim)))
        scores = states_ND @ row
        rows.append(row / (scores[own].mean() - scores[~own].mean()))
    return torch.stack(rows)


def _unseen_by(rows_SD: Tensor, seed: int) -> Tensor:
    """As many orthonormal rows, orthogonal to all the given ones."""
    others = torch.randn(rows_SD.shape, generator=torch.Generator().manual_seed(seed))
    return torch.linalg.qr(torch.cat([rows_SD, others]).T).Q.T[len(rows_SD) :]


def _aim(qformer: QFormer, found_SD: Tensor, queries_SD: Tensor, image_heads: int) -> None:
    """Sets queries and keys: in every head, dimension s of a key is discriminant s, of a query whether it is slot s."""
    heads, head_width, width = qformer.heads, qformer.head_width, found_SD.shape[1]
    qformer.queries.copy_(LOUDNESS * queries_SD)
    to_q = qformer.to_q.weight.view(heads, head_width, width)
    to_k = qformer.to_kv.weight[: heads * head_width].view(heads, head_width, width)
    # After its norm a query has the length sqrt(D); scores are divided by sqrt(head_width).
    asking = SHARPNESS * head_width**0.5 / width**0.5 * queries_SD
    to_k[:, :SLOTS] = found_SD
    to_q[:, :SLOTS] = asking
    to_q[heads - image_heads :, :SLOTS] = 0
    to_q[heads - image_heads :, 0] = asking.sum(0)


def _word_map(read: _Read, book: Codebook, words: int) -> Tensor:
    """From the first `words` dimensions of a token's state to its word code, of the norm WORD on average: (D, W)."""
    text = read.aims_NS[:, 0] == 0
    weights = torch.where(read.aims_NS.amax(1) > 0, 1.0, OTHER_WORDS)
    return WORD * _fitted(read.states_ND[text, :words], book.words[read.ids_N[text]], weights[text])


def _signature_map(read: _Read, words: int) -> Tensor:
    """From the other dimensions of an image's mean state to its signature, of the norm SIGNATURE: (D, D - W)."""
    states = torch.stack([read.states_ND[p, words:].mean(0) for p in read.images])
    return SIGNATURE * _fitted(states, read.signatures, torch.ones(len(states)))


def _fitted(inputs: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """The ridge regression (targets, inputs), scaled so that what it gives has the norm 1 on average."""
    weighted = inputs * weights[:, None]
    ridge = FIT_RIDGE * (weighted * inputs).sum() / inputs.shape[1] * torch.eye(inputs.shape[1])
    fitted = torch.linalg.solve(weighted.T @ inputs + ridge, weighted.T @ targets).T
    norms = (inputs @ fitted.T).norm(dim=-1)
    return fitted * weights.sum() / (norms * weights).sum()
