"""Files of format 1, which polyinr 0.1 wrote, are read as those of format 2."""

import json
from pathlib import Path

import torch
from safetensors.torch import save

from polyinr_core.evaluation.compare import compare
from polyinr_core.evaluation.results import parse_result, read_result
from polyinr_core.evaluation.statistics_io import METADATA_KEY, open_statistics
from polyinr_core.evaluation.tables import table_of
from polyinr_core.metrics.feature_pass import digest_tensors

RESULT = Path(__file__).parent.parent / "format1" / "result.json"


def test_a_format1_result_is_read_compared_and_tabulated() -> None:
    result = read_result(RESULT)
    assert list(result.metrics) == ["fd-lite2", "kd-lite2"]
    assert result.metrics["fd-lite2"]["value"] == 1004.3694416804833
    assert result.fields["quantization",] == "uint8, x * 127.5 + 128, clamped"
    assert result.fields["reals", "kind"] == "images"
    assert result.fields["fakes", "labels"] == "uniform"
    comparison = compare(result, result)
    assert comparison.differences == ()
    assert set(comparison.verdicts) == {"fd-lite2", "kd-lite2"}
    assert [column.name for column in table_of([result, result]).columns] == ["fd-lite2", "kd-lite2"]


def test_keys_of_a_format1_estimate_are_upgraded() -> None:
    metrics = {
        "is": {"value": 2.0, "deviation": 0.5},
        "speed": {"value": 2.0, "least": 1.0, "most": 3.0},
        "pr-lite2/recall": {"value": 0.5},
        "upsampling/drawn": {"value": 3.0},
    }
    rule = "balls to neighbour 3"
    card = {"protocols": {"pr-lite2": {"rule": rule}}}
    data = json.dumps({"format": 1, "figures": metrics, "card": card}).encode()
    result = parse_result(data, Path("x.json"))
    assert result.metrics["is"] == {"value": 2.0, "std": 0.5}
    assert result.metrics["speed"] == {"value": 2.0, "min": 1.0, "max": 3.0}
    assert result.metrics["upsampling/rendered"] == {"value": 3.0}
    assert result.fields["protocols", "pr-lite2", "rule"] == "balls to neighbor 3"


def test_format1_statistics_are_read(tmp_path: Path) -> None:
    tensors = {"0.mean": torch.rand(3, dtype=torch.float64), "0.scatter": torch.eye(3, dtype=torch.float64)}
    facts = {
        "format": 1,
        "pictures": {"kind": "pictures", "name": "x.zip", "count": 2},
        "side": 16,
        "count": 2,
        "senses": [["lite2", "pooled"]],
        "networks": {"lite2": {"name": "lite2", "sha256": "ab", "side": 128}},
        "libraries": {"torch": "2"},
        "digest": digest_tensors(tensors),
    }
    path = tmp_path / "s.safetensors"
    path.write_bytes(save(tensors, metadata={METADATA_KEY: json.dumps(facts)}))
    statistics = open_statistics(path)
    assert (statistics.resolution, statistics.count, statistics.provenance["kind"]) == (16, 2, "images")
    assert statistics.networks["lite2"]["resolution"] == 128
    assert torch.equal(statistics.statistics["lite2", "pooled"].moments.mean, tensors["0.mean"])
