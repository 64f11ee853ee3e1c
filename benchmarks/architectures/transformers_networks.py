"""Networks of transformers: text, speech, pictures and pairs of them, two layers each."""

from __future__ import annotations

from typing import Any

from benchmarks.architectures.case import Case

# What makes any configuration small; a configuration takes the rows that it knows.
TINY: dict[str, Any] = {
    "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 16, "intermediate_size": 96, "vocab_size": 320, "max_position_embeddings": 64,
    "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, "n_inner": 96, "embedding_size": 32,
    "d_model": 64, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 96, "decoder_ffn_dim": 96, "num_layers": 2,
    "num_decoder_layers": 2, "d_ff": 96, "d_kv": 16, "num_heads": 4, "n_heads": 4, "n_layers": 2,
    "dim": 64, "hidden_dim": 96, "ffn_dim": 96, "ffn_hidden_size": 96, "word_embed_proj_dim": 64,
    "state_size": 8, "num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 32, "n_routed_experts": 4, "projection_dim": 32, "image_size": 64,
    "patch_size": 16, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
    "decoder_start_token_id": 2, "type_vocab_size": 2, "d_embed": 64, "num_mel_bins": 16,
    "max_source_positions": 32, "max_target_positions": 64, "emb_dim": 64, "d_inner": 96,
    "d_head": 16, "n_ctx": 64, "scale_attn_weights": True, "attention_window": 8,
}  # fmt: skip

