"""The report's table of rounds."""

from server.report.federation import _verdict_counts


def test_verdicts_are_counted_in_experts_and_trunk() -> None:
    def verdict(block: str, outcome: str) -> dict[str, str]:
        return {"block": block, "outcome": outcome}

    every = [verdict(f"experts.0.{number}", "unanimous") for number in range(3)]
    event = {"outcomes": {"unanimous": 4}}
    assert _verdict_counts([*every, verdict("trunk", "unanimous")], event) == "3 experts + trunk unanimous"
    assert _verdict_counts([*every, verdict("trunk", "median")], event) == "3 experts unanimous, trunk median"
    assert _verdict_counts([], event) == "4 blocks unanimous"
