"""Converts files of Hugging Face `transformers` to the layout of the official checkpoints.

https://github.com/huggingface/transformers, in `src/transformers/models`: `depth_anything/modeling_depth_anything.py`
with `dinov2/modeling_dinov2.py`; `dpt/modeling_dpt.py` with `bit`, `beit` and `swinv2`; and the scripts that made the
files, `depth_anything/convert_depth_anything_to_hf.py` and `dpt/convert_dpt_*.py`. The names here are those in the
files; in memory, transformers 5 uses others.

The converted file runs in the official network. transformers computes slightly differently: it resamples Depth
Anything's position table to a size, not by a factor (the same only at 518×518), and for DPT with ViT and BEiT its
configurations set the ε of the layer norms to 1e-12 instead of 1e-6.

Invariant: tensors that are only renamed are not copied; an entry without a rule keeps its name, so filling the network
refuses it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Names = tuple[tuple[str, str], ...]
"""(pattern of a whole transformers name, replacement), both without a final `.weight` or `.bias`."""

_LEVELS = range(4)
_CLASSES = 1000
_WIDTH = -1
"""Stands for a family's width in `Family.unused`."""
_NOT_NEEDED = re.compile(r"backbone\..*\.(relative_position_index|relative_coords_table)")
"""Buffers that old versions saved; they follow from the size."""


def _decoder(scratch: str) -> Names:
    # transformers numbers the fusions from the coarsest map, the official code from the finest.
    return (
        *((rf"neck\.convs\.{n}", f"{scratch}.layer{n + 1}_rn") for n in _LEVELS),
        *((rf"neck\.fusion_stage\.layers\.{n}\.projection", f"{scratch}.refinenet{4 - n}.out_conv") for n in _LEVELS),
        *(
            (
                rf"neck\.fusion_stage\.layers\.{n}\.residual_layer([12])\.convolution([12])",
                rf"{scratch}.refinenet{4 - n}.resConfUnit\1.conv\2",
            )
            for n in _LEVELS
        ),
    )


def _within(outer: str, official: str, names: Names) -> Names:
    """Rules for the contents of a module. If `outer` has groups, those of the inner patterns must be named."""
    return tuple((rf"{outer}\.{pattern}", f"{official}.{name}") for pattern, name in names)


_MIDAS: Names = (*_decoder("scratch"), (r"head\.head\.([024])", r"scratch.output_conv.\1"))
_REASSEMBLY: Names = tuple(
    (rf"neck\.reassemble_stage\.{pattern}", f"pretrained.act_postprocess{n + 1}.{name}")
    for n in _LEVELS
    for pattern, name in (
        (rf"readout_projects\.{n}\.0", "0.project.0"),
        (rf"layers\.{n}\.projection", "3"),
        (rf"layers\.{n}\.resize", "4"),
    )
)
_ATTENTION: Names = (
    (r"attention\.output\.dense", "attn.proj"),
    (r"attention\.(?:attention|self)\.(?P<part>query|key|value)", r"attn.\g<part>"),  # joined afterwards
)
_BLOCK: Names = (
    *_ATTENTION,
    ("layernorm_before", "norm1"),
    ("layernorm_after", "norm2"),
    (r"intermediate\.dense", "mlp.fc1"),
    (r"output\.dense", "mlp.fc2"),
)
"""Shared by the blocks of ViT, BEiT and Swin."""
_VIT: Names = (
    *_MIDAS,
    *_REASSEMBLY,
    (r"dpt\.embeddings\.cls_token", "pretrained.model.cls_token"),
    (r"dpt\.embeddings\.position_embeddings", "pretrained.model.pos_embed"),
    (r"dpt\.layernorm", "pretrained.model.norm"),
    *_within(r"dpt\.encoder\.layer\.(\d+)", r"pretrained.model.blocks.\1", _BLOCK),
)
_HEAD = (("pretrained.model.head.weight", (_CLASSES, _WIDTH)), ("pretrained.model.head.bias", (_CLASSES,)))


