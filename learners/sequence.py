"""The sequence model: a causal transformer over a user's last items that scores every item as the next one.

SASRec (Kang & McAuley, ICDM 2018) with pre-norm blocks, a SwiGLU feed-forward and one item table for input and output
(eSASRec, RecSys 2025), trained with a softmax over the items that its training is about. Time enters it as what it is about to be asked:
each choice says how long it was until the next one, the last one how long it is until now (docs/log.md).
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from learners.choices import LONGEST
from learners.histories import ITEMS, LENGTH, PAUSES
from learners.training import Training

SCORES = 5_000_000  # of a loss that are worked out at once: 20 MB, larger blocks are given back and faulted in anew each time
TOP = 100  # items a scoring names


class Block(nn.Module):
    """One pre-norm transformer block: masked self-attention, then SwiGLU."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_mixing = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.gate, self.up, self.down = nn.Linear(dim, 2 * dim), nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, asked: int) -> Tensor:
        """(B, L, dim), and the mask of the last `asked` positions -> (B, asked, dim): what becomes of those."""
        b, length, dim = x.shape
        read, x = self.before_attention(x), x[:, -asked:]
        q = F.linear(read[:, -asked:], self.qkv.weight[:dim], self.qkv.bias[:dim])
        k, v = (
            F.linear(read, self.qkv.weight[dim:], self.qkv.bias[dim:])
            .view(b, length, 2, self.heads, dim // self.heads)
            .permute(2, 0, 3, 1, 4)
        )
        q = q.view(b, asked, self.heads, dim // self.heads).transpose(1, 2)
        weights = (q @ k.transpose(-1, -2)) * (dim // self.heads) ** -0.5 + mask  # (B, H, asked, L)
        mixed = (self.drop(weights.softmax(-1)) @ v).transpose(1, 2).reshape(b, asked, dim)
        x = x + self.drop(self.out(mixed))
        y = self.before_mixing(x)
        out: Tensor = x + self.drop(self.down(F.silu(self.gate(y)) * self.up(y)))
        return out


class SequenceModel(nn.Module):
    """`items` in the vocabulary; row 0 of the table is padding, item i has row i + 1. It reads histories of `length`."""

    def __init__(self, items: int, config: Training, length: int = LENGTH) -> None:
        super().__init__()
        self.table = nn.Embedding(items + 1, config.dim, padding_idx=0)
        self.pauses = nn.Embedding(LONGEST + 2, config.dim, padding_idx=0)
        self.positions = nn.Parameter(torch.zeros(length, config.dim))
        self.heads = config.heads
        self.blocks = nn.ModuleList(Block(config.dim, config.heads, config.dropout) for _ in range(config.blocks))
        self.norm = nn.LayerNorm(config.dim)
        self.drop = nn.Dropout(config.dropout)
        nn.init.normal_(self.table.weight, std=0.02)
        nn.init.zeros_(self.pauses.weight)
        nn.init.normal_(self.positions, std=0.02)
        with torch.no_grad():
            self.table.weight[0] = 0
        self.causal: Tensor
        self.register_buffer("causal", torch.full((length, length), -1e9).triu(1), persistent=False)

    def states(self, histories: Tensor, asked: int) -> Tensor:
        """int64 (B, 2, L) -> float (B, asked, dim): what each history (`learners.histories`) up to each of the last positions says of the
        next item. L is at most the model's length.
        """
        items, length = histories[:, ITEMS], histories.shape[2]
        x = self.drop(self.table(items) * self.table.embedding_dim**0.5 + self.pauses(histories[:, PAUSES]) + self.positions[-length:])
        mask = self.causal[:length, :length] + (items == 0).to(x.dtype)[:, None, None, :] * -1e9  # (B, 1, L, L)
        for nth, block in enumerate(self.blocks, 1):
            n = asked if nth == len(self.blocks) else length
            x = block(x, mask[:, :, -n:], n)
        states: Tensor = self.norm(x)
        return states

    def scores(self, histories: Tensor) -> Tensor:
        """int64 (B, 2, LENGTH) -> float (B, items + 1): a score of every item as the next one, padding lowest."""
        scores = self.states(histories, 1)[:, -1] @ self.table.weight.T
        return torch.cat([torch.full_like(scores[:, :1], -1e9), scores[:, 1:]], 1)

    def forward(self, histories: Tensor) -> tuple[Tensor, Tensor]:
        """int64 (B, 2, LENGTH) -> rows int64 (B, TOP) and scores float (B, TOP), best first: what Triton serves."""
        scores, rows = self.scores(histories).topk(min(TOP, self.table.num_embeddings), dim=1)
        return rows, scores

    def loss(self, histories: Tensor, targets: Tensor, weights: Tensor, among: Tensor, chances: Tensor) -> Tensor:
        """Weighted mean cross-entropy of the next item against those in the rows `among`, int64, in order, all targets in it.

        `targets` int64 and `weights` float, both (B, L); `chances`, float, of each item to be in `among`, as logarithms: 0 where all are.
        """
        counted = weights > 0
        states, weight = self.states(histories, histories.shape[2])[counted], weights[counted]
        places, table = torch.searchsorted(among, targets[counted]), self.table(among)
        each = max(1, SCORES // len(among))
        losses = [
            (F.cross_entropy(states[part] @ table.T - chances, places[part], reduction="none") * weight[part]).sum()
            for part in (slice(start, start + each) for start in range(0, len(states), each))
        ]
        return torch.stack(losses).sum() / weight.sum()


def grown(model: SequenceModel, items: int, config: Training) -> SequenceModel:
    """A copy of the model with room for `items` items: rows of the known ones are kept, new ones start small."""
    size = replace(config, dim=model.table.embedding_dim, blocks=len(model.blocks), heads=model.heads)
    larger = SequenceModel(items, size, len(model.positions))
    state = model.state_dict()
    table = larger.table.weight.detach().clone()
    table[: len(state["table.weight"])] = state["table.weight"].cpu()
    larger.load_state_dict({**state, "table.weight": table})
    return larger
