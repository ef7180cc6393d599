import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.places import ROOT
from tests.trfmoe_core.data.hub.fake_hub import serve

PROGRAM = """
import sys
{first}
from trfmoe_core.config import DataConfig
from trfmoe_core.data.hub.offline import keep_offline
from trfmoe_core.data.tokenizers import load_tokenizer
from trfmoe_core.errors import DataError
keep_offline(DataConfig(offline={offline}))
try:
    load_tokenizer("some/data")
except DataError as error:
    print(error)
"""


@pytest.mark.parametrize("first", ["", "import huggingface_hub.constants"])
@pytest.mark.parametrize("offline", [True, False])
def test_offline_asks_nobody_and_online_does(tmp_path: Path, first: str, offline: bool) -> None:
    environment = {**os.environ, "HF_HOME": str(tmp_path)}
    environment.pop("HF_HUB_OFFLINE", None)
    with serve(tmp_path) as (endpoint, asked):
        program = PROGRAM.format(first=first, offline=offline)
        done = subprocess.run(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**environment, "HF_ENDPOINT": endpoint},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert "tokenizer 'some/data'" in done.stdout, done.stderr
    assert bool(asked) != offline
