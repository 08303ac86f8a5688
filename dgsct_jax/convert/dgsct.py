"""Checkpoints of the released DG-SCT tasks: backbones, adapters and head in one state dict."""

from dgsct_jax.convert.table import (BATCH_NORM, DENSE, GROUPED, NORM, RAW, TOKEN_MAP, Drop, Table)

COUNTER = Drop('torch counts batches, nothing reads it')

ADAPTER: Table = (
    ('conv_adapter', 'token_map', TOKEN_MAP),
    ('fc', 'channel_map', DENSE),
    ('my_tokens', 'tokens', RAW),
    ('gate_av', 'tokens_gate', RAW),
    # In the released names 'video' is always the adapted stream and 'audio' the guiding one, in audio adapters too.
    ('fc_affine_video_1', 'channel_own', DENSE),
    ('fc_affine_audio_1', 'channel_guide', DENSE),
    ('fc_affine_bottleneck', 'channel_bottleneck', DENSE),
    ('fc_affine_v_c_att', 'channel_out', DENSE),
    ('fc_affine_video_2', 'spatial_own', DENSE),
    ('fc_affine_audio_2', 'spatial_guide', DENSE),
    ('fc_affine_v_s_att', 'spatial_out', DENSE),
    ('temporal_gated.0', 'temporal_gate', DENSE),
    ('ln_before', 'norm_before', NORM),
    ('down_sampler', 'down', GROUPED),
    ('bn1', 'bn_down', BATCH_NORM),
    ('up_sampler', 'up', GROUPED),
    ('bn2', 'bn_up', BATCH_NORM),
    ('ln_post', 'norm_post', NORM),
    ('gate', 'gate', RAW),
    ('bn#.num_batches_tracked', None, COUNTER),
)
UNUSED: dict[str, Table] = {  # what the adapters of a task carry and never read
    'ave': (('gate_tk', None, Drop('never read')),),
    'avqa': (),
    'avvp': (('gate_tk', None, Drop('never read')), ('fc_caption', None, Drop('never read')),
             ('temporal_gated', None, Drop('its result is thrown away'))),
    'avs_s4': (('conv_adapter', None, Drop('a bicubic resize takes its place')),
               ('ln_before', None, Drop('never read')), ('temporal_gated', None, Drop('its result is thrown away'))),
    'avs_ms3': (('ln_before', None, Drop('never read')), ('temporal_gated', None, Drop('never read'))),
    'fewshot': (('gate_tk', None, Drop('never read')), ('fc_caption', None, Drop('never read'))),
}
