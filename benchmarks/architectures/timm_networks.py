"""Networks of timm: convolutions, transformers, mixers and what lies between."""

from __future__ import annotations

from typing import Any

from benchmarks.architectures.case import Case

FREE = ("batch", "height", "width")

# Fully convolutional up to the pooled head: pictures of any size, in and out of the traced one.
ANY_SIZE = (
    "resnet18", "resnet26t", "resnet10t", "resnext50_32x4d", "seresnet33ts", "ecaresnet26t",
    "wide_resnet50_2", "resnetblur18", "resnetv2_18", "resnetv2_50x1_bit", "resnetrs50",
    "gcresnext26ts", "eca_resnext26ts", "bat_resnext26ts", "skresnet18", "legacy_seresnet18",
    "legacy_seresnext26_32x4d", "res2net50_14w_8s", "res2next50", "resnest14d", "resnest26d",
    "regnetx_002", "regnety_002", "regnetz_b16", "regnetv_040", "dla34", "dla46x_c",
    "dla60_res2net", "dpn48b", "dpn68", "densenet121", "densenetblur121d", "vgg11", "vgg11_bn",
    "inception_v3", "inception_v4", "inception_resnet_v2", "legacy_xception", "xception41",
    "xception41p", "efficientnet_b0", "efficientnet_b0_gn", "efficientnet_lite0",
    "efficientnetv2_rw_t", "tf_efficientnet_b0", "tf_efficientnetv2_b0", "mixnet_s",
    "mnasnet_small", "mnasnet_100", "semnasnet_075", "fbnetc_100", "spnasnet_100", "fbnetv3_b",
    "tinynet_e", "lcnet_050", "lcnetv2_small", "mobilenetv1_100", "mobilenetv2_050",
    "mobilenetv3_small_050", "mobilenetv3_large_075", "mobilenetv4_conv_small",
    "mobilenetv4_hybrid_medium", "hardcorenas_a", "ghostnet_050", "ghostnetv2_100",
    "ghostnetv3_050", "repghostnet_050", "rexnet_100", "rexnetr_100", "selecsls42",
    "hrnet_w18_small", "vovnet39a", "ese_vovnet19b_slim_dw", "eca_vovnet39b", "cspresnet50",
    "cspdarknet53", "cs3darknet_focus_s", "cs3sedarknet_l", "cspnext_tiny", "gernet_s",
    "repvgg_a0", "mobileone_s0", "tresnet_m", "eca_nfnet_l0", "nf_regnet_b0", "nf_resnet26",
    "dm_nfnet_f0", "convnext_atto", "convnext_atto_rms", "convnextv2_atto",
    "inception_next_atto", "rdnet_tiny", "hgnet_tiny", "hgnetv2_b0", "starnet_s050",
    "repvit_m0_9", "fasternet_t0", "edgenext_xx_small", "poolformer_s12", "poolformerv2_s12",
    "convformer_s18", "mambaout_femto", "efficientvit_b0", "shvit_s1", "swiftformer_xs",
    "ese_vovnet19b_dw", "darknet53", "fastvit_t8", "mobilevit_xxs", "mobilevitv2_050",
    "lowformer_b0", "cpubone_nano", "test_efficientnet_evos",
)  # fmt: skip

# Too deep or wide to compile in seconds: fewer blocks, the same shapes of block.
SMALLER: dict[str, dict[str, Any]] = {
    "convnext_atto": {"depths": (1, 1, 2, 1)},
    "convnextv2_atto": {"depths": (1, 1, 2, 1)},
}
_AT_96 = ("inception_v3", "inception_v4", "inception_resnet_v2", "legacy_xception", "selecsls42")
LARGER = dict.fromkeys(_AT_96, 96)