SPEECH: dict[str, Any] = {
    "conv_dim": (32, 32, 32), "conv_stride": (4, 2, 2), "conv_kernel": (8, 3, 3),
    "num_feat_extract_layers": 3, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip

ENCODERS = (
    "Bert", "Roberta", "Albert", "Electra", "DistilBert", "DebertaV2", "Deberta", "MPNet",
    "MobileBert", "ConvBert", "Camembert", "XLMRoberta", "Funnel", "LayoutLM", "Lilt", "FNet",
    "RoFormer", "Splinter", "SqueezeBert", "Ernie", "BigBird", "Nystromformer", "RemBert",
    "Esm", "MegatronBert", "ModernBert", "XLNet", "XLM", "Flaubert", "Data2VecText", "IBert",
    "MarkupLM", "Canine", "NomicBert", "Perceiver",
)  # fmt: skip
DECODERS = (
    "GPT2", "Llama", "Mistral", "Mixtral", "Qwen2", "Qwen3", "Qwen2Moe", "Qwen3Moe", "Gemma",
    "Gemma2", "Gemma3Text", "Phi", "Phi3", "OPT", "Bloom", "Falcon", "Mpt", "GPTNeoX", "GPTNeo",
    "GPTJ", "CodeGen", "StableLm", "Starcoder2", "Cohere", "Olmo", "Olmo2", "Granite", "Glm",
    "Nemotron", "Persimmon", "BioGpt", "XGLM", "GPTBigCode", "Helium", "SmolLM3", "Mamba",
    "Mamba2", "DeepseekV3", "OpenAIGPT", "CTRL", "Rwkv", "RecurrentGemma",
)  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "Mistral": {"sliding_window": 8},
    "Gemma2": {"sliding_window": 8},
    "Gemma3Text": {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "Falcon": {"head_dim": None, "new_decoder_architecture": False, "alibi": False},
    "Bloom": {"hidden_size": 64, "n_head": 4},
    "GPTNeo": {"attention_types": [[["global", "local"], 1]], "window_size": 8, "num_heads": 4},
    "GPTJ": {"rotary_dim": 8},
    "CodeGen": {"rotary_dim": 8},
    "DeepseekV3": {
        "q_lora_rank": 32,
        "kv_lora_rank": 16,
        "qk_rope_head_dim": 8,
        "v_head_dim": 16,
        "qk_nope_head_dim": 8,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 1,
        "num_key_value_heads": 4,
        "head_dim": 8,
    },
    "BigBird": {"attention_type": "original_full"},
    "Funnel": {
        "num_hidden_layers": None,
        "block_sizes": [1, 1],
        "num_decoder_layers": 1,
        "d_model": 64,
        "n_head": 4,
    },
    "Mamba2": {"num_heads": 8, "head_dim": 16, "n_groups": 1, "chunk_size": 8},
    "ModernBert": {"local_attention": 8},
    "Nystromformer": {"num_landmarks": 4, "segment_means_seq_len": 16},
    "MobileBert": {"intra_bottleneck_size": 64},
    "Perceiver": {
        "num_latents": 8,
        "d_latents": 64,
        "d_model": 64,
        "num_self_attends_per_block": 2,
    },
    "RecurrentGemma": {
        "lru_width": 64,
        "attention_window_size": 8,
        "block_types": ("recurrent", "attention"),
    },
    "SqueezeBert": {"embedding_size": 64},
    "XLNet": {"max_position_embeddings": None},
    "ProphetNet": {"num_hidden_layers": None, "num_encoder_layers": 2},
    "ConvBert": {"conv_kernel_size": 3},
    "Canine": {"num_hash_buckets": 64, "downsampling_rate": 4, "local_transformer_stride": 8},
    "Rwkv": {"attention_hidden_size": 64, "context_length": 64},
}

PAIRS = (
    "T5", "MT5", "UMT5", "Bart", "MBart", "Marian", "Pegasus", "Blenderbot", "BlenderbotSmall",
    "M2M100", "LongT5", "SwitchTransformers", "ProphetNet", "PLBart", "Mvp", "FSMT", "LED",
    "T5Gemma",
)  # fmt: skip

VISION: dict[str, tuple[str, dict[str, Any]]] = {
    "ViTModel": ("vit", {}),
    "DeiTModel": ("deit", {}),
    "BeitModel": ("beit", {"use_relative_position_bias": True}),
    "ViTMAEForPreTraining": ("vitmae", {}),
    "Dinov2Model": ("dinov2", {}),
    "Dinov2WithRegistersModel": ("dinov2_registers", {}),
    "DINOv3ViTModel": ("dinov3", {}),
    "IJepaModel": ("ijepa", {}),
    "SwinModel": (
        "swin",
        {"depths": [2, 2], "num_heads": [2, 4], "embed_dim": 32, "window_size": 2},
    ),
    "Swinv2Model": (
        "swinv2",
        {"depths": [2, 2], "num_heads": [2, 4], "embed_dim": 32, "window_size": 4, "patch_size": 4},
    ),
    "Swin2SRForImageSuperResolution": (
        "swin2sr",
        {
            "depths": [2, 2],
            "num_heads": [2, 2],
            "embed_dim": 32,
            "window_size": 4,
            "image_size": 16,
            "patch_size": 1,
        },
    ),
    "ConvNextModel": (
        "convnext",
        {"depths": [1, 1, 2, 1], "hidden_sizes": [16, 32, 48, 64], "patch_size": 4},
    ),
    "ConvNextV2Model": (
        "convnextv2",
        {"depths": [1, 1, 2, 1], "hidden_sizes": [16, 32, 48, 64], "patch_size": 4},
    ),
    "PvtModel": (
        "pvt",
        {
            "num_attention_heads": [1, 2, 4, 8],
            "depths": [1, 1, 1, 1],
            "hidden_sizes": [16, 32, 48, 64],
        },
    ),
    "PvtV2Model": ("pvtv2", {"depths": [1, 1, 1, 1], "hidden_sizes": [16, 32, 40, 64]}),
    "FocalNetModel": (
        "focalnet",
        {
            "depths": [1, 1],
            "embed_dim": 32,
            "patch_size": 4,
            "focal_levels": [2, 2],
            "focal_windows": [3, 3],
        },
    ),
    "SegformerForSemanticSegmentation": (
        "segformer",
        {"depths": [1, 1, 1, 1], "hidden_sizes": [16, 32, 40, 64], "decoder_hidden_size": 32},
    ),
    "GLPNForDepthEstimation": (
        "glpn",
        {"depths": [1, 1, 1, 1], "hidden_sizes": [16, 32, 40, 64], "decoder_hidden_size": 16},
    ),
    "DPTForDepthEstimation": (
        "dpt",
        {
            "backbone_out_indices": [0, 1, 1, 1],
            "neck_hidden_sizes": [16, 24, 32, 48],
            "fusion_hidden_size": 24,
            "num_hidden_layers": 2,
        },
    ),
    "YolosForObjectDetection": (
        "yolos",
        {"num_detection_tokens": 8, "image_size": [64, 64], "num_hidden_layers": 3},
    ),
    "ResNetModel": (
        "hf_resnet",
        {"hidden_sizes": [32, 64, 96, 128], "depths": [1, 1, 2, 1], "embedding_size": 32},
    ),
    "RegNetModel": (
        "hf_regnet",
        {"hidden_sizes": [32, 64, 96, 128], "depths": [1, 1, 2, 1], "groups_width": 16},
    ),
    "BitModel": (
        "bit",
        {
            "hidden_sizes": [32, 64, 96, 128],
            "depths": [1, 1, 2, 1],
            "num_groups": 8,
            "embedding_size": 32,
        },
    ),
    "MobileNetV1Model": ("hf_mobilenetv1", {"depth_multiplier": 0.25}),
    "MobileNetV2Model": ("hf_mobilenetv2", {"depth_multiplier": 0.35}),
    "MobileViTModel": (
        "hf_mobilevit",
        {
            "hidden_sizes": [32, 48, 64],
            "neck_hidden_sizes": [8, 16, 24, 32, 40, 48, 64],
            "patch_size": 2,
        },
    ),
    "MobileViTV2Model": ("hf_mobilevitv2", {"width_multiplier": 0.25, "patch_size": 2}),
    "EfficientNetModel": (
        "hf_efficientnet",
        {"width_coefficient": 0.25, "depth_coefficient": 0.3, "hidden_dim": 320},
    ),
    "PoolFormerModel": (
        "hf_poolformer",
        {"depths": [1, 1, 1, 1], "hidden_sizes": [16, 32, 48, 64], "patch_size": 7},
    ),
    "LevitModel": (
        "hf_levit",
        {
            "depths": [1, 1, 1],
            "hidden_sizes": [32, 48, 64],
            "key_dim": [8, 8, 8],
            "num_attention_heads": [2, 3, 4],
        },
    ),
    "SwiftFormerModel": (
        "hf_swiftformer",
        {"depths": [1, 1, 1, 1], "embed_dims": [16, 24, 32, 48]},
    ),
    "HieraModel": (
        "hf_hiera",
        {
            "depths": [1, 1, 1, 1],
            "embed_dim": 32,
            "image_size": [64, 64],
            "patch_size": [7, 7],
            "num_heads": [1, 2, 4, 8],
        },
    ),
    "TextNetModel": ("textnet", {}),
    "DetrForObjectDetection": ("detr", {"use_timm_backbone": False, "num_queries": 8}),
    "ConditionalDetrForObjectDetection": ("conditional_detr", {"num_queries": 8}),
    "DeformableDetrForObjectDetection": ("deformable_detr", {"num_queries": 8}),
    "RTDetrForObjectDetection": (
        "rt_detr",
        {"num_queries": 8, "encoder_hidden_dim": 64, "decoder_layers": 2},
    ),
    "Mask2FormerForUniversalSegmentation": ("mask2former", {"num_queries": 8}),
    "UperNetForSemanticSegmentation": ("upernet", {}),
    "SamVisionModel": (
        "sam_encoder",
        {
            "num_hidden_layers": 2,
            "output_channels": 32,
            "window_size": 2,
            "global_attn_indexes": [1],
            "mlp_dim": 96,
        },
    ),
    "VitDetModel": ("vitdet", {"window_size": 2}),
    "ViTMSNModel": ("vitmsn", {}),
    "SuperPointForKeypointDetection": ("superpoint", {}),
    "SiglipVisionModel": ("siglip_vision", {}),
    "CLIPVisionModelWithProjection": ("clip_vision", {}),
    "BlipVisionModel": ("blip_vision", {}),
    "DonutSwinModel": (
        "donut_swin",
        {"depths": [2, 2], "num_heads": [2, 4], "embed_dim": 32, "window_size": 4, "patch_size": 4},
    ),
    "ImageGPTModel": ("imagegpt", {}),
    "DepthAnythingForDepthEstimation": ("depth_anything", {}),
    "VitPoseForPoseEstimation": ("vitpose", {}),
}

OTHERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    # name: (class, kind of inputs, settings)
    "wav2vec2": ("Wav2Vec2Model", "wave", SPEECH),
    "wav2vec2_ctc": ("Wav2Vec2ForCTC", "wave", {**SPEECH, "feat_extract_norm": "layer"}),
    "hubert": ("HubertModel", "wave", SPEECH),
    "wavlm": ("WavLMModel", "wave", {**SPEECH, "num_buckets": 32}),
    "unispeech": ("UniSpeechModel", "wave", SPEECH),
    "unispeech_sat": ("UniSpeechSatModel", "wave", SPEECH),
    "data2vec_audio": ("Data2VecAudioModel", "wave", SPEECH),
    "sew": ("SEWModel", "wave", {**SPEECH, "squeeze_factor": 2}),
    "wav2vec2_conformer": (
        "Wav2Vec2ConformerModel",
        "wave",
        {**SPEECH, "conv_depthwise_kernel_size": 7},
    ),
    "wav2vec2_bert": (
        "Wav2Vec2BertModel",
        "features",
        {"feature_projection_input_dim": 16, "conv_depthwise_kernel_size": 7},
    ),
    "ast": (
        "ASTModel",
        "spectrogram",
        {"max_length": 64, "frequency_stride": 8, "time_stride": 8, "patch_size": 8},
    ),
    "whisper_encoder": ("WhisperModel.encoder", "mel", {}),
    "whisper": ("WhisperForConditionalGeneration", "mel_text", {}),
    "speech_to_text": (
        "Speech2TextModel",
        "features_text",
        {"input_feat_per_channel": 16, "conv_channels": 32},
    ),
    "moonshine_encoder": (
        "MoonshineModel.encoder",
        "wave",
        {
            "encoder_num_attention_heads": 4,
            "encoder_num_hidden_layers": 2,
            "decoder_num_attention_heads": 4,
            "encoder_num_key_value_heads": 4,
            "decoder_num_key_value_heads": 4,
        },
    ),
    "encodec_encoder": ("EncodecModel.encoder", "sound", {"num_filters": 8, "hidden_size": 32}),
    "encodec_decoder": ("EncodecModel.decoder", "codes", {"num_filters": 8, "hidden_size": 32}),
    "dac_encoder": (
        "DacModel.encoder",
        "sound",
        {"encoder_hidden_size": 8, "decoder_hidden_size": 64, "hidden_size": 32},
    ),
    "dac_decoder": (
        "DacModel.decoder",
        "codes",
        {"encoder_hidden_size": 8, "decoder_hidden_size": 64, "hidden_size": 32},
    ),
    "speecht5_hifigan": (
        "SpeechT5HifiGan",
        "vocoder",
        {"model_in_dim": 16, "upsample_initial_channel": 32},
    ),
    "univnet": (
        "UnivNetModel",
        "univnet",
        {"model_in_channels": 8, "model_hidden_channels": 8, "num_mel_bins": 16},
    ),
    "clip": ("CLIPModel", "picture_text", {}),
    "siglip": ("SiglipModel", "picture_text", {}),
    "chinese_clip": ("ChineseCLIPModel", "picture_text", {}),
    "altclip": ("AltCLIPModel", "picture_text", {}),
    "clipseg": (
        "CLIPSegForImageSegmentation",
        "picture_text",
        {"extract_layers": [0, 1], "reduce_dim": 16},
    ),
    "blip": ("BlipForImageTextRetrieval", "picture_text", {}),
    "owlvit": ("OwlViTModel", "picture_text", {}),
    "groupvit": ("GroupViTModel", "picture_text", {}),
    "vilt": ("ViltModel", "picture_text", {}),
    "flava_image": ("FlavaImageModel", "square", {}),
    "git": ("GitModel", "picture_text", {}),
    "bridgetower": ("BridgeTowerModel", "picture_text", {}),
    "visual_bert": ("VisualBertModel", "text", {}),
    "lxmert": (
        "LxmertModel",
        "regions",
        {"visual_feat_dim": 32, "l_layers": 1, "x_layers": 1, "r_layers": 1},
    ),
    "layoutlmv3": ("LayoutLMv3Model", "boxes", {"visual_embed": False}),
    "bros": ("BrosModel", "boxes", {}),
    "trocr_decoder": ("TrOCRForCausalLM", "ids", {}),
    "timesformer": ("TimesformerModel", "video", {"num_frames": 2}),
    "vivit": ("VivitModel", "video", {"num_frames": 2, "tubelet_size": [2, 16, 16]}),
    "patchtst": (
        "PatchTSTModel",
        "series",
        {"context_length": 32, "num_input_channels": 3, "patch_length": 8, "patch_stride": 8},
    ),
    "patchtsmixer": (
        "PatchTSMixerModel",
        "series",
        {"context_length": 32, "num_input_channels": 3, "patch_length": 8, "patch_stride": 8},
    ),
    "vits": ("VitsModel", "text", {}),
    "decision_transformer": ("DecisionTransformerModel", "decision", {}),
}

