"""Tiny models of the transformers library with random weights, in folders as ``save_pretrained`` leaves them."""

import json
import string

import torch as th
from safetensors.torch import save_file

SIDE, SIDE_3 = 128, 112
PROMPTS = {"hidden_size": 32, "image_size": SIDE, "patch_size": 16, "mask_input_channels": 8}
DECODER = {"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 4, "iou_head_hidden_dim": 32}
PYRAMID = [[SIDE // 4] * 2, [SIDE // 8] * 2, [SIDE // 16] * 2]
HIERA = {
    "model_type": "sam2_hiera_det_model",
    "hidden_size": 16,
    "image_size": [SIDE, SIDE],
    "blocks_per_stage": [1, 1, 2, 1],
    "embed_dim_per_stage": [16, 32, 64, 128],
    "num_attention_heads_per_stage": [1, 2, 4, 8],
    "window_size_per_stage": [8, 4, 8, 4],
    "global_attention_blocks": [3],
}
REPVIT = {
    "model_type": "timm_wrapper",
    "architecture": "repvit_m0_9",
    "num_classes": 2,
    "model_args": {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
}
VIT_3 = {
    "model_type": "sam3_vit_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE_3,
    "patch_size": 14,
    "window_size": 4,
    "global_attn_indexes": [1],
    "pretrain_image_size": 56,
}
VISION_SAM = {
    "hidden_size": 32,
    "output_channels": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 16,
    "global_attn_indexes": [1],
    "window_size": 4,
    "mlp_dim": 64,
    "num_pos_feats": 16,
}
VISION_2 = {
    "backbone_config": HIERA,
    "backbone_channel_list": [128, 64, 32, 16],
    "backbone_feature_sizes": PYRAMID,
    "fpn_hidden_size": 32,
}
VISION_EDGE = {"backbone_config": REPVIT, "backbone_feature_sizes": PYRAMID, "fpn_hidden_size": 32}
VISION_3 = {
    "model_type": "sam3_vision_model",
    "backbone_config": VIT_3,
    "backbone_feature_sizes": [[SIDE_3 // 14 * k] * 2 for k in (4, 2, 1)],
    "fpn_hidden_size": 32,
}
PROMPTS_3 = {**PROMPTS, "image_size": SIDE_3, "patch_size": 14}
SMALL = {"hidden_size": 32, "num_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
DETECTOR = {
    "vision_config": VISION_3,
    "text_config": {
        "model_type": "clip_text_model",
        "vocab_size": 600,
        "hidden_size": 32,
        "intermediate_size": 64,
        "projection_dim": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 1,
    },
    "geometry_encoder_config": SMALL,
    "detr_encoder_config": SMALL,
    "detr_decoder_config": {**SMALL, "num_queries": 5},
    "mask_decoder_config": {"hidden_size": 32, "num_attention_heads": 2},
}
MEMORY = {
    "memory_attention_hidden_size": 32,
    "memory_attention_feed_forward_hidden_size": 64,
    "memory_attention_num_layers": 1,
    "memory_encoder_hidden_size": 32,
    "memory_encoder_output_channels": 16,
    "mask_downsampler_embed_dim": 32,
    "memory_fuser_embed_dim": 32,
    "memory_fuser_intermediate_dim": 64,
}
TRACKER = {"vision_config": VISION_3, "prompt_encoder_config": PROMPTS_3, "mask_decoder_config": DECODER}
SAM2 = {"vision_config": VISION_2, "prompt_encoder_config": PROMPTS, "mask_decoder_config": DECODER}

MODELS = {
    "sam": ("SamModel", "SamConfig", {**SAM2, "vision_config": VISION_SAM}),
    "sam2": ("Sam2Model", "Sam2Config", SAM2),
    "edgetam": ("EdgeTamModel", "EdgeTamConfig", {**SAM2, "vision_config": VISION_EDGE}),
    "sam3_tracker": ("Sam3TrackerModel", "Sam3TrackerConfig", TRACKER),
    "sam3": ("Sam3Model", "Sam3Config", DETECTOR),
    "sam2_video": ("Sam2VideoModel", "Sam2VideoConfig", {**SAM2, **MEMORY, "image_size": SIDE}),
    "sam3_video": (
        "Sam3VideoModel",
        "Sam3VideoConfig",
        {"detector_config": DETECTOR, "tracker_config": {"model_type": "sam3_tracker_video", **TRACKER, **MEMORY}},
    ),
    "sam_hq": ("SamHQModel", "SamHQConfig", {**SAM2, "vision_config": VISION_SAM}),
}


def build(kind, seed=0):
    """A model with weights large enough that its logits are not all near zero."""
    import transformers

    model_class, config_class, config = MODELS[kind]
    with th.random.fork_rng(devices=[]):
        th.manual_seed(seed)
        model = getattr(transformers, model_class)(getattr(transformers, config_class)(**config)).eval()
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "timm_model" not in name:
                fan = parameter[0].numel()
                parameter.data = th.randn_like(parameter) * (1.2 / fan**0.5 if fan > 3 else 1.0)
    return model


def save(kind, folder, seed=0):
    """The folder, filled."""
    model = build(kind, seed)
    if kind == "sam3_video":  # its save_pretrained gives names that from_pretrained does not know
        model.config.save_pretrained(folder)
        weights = {name: value.contiguous() for name, value in model.state_dict().items()}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        model.save_pretrained(folder)
    if kind in ("sam3", "sam3_video"):
        save_tokenizer(folder)
    return folder


def save_tokenizer(folder):
    """A tokenizer of the CLIP kind that knows letters alone."""
    from transformers import CLIPTokenizer

    words = ["<|startoftext|>", "<|endoftext|>", *string.ascii_lowercase, *(f"{c}</w>" for c in string.ascii_lowercase)]
    CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[]).save_pretrained(folder)


def edit_config(folder, **changes):
    """Change what config.json says."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
