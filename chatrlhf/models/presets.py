"""Models known by a short name. All numbers are arithmetic on the published configs."""

from __future__ import annotations

from dataclasses import dataclass

from chatrlhf.models.memory import WeightCount

EMBEDDED = "embedded"


@dataclass(frozen=True)
class Preset:
    """One model of the hub. ``gated``: its licence must be accepted on the hub first.

    ``download_bytes`` is more than the weights' own size where the checkpoint stores more than
    the language model (a tied LM head twice, or a vision tower).
    """

    name: str
    title: str
    hub_id: str
    licence: str
    weights: WeightCount
    context_tokens: int
    gated: bool = False
    other_weights: int = 0

    @property
    def download_bytes(self) -> int:
        """Size of the weights on the hub: two bytes a parameter."""
        return 2 * (self.weights.total + self.other_weights)


EMBEDDED_PRESET = Preset(
    EMBEDDED,
    "Gemma 3 270M",
    "google/gemma-3-270m",
    "Gemma Terms of Use",
    WeightCount(268_098_176, 167_772_160),
    32768,
)

PRESETS = (
    Preset(
        "smollm2-135m",
        "SmolLM2 135M Instruct",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "Apache-2.0",
        WeightCount(134_515_008, 28_311_552),
        8192,
    ),
    Preset(
        "smollm2-360m",
        "SmolLM2 360M Instruct",
        "HuggingFaceTB/SmolLM2-360M-Instruct",
        "Apache-2.0",
        WeightCount(361_821_120, 47_185_920),
        8192,
    ),
    Preset(
        "qwen3-0.6b",
        "Qwen3 0.6B",
        "Qwen/Qwen3-0.6B",
        "Apache-2.0",
        WeightCount(596_049_920, 155_582_464),
        40960,
        other_weights=155_582_464,
    ),
    Preset(
        "gemma-3-1b",
        "Gemma 3 1B IT",
        "google/gemma-3-1b-it",
        "Gemma Terms of Use",
        WeightCount(999_885_952, 301_989_888),
        32768,
        gated=True,
    ),
    Preset(
        "llama-3.2-1b",
        "Llama 3.2 1B Instruct",
        "meta-llama/Llama-3.2-1B-Instruct",
        "Llama 3.2 Community License",
        WeightCount(1_235_814_400, 262_668_288),
        131072,
        gated=True,
    ),
    Preset(
        "qwen3-1.7b",
        "Qwen3 1.7B",
        "Qwen/Qwen3-1.7B",
        "Apache-2.0",
        WeightCount(1_720_574_976, 311_164_928),
        40960,
        other_weights=311_164_928,
    ),
    Preset(
        "smollm3-3b",
        "SmolLM3 3B",
        "HuggingFaceTB/SmolLM3-3B",
        "Apache-2.0",
        WeightCount(3_075_098_624, 262_668_288),
        65536,
    ),
    Preset(
        "llama-3.2-3b",
        "Llama 3.2 3B Instruct",
        "meta-llama/Llama-3.2-3B-Instruct",
        "Llama 3.2 Community License",
        WeightCount(3_212_749_824, 394_002_432),
        131072,
        gated=True,
    ),
    Preset(
        "phi-4-mini",
        "Phi-4-mini Instruct",
        "microsoft/Phi-4-mini-instruct",
        "MIT",
        WeightCount(3_836_021_760, 614_596_608),
        131072,
    ),
    Preset(
        "gemma-3-4b",
        "Gemma 3 4B IT (its language model)",
        "google/gemma-3-4b-it",
        "Gemma Terms of Use",
        WeightCount(3_880_263_168, 671_252_480),
        131072,
        gated=True,
        other_weights=419_816_304,
    ),
    Preset(
        "qwen3-4b",
        "Qwen3 4B",
        "Qwen/Qwen3-4B",
        "Apache-2.0",
        WeightCount(4_022_468_096, 388_956_160),
        40960,
    ),
    Preset(
        "mistral-7b",
        "Mistral 7B Instruct v0.3",
        "mistralai/Mistral-7B-Instruct-v0.3",
        "Apache-2.0",
        WeightCount(7_248_023_552, 268_435_456),
        32768,
    ),
    Preset(
        "llama-3.1-8b",
        "Llama 3.1 8B Instruct",
        "meta-llama/Llama-3.1-8B-Instruct",
        "Llama 3.1 Community License",
        WeightCount(8_030_261_248, 1_050_673_152),
        131072,
        gated=True,
    ),
    Preset(
        "qwen3-8b",
        "Qwen3 8B",
        "Qwen/Qwen3-8B",
        "Apache-2.0",
        WeightCount(8_190_735_360, 1_244_659_712),
        40960,
    ),
)