@dataclass(frozen=True, kw_only=True)
class Family:
    """Files of one structure.

    Attributes:
        mark: a transformers name that only files of this family contain.
        names: see `Names`.
        width_of: official name of a tensor whose last side is the width that `unused` refers to.
        unused: official names and shapes of tensors that these files lack because no output depends on them.
    """

    mark: str
    names: Names
    width_of: str
    unused: tuple[tuple[str, tuple[int, ...]], ...]


FAMILIES: tuple[Family, ...] = (
    Family(  # Depth Anything V1, V2 and V2-metric
        mark="head.conv3.weight",
        names=(
            *_decoder("depth_head.scratch"),
            (r"neck\.reassemble_stage\.layers\.([0-3])\.projection", r"depth_head.projects.\1"),
            (r"neck\.reassemble_stage\.layers\.([0-3])\.resize", r"depth_head.resize_layers.\1"),
            (r"head\.conv1", "depth_head.scratch.output_conv1"),
            (r"head\.conv2", "depth_head.scratch.output_conv2.0"),
            (r"head\.conv3", "depth_head.scratch.output_conv2.2"),
            (r"backbone\.embeddings\.(cls_token|mask_token)", r"pretrained.\1"),
            (r"backbone\.embeddings\.position_embeddings", "pretrained.pos_embed"),
            (r"backbone\.embeddings\.patch_embeddings\.projection", "pretrained.patch_embed.proj"),
            (r"backbone\.layernorm", "pretrained.norm"),
            *_within(
                r"backbone\.encoder\.layer\.(\d+)",
                r"pretrained.blocks.\1",
                (
                    *_ATTENTION,
                    (r"(?P<same>norm[12]|mlp\.fc[12])", r"\g<same>"),
                    (r"layer_scale(?P<number>[12])\.lambda1", r"ls\g<number>.gamma"),
                    (r"mlp\.weights_in", "mlp.w12"),
                    (r"mlp\.weights_out", "mlp.w3"),
                ),
            ),
        ),
        width_of="pretrained.cls_token",
        unused=(("pretrained.mask_token", (1, _WIDTH)),),
    ),
    Family(  # dpt_hybrid_384; listed before dpt_large_384 because it contains its mark too
        mark="dpt.embeddings.backbone.bit.embedder.convolution.weight",
        names=(
            *_VIT,
            (r"dpt\.embeddings\.projection", "pretrained.model.patch_embed.proj"),
            *_within(
                r"dpt\.embeddings\.backbone\.bit",
                "pretrained.model.patch_embed.backbone",
                (
                    (r"embedder\.convolution", "stem.conv"),
                    (r"embedder\.norm", "stem.norm"),
                    (
                        r"encoder\.stages\.(\d+)\.layers\.(\d+)\.(conv[123]|norm[123]|downsample\.(?:conv|norm))",
                        r"stages.\1.blocks.\2.\3",
                    ),
                ),
            ),
        ),
        width_of="pretrained.model.cls_token",
        unused=_HEAD,
    ),
    Family(  # dpt_large_384
        mark="dpt.embeddings.cls_token",
        names=(*_VIT, (r"dpt\.embeddings\.patch_embeddings\.projection", "pretrained.model.patch_embed.proj")),
        width_of="pretrained.model.cls_token",
        unused=_HEAD,
    ),
    Family(  # dpt_beit_*
        mark="backbone.encoder.layer.0.lambda_1",
        names=(
            *_MIDAS,
            *_REASSEMBLY,
            (r"backbone\.embeddings\.cls_token", "pretrained.model.cls_token"),
            (r"backbone\.embeddings\.patch_embeddings\.projection", "pretrained.model.patch_embed.proj"),
            *_within(
                r"backbone\.encoder\.layer\.(\d+)",
                r"pretrained.model.blocks.\1",
                (
                    *_BLOCK,
                    (r"lambda_(?P<number>[12])", r"gamma_\g<number>"),
                    (
                        r"attention\.attention\.relative_position_bias\.(?P<table>relative_position_bias_table)",
                        r"attn.\g<table>",
                    ),
                ),
            ),
        ),
        width_of="pretrained.model.cls_token",
        unused=(
            *_HEAD,
            ("pretrained.model.fc_norm.weight", (_WIDTH,)),
            ("pretrained.model.fc_norm.bias", (_WIDTH,)),
        ),
    ),
    Family(  # dpt_swin2_*
        mark="backbone.encoder.layers.0.blocks.0.attention.self.logit_scale",
        names=(
            *_MIDAS,
            (r"backbone\.embeddings\.patch_embeddings\.projection", "pretrained.model.patch_embed.proj"),
            (r"backbone\.embeddings\.norm", "pretrained.model.patch_embed.norm"),
            (
                r"backbone\.encoder\.layers\.(\d+)\.downsample\.(norm|reduction)",
                r"pretrained.model.layers.\1.downsample.\2",
            ),
            *_within(
                r"backbone\.encoder\.layers\.(\d+)\.blocks\.(\d+)",
                r"pretrained.model.layers.\1.blocks.\2",
                (
                    *_BLOCK,
                    (r"attention\.self\.logit_scale", "attn.logit_scale"),
                    (r"attention\.self\.continuous_position_bias_mlp\.(?P<layer>[02])", r"attn.cpb_mlp.\g<layer>"),
                ),
            ),
        ),
        width_of="pretrained.model.layers.3.blocks.0.norm1.weight",
        unused=(
            *_HEAD,
            ("pretrained.model.norm.weight", (_WIDTH,)),
            ("pretrained.model.norm.bias", (_WIDTH,)),
        ),
    ),
)


