import gzip
import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from trfmoe_core.data.documents.reports import printable
from trfmoe_core.data.sources.digests import DigestCache
from trfmoe_core.data.sources.find import find_files
from trfmoe_core.errors import DataError


def statuses(folder: Path) -> dict[str, str]:
    found = find_files([str(folder)])
    return {os.fsdecode(file.path.relative_to(folder)): file.report.status if file.report else "" for file in found}


def test_only_regular_files_of_known_kinds_are_opened(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("one")
    (folder / "sub" / "B.MD").write_text("two")
    (folder / "empty.jsonl").touch()
    (folder / "same.txt").write_text("one")
    (folder / "x.exe").write_text("three")
    os.mkfifo(folder / "pipe.txt")
    server = socket.socket(socket.AF_UNIX)
    server.bind(os.path.relpath(folder / "s.pdf"))
    (tmp_path / "outside.txt").write_text("four")
    (folder / "out.txt").symlink_to(tmp_path / "outside.txt")
    (folder / "in.txt").symlink_to("sub/B.MD")
    (folder / "gone.txt").symlink_to("nothing.txt")
    (folder / "loop").symlink_to(folder)
    (folder / "away").symlink_to(tmp_path)
    assert statuses(folder) == {
        "a.txt": "",
        "away": "unsupported",
        "empty.jsonl": "empty",
        "gone.txt": "unreadable",
        "in.txt": "",
        "loop": "unsupported",
        "out.txt": "unsupported",
        "pipe.txt": "unsupported",
        "s.pdf": "unsupported",
        "same.txt": "duplicate",
        "sub/B.MD": "duplicate",
        "x.exe": "unsupported",
    }
    server.close()


def test_files_that_only_a_system_wrote_are_skipped_and_counted(tmp_path: Path) -> None:
    names = ["._a.txt", "~$a.txt", ".DS_Store", "Thumbs.db", "sub/__MACOSX/b.txt", "__MACOSX/._b.pdf"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("nothing that its owner wrote")
    (tmp_path / "a.txt").write_text("text")
    assert statuses(tmp_path) == {"a.txt": "", **dict.fromkeys(names, "system-file")}
    # A shell's * names them too. One that can be read is read then.
    (tmp_path / "~$a.docx").write_text("who has the document open")
    named = find_files([str(tmp_path / name) for name in ("~$a.docx", "~$a.txt", "a.txt")])
    assert [file.report.status if file.report else "" for file in named] == ["system-file", "", ""]


def test_a_snapshot_of_the_hubs_cache_is_read_as_a_folder(tmp_path: Path, write_parquet: Callable[..., Path]) -> None:
    cache = tmp_path / "datasets--some--set"
    snapshot = cache / "snapshots" / "abc" / "sample"
    snapshot.mkdir(parents=True)
    (cache / "blobs").mkdir()
    write_parquet(cache / "blobs" / "1f2e3d", text=["one"])
    (cache / "blobs" / "4c5b6a").write_text('{"text": "two"}')
    (snapshot / "000.parquet").symlink_to("../../../blobs/1f2e3d")
    (snapshot / "lines.json").symlink_to("../../../blobs/4c5b6a")
    (snapshot / "out.txt").symlink_to("/etc/hostname")
    expected = {"000.parquet": "", "lines.json": "", "out.txt": "unsupported"}
    assert statuses(snapshot) == expected
    assert statuses(snapshot.parent) == {f"sample/{name}": status for name, status in expected.items()}
    (blob,) = find_files([str(cache / "blobs" / "1f2e3d")])
    assert (blob.kind, blob.note) == ("parquet", "its content is parquet")


def test_content_under_a_wrong_suffix_is_recognised(tmp_path: Path, write_parquet: Callable[..., Path]) -> None:
    write_parquet(tmp_path / "rows.jsonl", text=["one"])
    (tmp_path / "page.txt").write_bytes(b"%PDF-1.7 and more")
    (tmp_path / "pdf.pdf.gz").write_bytes(gzip.compress(b"%PDF-1.7 and more"))
    found = {file.path.name: file for file in find_files([str(tmp_path)])}
    kinds = {name: file.kind for name, file in found.items()}
    assert kinds == {"rows.jsonl": "parquet", "page.txt": "pdf", "pdf.pdf.gz": "other"}
    assert found["rows.jsonl"].note == "its content is parquet, its suffix is '.jsonl'"
    refusal = found["pdf.pdf.gz"].report
    assert refusal is not None
    assert refusal.detail == "pdf compressed with gzip; decompress it"


def test_order_is_that_of_the_names_and_of_the_paths_given(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c.txt"):
        (tmp_path / name).write_text(name)
    found = find_files([str(tmp_path / "c.txt"), str(tmp_path)])
    assert [(file.path.name, file.report is None) for file in found] == [
        ("c.txt", True),
        ("a.txt", True),
        ("b.txt", True),
        ("c.txt", False),
    ]


def test_names_are_printed_on_one_line(tmp_path: Path) -> None:
    name = os.fsdecode(b"a\nb\xff\x1b[31m.exe")
    (tmp_path / name).write_text("x")
    (file,) = find_files([str(tmp_path)])
    assert file.report is not None
    file.report.path.encode("ascii")
    assert file.report.path.isprintable()
    assert printable("grün 你.txt") == "grün 你.txt"


def test_unreadable_files_are_reported_in_folders_and_refused_when_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("x")

    def refuse(self: DigestCache, path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(DigestCache, "digest", refuse)
    assert statuses(tmp_path) == {"a.txt": "unreadable"}
    with pytest.raises(DataError, match=r"a\.txt.*Permission denied"):
        find_files([str(tmp_path / "a.txt")])


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_permissions_are_respected(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(DataError, match="closed"):
        find_files([str(tmp_path / "closed")])
    assert statuses(tmp_path) == {"closed": "unreadable"}


def test_wrong_paths_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="name at least one"):
        find_files([])
    with pytest.raises(DataError, match=rf"nope/deep.txt.*\({tmp_path} exists\)"):
        find_files([str(tmp_path / "nope" / "deep.txt")])
    with pytest.raises(DataError, match="embedded null"):
        find_files(["a\0b"])
    (tmp_path / "x.exe").write_text("x")
    with pytest.raises(DataError, match=r"x\.exe.*\.parquet"):
        find_files([str(tmp_path / "x.exe")])
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(DataError, match="no regular file"):
        find_files([str(tmp_path / "pipe.txt")])