BOTH = (
    "bert", "roberta", "albert", "distilbert", "deberta_v2", "electra", "modernbert", "mpnet",
    "xlm_roberta", "esm", "convbert", "gpt2", "llama", "mistral", "mixtral", "qwen2", "qwen3",
    "gemma", "gemma2", "gemma3_text", "phi", "phi3", "opt", "bloom", "falcon", "mpt",
    "gpt_neox", "gptj", "mamba", "t5", "bart", "marian", "pegasus", "whisper",
    "whisper_encoder", "wav2vec2", "hubert", "wavlm", "ast", "vit", "dinov2", "swin",
    "convnext", "segformer", "dpt", "yolos", "detr", "sam_encoder", "clip", "siglip", "blip",
    "clip_vision", "olmo2", "granite", "starcoder2", "cohere", "stablelm", "smol_lm3",
)  # fmt: skip


# Classes that are not called by the pattern.
CLASSES = {
    "GPT2": "GPT2LMHeadModel",
    "OpenAIGPT": "OpenAIGPTLMHeadModel",
    "CTRL": "CTRLLMHeadModel",
    "Gemma3Text": "Gemma3ForCausalLM",
    "Marian": "MarianMTModel",
}


def _snake(name: str) -> str:
    special = {
        "DebertaV2": "deberta_v2",
        "XLMRoberta": "xlm_roberta",
        "Gemma3Text": "gemma3_text",
        "GPTNeoX": "gpt_neox",
        "GPTNeo": "gpt_neo",
        "SmolLM3": "smol_lm3",
    }
    return special.get(name, name.lower())


