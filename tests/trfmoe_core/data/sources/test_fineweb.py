import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.places import ROOT
from tests.trfmoe_core.data.hub.fake_hub import serve, write_repository
from trfmoe_core.config import DataConfig, NodeSettings
from trfmoe_core.data.documents.records import Document
from trfmoe_core.data.formats.reading import Reading
from trfmoe_core.data.sources import OpenContext, OpenedSource, open_sources
from trfmoe_core.data.sources.fineweb import FineWebSource


def settings(**more: object) -> FineWebSource:
    (entry,) = NodeSettings.model_validate({"name": "n", "data": [{"source": "fineweb", **more}]}).data
    assert isinstance(entry, FineWebSource)
    return entry


def opened(cache: Path, **more: object) -> OpenedSource:
    (source,) = open_sources([settings(**more)], OpenContext(DataConfig(), cache))
    return source


def documents(source: OpenedSource) -> list[Document]:
    return [document for unit in source.units for document in Reading(unit)]


def test_the_sample_of_fineweb_is_the_default(tmp_path: Path) -> None:
    assert (settings().repo, settings().config) == ("HuggingFaceFW/fineweb", "sample-10BT")
    assert settings(repo="other/data").config is None
    assert settings(config="CC-MAIN-2024-10").config == "CC-MAIN-2024-10"
    resolved = settings(folder="shards").resolved(lambda path: str(tmp_path / path))
    assert (resolved.repo, resolved.folder) == ("HuggingFaceFW/fineweb", str(tmp_path / "shards"))
    (tmp_path / "copy").mkdir()
    assert settings(repo="copy").resolved(lambda path: str(tmp_path / path)).repo == str(tmp_path / "copy")


def test_a_local_copy_is_read_like_the_hub_and_then_not_again(tmp_path: Path) -> None:
    repo = write_repository(tmp_path / "repo")
    first = documents(opened(tmp_path / "cache", repo=str(repo), config="sample-10BT", max_documents=120))
    assert [document.text for document in first] == [f"Page {n} tells of {n * n} things." for n in range(120)]
    repo.rename(tmp_path / "elsewhere")
    again = opened(tmp_path / "cache", repo=str(repo), config="sample-10BT", max_documents=120)
    assert documents(again) == first
    fewer = opened(tmp_path / "cache", repo=str(repo), config="sample-10BT", max_documents=50)
    assert documents(fewer) == first[:50]
    assert fewer.identity != again.identity
    parts = [
        documents(
            opened(
                tmp_path / "cache",
                repo=str(repo),
                config="sample-10BT",
                max_documents=100,
                partition={"index": index, "of": 3},
            )
        )
        for index in range(3)
    ]
    assert [len(part) for part in parts] == [33, 33, 34]
    assert [document.text for part in parts for document in part] == [document.text for document in first[:100]]


def test_a_data_set_that_ends_early_is_noted(tmp_path: Path) -> None:
    repo = write_repository(tmp_path / "repo")
    source = opened(tmp_path / "cache", repo=str(repo), config="default", max_documents=99)
    assert len(documents(source)) == 10
    assert source.notes == [f"{repo} (default) has only 10 documents, 99 were asked for"]


PROGRAM = """
import json, sys
from pathlib import Path
from tests.trfmoe_core.data.sources.test_fineweb import settings
from trfmoe_core.config import DataConfig
from trfmoe_core.data.hub import download as hub
from trfmoe_core.data.formats.reading import Reading
from trfmoe_core.data.hub.client import HuggingFace
from trfmoe_core.data.sources import OpenContext, open_sources
from trfmoe_core.errors import DataError
hub.time.sleep = lambda seconds: None
answers = []
for case in json.loads(sys.argv[2]):
    offline = case.pop("offline", False)
    context = OpenContext(DataConfig(offline=offline), Path(sys.argv[1]))
    try:
        (source,) = open_sources([settings(**case)], context)
        answers.append([document.text for unit in source.units for document in Reading(unit)])
    except DataError as error:
        answers.append(str(error))
print(json.dumps(answers))
"""


def ask(cache: Path, endpoint: str, cases: list[dict[str, object]]) -> list[object]:
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_TOKEN": "hf_secret", "HF_HOME": str(cache / "hf")}
    environment.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(cache), json.dumps(cases)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    assert isinstance(answers, list)
    return answers


def test_the_hub_answers_or_is_explained(tmp_path: Path) -> None:
    repo = write_repository(tmp_path / "repo")
    data = {"repo": "some/data", "config": "sample-10BT"}
    with serve(repo) as (endpoint, tokens):
        got, more, wrong, gone, closed, busy, kept, missing = ask(
            tmp_path / "cache",
            endpoint,
            [
                {**data, "max_documents": 30},
                {**data, "max_documents": 110},
                {**data, "config": "sample-11BT"},
                {**data, "repo": "some/gone"},
                {**data, "repo": "some/closed"},
                {**data, "repo": "some/busy"},
                {**data, "max_documents": 110, "offline": True},
                {**data, "max_documents": 111, "offline": True},
            ],
        )
    assert got == [f"Page {number} tells of {number * number} things." for number in range(30)]
    assert more == [f"Page {number} tells of {number * number} things." for number in range(110)]
    assert "no configuration 'sample-11BT'; did you mean 'sample-10BT'?" in str(wrong)
    assert "some/gone (sample-10BT): no such folder, and no such data set on the hub" in str(gone)
    assert "it needs permission" in str(closed)
    assert "HF_TOKEN" in str(closed)
    assert "refuses so many requests" in str(busy)
    assert kept == more
    assert "offline (data.offline" in str(missing)
    assert "hf_secret" in tokens


def test_no_network_is_explained(tmp_path: Path) -> None:
    with serve(tmp_path) as (endpoint, _):
        pass
    (answer,) = ask(tmp_path / "cache", endpoint, [{"max_documents": 5}])
    assert "HuggingFaceFW/fineweb (sample-10BT): the hub cannot be reached" in str(answer)
    assert "Connection refused" in str(answer)


@pytest.mark.parametrize("name", ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"])
def test_secrets_stay_out_of_messages_and_folders(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "hf_secret")
    repo = write_repository(tmp_path / "repo")
    opened(tmp_path / "cache", repo=str(repo), config="default")
    for path in (tmp_path / "cache").rglob("*"):
        assert path.is_dir() or b"hf_secret" not in path.read_bytes()
