"""What vectors should be: transformers' own forward pass, padded, and pooling written out."""

import asyncio

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification

from engines.api import EmbeddingRequest, Embeds, EngineInfo, RequestId
from engines.embedding import PooledEmbedder
from engines.limits import Limits
from engines.stepped import SteppedEngine
from engines.torch.encoder_loading import open_encoder
from engines.torch.encoder_runner import EncoderRunner
from engines.torch.loading import open_model
from engines.torch.pooling_runner import PoolingRunner
from engines.torch.runner import TorchRunner
from engines.torch.vector_runner import VectorRunner

BLOCK = 8


def padded(texts, pad=0):
    """Ids and mask [texts, longest], padded on the right."""
    longest = max(map(len, texts))
    ids = torch.full((len(texts), longest), pad)
    mask = torch.zeros(len(texts), longest, dtype=torch.int64)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.tensor(text)
        mask[row, : len(text)] = 1
    return ids, mask


def hidden_states(path, texts, pad=0):
    """The last hidden states of the bare model and the mask, by eager attention in float32."""
    model = AutoModel.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    ).eval()
    ids, mask = padded(texts, pad)
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=mask).last_hidden_state, mask


def pooled(hidden, mask, pooling):
    """As sentence-transformers' Pooling does it."""
    if pooling == "cls":
        return hidden[:, 0]
    if pooling == "last":
        return hidden[torch.arange(len(mask)), mask.sum(dim=1) - 1]
    return (hidden * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)


def true_vectors(path, texts, pooling, *, normalise, dense=(), pad=0):
    """The vectors of texts (token ids) as numpy float32 [texts, size]."""
    vectors = pooled(*hidden_states(path, texts, pad), pooling)
    for place, (inputs, outputs, activation) in enumerate(dense, start=2):
        layer = nn.Linear(inputs, outputs)
        weights = load_file(path / f"{place}_Dense" / "model.safetensors")
        layer.load_state_dict({"weight": weights["linear.weight"], "bias": weights["linear.bias"]})
        vectors = getattr(nn, activation)()(layer(vectors))
    vectors = nn.functional.normalize(vectors, dim=-1) if normalise else vectors
    return vectors.detach().numpy()


def true_logits(path, pairs, pad=1):
    """The logits of a cross-encoder for pairs of (ids, where the second text begins)."""
    model = AutoModelForSequenceClassification.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    ).eval()
    ids, mask = padded([ids for ids, _ in pairs], pad)
    types = torch.zeros_like(ids)
    for row, (text, second) in enumerate(pairs):
        if second:
            types[row, second : len(text)] = 1
    more = {} if model.config.model_type == "distilbert" else {"token_type_ids": types}
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=mask, **more).logits[:, 0].numpy()


def encoder_engine(path, *, lanes=16, dtype="float32") -> SteppedEngine:
    """A stepped engine over the encoder in a directory."""
    loaded = open_encoder(path, dtype=dtype)
    facts = loaded.facts
    context = facts.max_context
    limits = Limits(
        context, lanes, context + lanes, context + 1, lanes, facts.vocab_size, whole_prompts=True
    )
    embeds = None if facts.ranks else Embeds(facts.recipe.size(64), facts.recipe.normalise)
    info = EngineInfo(
        "tiny", context, facts.vocab_size, context + 1, lanes, lanes,
        generates=False, embeds=embeds, ranks=facts.ranks,
    )  # fmt: skip
    return SteppedEngine(info, limits, EncoderRunner(loaded))


def decoder_engine(path, *, rows=71, blocks=640, dtype="float32") -> SteppedEngine:
    """A stepped engine over the decoder in a directory: its tokens too, where it has any."""
    loaded = open_model(path, dtype=dtype, device="cpu")
    facts = loaded.facts
    limits = Limits(facts.max_context, 32, rows, BLOCK, blocks, facts.vocab_size)
    embeds = Embeds(facts.recipe.size(facts.hidden_size), facts.recipe.normalise)
    info = EngineInfo(
        "tiny", facts.max_context, facts.vocab_size, BLOCK, blocks, 32,
        generates=facts.generates, embeds=embeds,
    )  # fmt: skip
    if not facts.generates:
        runner = VectorRunner(loaded, num_blocks=blocks, block_size=BLOCK)
    else:
        tokens = TorchRunner(loaded, num_blocks=blocks, block_size=BLOCK, max_lanes=32)
        runner = PoolingRunner(tokens, loaded)
    return SteppedEngine(info, limits, runner)


async def embed_all(engine, texts, *, wave=0, seconds=None):
    """The vectors of texts asked for all at once, as lists."""
    embedder = PooledEmbedder(engine)
    seconds = seconds or [0] * len(texts)
    vectors = await asyncio.gather(
        *(
            embedder.embed(EmbeddingRequest(RequestId(f"{wave}-{i}"), tuple(text), second))
            for i, (text, second) in enumerate(zip(texts, seconds, strict=True))
        )
    )
    return [list(vector) for vector in vectors]