VIT = {"depth": 2, "embed_dim": 64, "num_heads": 4}
FIXED_SIZE: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": VIT,
    "vit_small_patch32_224": VIT,
    "vit_tiny_r_s16_p8_224": VIT,
    "vit_base_patch16_siglip_224": VIT,
    "vit_base_patch16_clip_224": VIT,
    "vit_base_patch16_rpn_224": VIT,
    "vit_relpos_small_patch16_224": VIT,
    "vit_srelpos_small_patch16_224": VIT,
    "vit_small_r26_s32_224": VIT,
    "deit_tiny_patch16_224": VIT,
    "deit_tiny_distilled_patch16_224": VIT,
    "deit3_small_patch16_224": VIT,
    "beit_base_patch16_224": VIT,
    "beitv2_base_patch16_224": VIT,
    "eva02_tiny_patch14_224": {**VIT, "patch_size": 16},
    "samvit_base_patch16_224": {**VIT, "window_size": 2, "global_attn_indexes": (1,)},
    "cait_xxs24_224": VIT,
    "xcit_nano_12_p16_224": {"depth": 2, "embed_dim": 64},
    "convit_tiny": {**VIT, "local_up_to_layer": 1, "embed_dim": 16},
    "tnt_s_patch16_224": {"depth": 2},
    "volo_d1_224": {},
    "crossvit_tiny_240": {"depth": ((1, 1, 0), (1, 1, 0))},
    "coat_lite_tiny": {},
    "levit_128s": {},
    "levit_conv_128s": {},
    "pit_ti_224": {},
    "pvt_v2_b0": {"depths": (1, 1, 1, 1)},
    "twins_pcpvt_small": {"depths": (1, 1, 1, 1)},
    "twins_svt_small": {"depths": (1, 1, 2, 1)},
    "swin_tiny_patch4_window7_224": {"depths": (2, 2), "num_heads": (2, 4), "embed_dim": 32},
    "swin_s3_tiny_224": {"depths": (2, 2, 2, 2)},
    "swinv2_tiny_window8_256": {"depths": (2, 2), "num_heads": (2, 4), "embed_dim": 32},
    "swinv2_cr_tiny_ns_224": {"depths": (2, 2), "num_heads": (2, 4), "embed_dim": 32},
    "maxvit_pico_rw_256": {},
    "coatnet_pico_rw_224": {},
    "maxxvitv2_nano_rw_256": {},
    "efficientformer_l1": {},
    "efficientformerv2_s0": {},
    "efficientvit_m0": {},
    "davit_tiny": {"depths": (1, 1, 1, 1)},
    "focalnet_tiny_srf": {},
    "gcvit_xxtiny": {},
    "hiera_tiny_224": {"stages": (1, 1, 1, 1)},
    "sam2_hiera_tiny": {},
    "mvitv2_tiny": {},
    "nest_tiny": {},
    "nextvit_small": {},
    "caformer_s18": {},
    "mixer_s32_224": {},
    "gmixer_12_224": {},
    "gmlp_ti16_224": {},
    "resmlp_12_224": {},
    "sequencer2d_s": {"layers": (1, 1, 1, 1)},
    "tiny_vit_5m_224": {},
    "visformer_tiny": {},
    "vitamin_small_224": {},
    "lambda_resnet26t": {},
    "halonet26t": {},
    "botnet26t_256": {},
    "iformer_t": {},
    "efficientvim_m1": {},
}
# Windows and stages that fit no smaller picture.
_AT_224 = (
    "swin_s3_tiny_224", "twins_svt_small", "nest_tiny", "levit_128s", "levit_conv_128s",
    "convit_tiny", "visformer_tiny", "efficientvit_m0", "tiny_vit_5m_224",
)  # fmt: skip
SIZES = {**dict.fromkeys(_AT_224, 224), "crossvit_tiny_240": 240}

# Those that the second exporter is tried on as well.
BOTH = (
    "resnet18", "resnest14d", "regnety_002", "densenet121", "efficientnet_b0",
    "mobilenetv3_small_050", "mobilenetv4_conv_small", "ghostnet_050", "convnext_atto",
    "convnextv2_atto", "repvgg_a0", "mobileone_s0", "inception_v3", "dpn48b", "hrnet_w18_small",
    "edgenext_xx_small", "poolformer_s12", "mobilevit_xxs", "fastvit_t8", "rexnet_100",
    "eca_nfnet_l0", "gcresnext26ts", "mixnet_s", "vit_tiny_patch16_224",
    "deit3_small_patch16_224", "beit_base_patch16_224", "eva02_tiny_patch14_224",
    "cait_xxs24_224", "xcit_nano_12_p16_224", "volo_d1_224", "coat_lite_tiny",
    "swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "twins_pcpvt_small", "pvt_v2_b0",
    "maxvit_pico_rw_256", "davit_tiny", "focalnet_tiny_srf", "mixer_s32_224", "gmlp_ti16_224",
    "sequencer2d_s", "levit_128s", "tiny_vit_5m_224", "halonet26t",
    "vit_relpos_small_patch16_224",
)  # fmt: skip


def _rows() -> list[Case]:
    rows: list[Case] = []
    for name in ANY_SIZE:
        size, settings = LARGER.get(name, 64), SMALLER.get(name, {})
        rows.append(Case(name, "timm", name, settings, size=size, open_dims=FREE))
    for name, settings in FIXED_SIZE.items():
        rows.append(Case(name, "timm", name, settings, "square", SIZES.get(name, 64)))
    return rows


TIMM = _rows()
