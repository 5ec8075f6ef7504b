import dataclasses
import json

import pytest

from sana_streaming.config import (
    PRESETS,
    DiTConfig,
    ModelConfig,
    SamplerConfig,
    TaughtEdit,
    TextConfig,
    from_dict,
    nano,
    to_dict,
    two_b,
)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_json_round_trip(preset):
    edits = {
        "neon": TaughtEdit("look", "trace the scene in glowing neon lines", strong=True),
        "recolor": TaughtEdit("object", "make the car red", choices=("red", "dark blue")),
    }
    config = dataclasses.replace(preset(), edits=edits)
    assert from_dict(ModelConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_an_edit_may_be_an_example_alone():
    values = to_dict(nano()) | {"edits": {"sepia": "give the video a sepia tone"}}
    assert from_dict(ModelConfig, values).edits == {"sepia": TaughtEdit("look", "give the video a sepia tone")}


def test_unknown_key_of_an_edit_is_refused():
    values = to_dict(nano()) | {"edits": {"sepia": {"kind": "look", "example": "sepia", "weak": True}}}
    with pytest.raises(ValueError, match=r"TaughtEdit: unknown keys \['weak'\]"):
        from_dict(ModelConfig, values)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_parts_of_a_preset_fit_together(preset):
    config = preset()
    assert config.dit.latent_channels == config.codec.latent_channels
    assert config.dit.text_dim == config.text.dim
    assert config.dit.head_dim * config.dit.heads == config.dit.dim
    assert PRESETS[config.name] is preset


def test_softmax_blocks_close_each_group():
    assert sorted(two_b().dit.softmax_blocks) == [3, 7, 11, 15, 19]
    assert sorted(nano().dit.softmax_blocks) == [3, 7]


@pytest.mark.parametrize(
    ("depth", "ratio", "blocks"),
    [(6, 0.0, []), (6, 0.1, [5]), (6, 0.5, [1, 3, 5]), (7, 0.3, [2, 6]), (3, 1.0, [0, 1, 2])],
)
def test_softmax_blocks_of_any_depth(depth, ratio, blocks):
    config = dataclasses.replace(nano().dit, depth=depth, softmax_ratio=ratio)
    assert sorted(config.softmax_blocks) == blocks


def test_unknown_key_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"TextConfig: unknown keys \['max_token'\]; known keys are .*'max_tokens'"):
        from_dict(TextConfig, {"kind": "minilm", "dim": 384, "max_token": 64})


def test_unknown_key_inside_is_refused():
    values = to_dict(nano())
    values["dit"]["dropout"] = 0.1
    with pytest.raises(ValueError, match=r"DiTConfig: unknown keys \['dropout'\]"):
        from_dict(ModelConfig, values)


def test_missing_key_is_named():
    values = to_dict(nano())
    del values["codec"]["stride"]
    with pytest.raises(ValueError, match=r"CodecConfig: missing keys \['stride'\]"):
        from_dict(ModelConfig, values)


def test_defaults_may_be_left_out():
    config = from_dict(DiTConfig, {"latent_channels": 4, "dim": 8, "depth": 1, "heads": 2, "text_dim": 3, "ffn_dim": 5})
    assert config.window == 3
    assert config.head_dim == 4


def test_open_window_survives_json():
    config = dataclasses.replace(nano().dit, window=None)
    assert from_dict(DiTConfig, json.loads(json.dumps(to_dict(config)))).window is None


def test_dim_must_be_a_multiple_of_heads():
    with pytest.raises(ValueError, match="dim=320, heads=7"):
        dataclasses.replace(nano().dit, heads=7)


@pytest.mark.parametrize("schedule", [(0.5, 1.0), (1.0, 0.0), (1.5, 1.0), (1.0, -0.5)], ids=str)
def test_schedule_must_fall_from_one_and_stay_above_zero(schedule):
    with pytest.raises(ValueError, match="schedule must fall"):
        SamplerConfig(first_chunk=2, chunk=2, steps=4, shift=3.0, schedules=(schedule,))


def test_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        nano().size = 512