def to_official(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a transformers file under the official names, which our networks use.

    Queries, keys and values are joined into one tensor; all other tensors are the same objects. Zeros are added for
    tensors that the file lacks because no output depends on them (`Family.unused`, and the unit of the coarsest fusion
    that never gets a skip).

    Returns:
        `state_dict` itself if it is not from transformers.
    """
    family = next((family for family in FAMILIES if family.mark in state_dict), None)
    if family is None:
        return state_dict
    rules = [(re.compile(rf"{pattern}(?P<end>\.weight|\.bias|)"), rf"{name}\g<end>") for pattern, name in family.names]
    official = {_renamed(key, rules): value for key, value in state_dict.items() if not _NOT_NEEDED.fullmatch(key)}
    _join(official)
    return {**_unused(official, family), **official}


def _renamed(key: str, rules: Sequence[tuple[re.Pattern[str], str]]) -> str:
    return next((match.expand(name) for pattern, name in rules if (match := pattern.fullmatch(key))), key)


def _join(official: dict[str, Tensor]) -> None:
    """Replace `….attn.query`, `key` and `value` by `qkv`, and biases by `q_bias` and `v_bias` if keys have none."""
    for stem in [key.removesuffix("query.weight") for key in official if key.endswith(".attn.query.weight")]:
        for end in ("weight", "bias"):
            query, key, value = (f"{stem}{part}.{end}" for part in ("query", "key", "value"))
            parts = [official[name] for name in (query, key, value) if name in official]
            # Tensors that cannot be joined keep their names, so filling the network refuses them.
            if len(parts) == 3 and parts[0].ndim and len({part.shape for part in parts}) == 1:
                official[f"{stem}qkv.{end}"] = _joined(parts)
                del official[query], official[key], official[value]
            elif len(parts) == 2 and end == "bias" and key not in official:
                official[f"{stem}q_bias"], official[f"{stem}v_bias"] = official.pop(query), official.pop(value)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    if not parts[0].is_meta:
        return torch.cat(list(parts))
    sides = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    return torch.empty(sides, dtype=parts[0].dtype, device="meta")  # torch.cat imports 70 MB for this device, in 2 s


def _unused(official: Mapping[str, Tensor], family: Family) -> dict[str, Tensor]:
    """Zeros for the tensors that no output depends on; views of one, because a file may claim any width."""
    coarsest = "refinenet4.resConfUnit"
    zeros = {
        key.replace(f"{coarsest}2", f"{coarsest}1"): _zeros(value.shape, value)
        for key, value in official.items()
        if f"{coarsest}2" in key
    }
    if (example := official.get(family.width_of)) is not None:
        for key, shape in family.unused:
            zeros[key] = _zeros([example.shape[-1] if side == _WIDTH else side for side in shape], example)
    return zeros


def _zeros(shape: Sequence[int], like: Tensor) -> Tensor:
    return torch.zeros((), dtype=like.dtype, device=like.device).expand(shape)