def _rows() -> list[Case]:
    rows: list[Case] = []
    open_text = ("batch", "tokens")
    for name in ENCODERS:
        settings = SETTINGS.get(name, {})
        rows.append(
            Case(
                _snake(name), "transformers", f"{name}Model", settings, "text", open_dims=open_text
            )
        )
    for name in DECODERS:
        settings = SETTINGS.get(name, {})
        network = CLASSES.get(name, f"{name}ForCausalLM")
        row = Case(_snake(name), "transformers", network, settings, "text",
                   open_dims=open_text, call={"use_cache": False})  # fmt: skip
        rows.append(row)
    for name in PAIRS:
        network = CLASSES.get(name, f"{name}ForConditionalGeneration")
        row = Case(
            _snake(name),
            "transformers",
            network,
            SETTINGS.get(name, {}),
            "text_text",
            open_dims=("batch", "tokens", "targets"),
            call={"use_cache": False},
        )
        rows.append(row)
    for network, (name, settings) in VISION.items():
        rows.append(Case(name, "transformers", network, settings, "square"))
    for name, (network, kind, settings) in OTHERS.items():
        rows.append(
            Case(
                name,
                "transformers",
                network,
                settings,
                kind,
                open_dims=("batch", "tokens", "frames"),
            )
        )
    return rows


TRANSFORMERS = _rows()
