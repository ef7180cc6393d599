"""What `trfmoe bench model` shows of the optimizers; its times decide no test."""

import torch

from scripts.bench.training.optimizers import NAMES, bench_optimizers


def test_every_optimizer_has_a_row_whose_share_follows_from_its_times() -> None:
    threads = torch.get_num_threads()
    try:
        rows = bench_optimizers(1)
    finally:
        torch.set_num_threads(threads)
    assert [row["optimizer"] for row in rows] == list(NAMES)
    for row in rows:
        whole = row["gradients_ms"] + row["update_ms"]
        assert row["gradients_ms"] > 0
        assert row["update_ms"] > 0
        assert abs(row["share_of_step"] - row["update_ms"] / whole) < 0.01
