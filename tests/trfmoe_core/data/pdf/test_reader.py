import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hostile_files import write_hostile
from tests.places import ROOT
from trfmoe_core.data.pdf import reader as reader_module
from trfmoe_core.data.pdf.reader import WALL_FACTOR, PdfLimits, PdfReader, PdfText
from trfmoe_core.data.sources.find import find_files
from trfmoe_core.errors import DataError


def read(reader: PdfReader, path: Path) -> PdfText:
    (file,) = find_files([str(path)])
    return reader.read(file, path.with_suffix(".out"))


def text_of(reader: PdfReader, path: Path) -> str:
    result = read(reader, path)
    out = path.with_suffix(".out").read_bytes()
    assert (result.size, result.text_sha256) == (len(out), hashlib.sha256(out).hexdigest())
    return out.decode()


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_one_worker_reads_many_files_and_ends_with_the_reader(tmp_path: Path, write_pdf: Callable[..., Path]) -> None:
    good = write_pdf(tmp_path / "good.pdf", [["hello there"]])
    odd = write_pdf(tmp_path / os.fsdecode(b"odd\n\xff.pdf"), [["odd name"]])
    with PdfReader(PdfLimits(60, 512)) as reader:
        assert text_of(reader, good) == "hello there"
        worker = reader._worker
        assert worker is not None
        assert text_of(reader, odd) == "odd name"
        assert reader._worker is worker
        limits = Path(f"/proc/{worker.pid}/limits").read_text()
        assert "unlimited" not in next(line for line in limits.splitlines() if "address space" in line)
    assert worker.poll() is not None


def test_a_worker_that_does_not_answer_is_replaced(tmp_path: Path, write_pdf: Callable[..., Path]) -> None:
    good = write_pdf(tmp_path / "good.pdf", [["hello"]])
    with PdfReader(PdfLimits(60, 512)) as reader:
        read(reader, good)
        first = reader._worker
        assert first is not None
        os.kill(first.pid, signal.SIGSTOP)
        reader._limits = PdfLimits(0.2, 512)
        result = read(reader, good)
        assert (result.status, result.size, result.settled) == ("timeout", 0, False)
        assert f"not done after {0.2 * WALL_FACTOR:g} s" in result.detail
        assert gone(first.pid)
        reader._limits = PdfLimits(60, 512)
        assert read(reader, good).status == "ok"


def test_a_worker_killed_from_outside_costs_no_file(tmp_path: Path, write_pdf: Callable[..., Path]) -> None:
    good = write_pdf(tmp_path / "good.pdf", [["hello"]])
    with PdfReader(PdfLimits(60, 512)) as reader:
        read(reader, good)
        assert reader._worker is not None
        reader._worker.kill()
        reader._worker.wait()
        assert read(reader, good).status == "ok"


def test_an_unforeseen_exception_is_that_files_status(tmp_path: Path, write_pdf: Callable[..., Path]) -> None:
    good = write_pdf(tmp_path / "good.pdf", [["hello there"]])
    with PdfReader(PdfLimits(20, 1024)) as reader:
        assert text_of(reader, good) == "hello there"
        (file,) = find_files([str(good)])
        result = reader.read(file, Path("a name that no file can have \0"))
        assert result.status == "broken"
        assert result.detail.startswith("its reader failed: ValueError at document_text.py:")
        assert text_of(reader, good) == "hello there"


def test_a_file_that_needs_too_much_memory_is_given_up(tmp_path: Path, write_pdf: Callable[..., Path]) -> None:
    big = write_pdf(tmp_path / "big.pdf", [["x" * 100] * 50 for _ in range(400)])
    small = write_pdf(tmp_path / "small.pdf", [["hello"]])
    with PdfReader(PdfLimits(60, 4)) as reader:
        assert read(reader, big).status in ("too-large", "broken")
    with PdfReader(PdfLimits(60, 512)) as reader:
        assert read(reader, small).status == "ok"


def test_the_empty_password_opens_and_others_do_not(tmp_path: Path, write_pdf: Callable[..., Path]) -> None:
    from reportlab.lib.pdfencrypt import StandardEncryption

    opened = write_pdf(tmp_path / "open.pdf", [["for all"]], password=StandardEncryption("", "owner"))  # type: ignore[arg-type]
    locked = write_pdf(tmp_path / "locked.pdf", [["for few"]], password="key")
    with PdfReader(PdfLimits(60, 512)) as reader:
        assert text_of(reader, opened) == "for all"
        assert read(reader, locked).status == "needs-password"


def test_a_bad_page_costs_only_itself(tmp_path: Path, write_pdf: Callable[..., Path]) -> None:
    import pypdf
    from pypdf.generic import DecodedStreamObject, NameObject

    source = write_pdf(tmp_path / "good.pdf", [["first"], ["second"], ["third"]])
    writer = pypdf.PdfWriter(clone_from=source)
    stream = DecodedStreamObject()
    stream.set_data(b"no such thing")
    stream[NameObject("/Filter")] = NameObject("/NoSuchDecode")
    writer.pages[1][NameObject("/Contents")] = writer._add_object(stream)
    writer.write(tmp_path / "bad.pdf")
    with PdfReader(PdfLimits(60, 512), "pypdf") as reader:
        result = read(reader, tmp_path / "bad.pdf")
    assert (result.status, result.pages) == ("partial", 2)
    assert (tmp_path / "bad.out").read_text() == "first\n\f\n\fthird"
    assert "1 of 3 pages lost, first page 2: NotImplementedError" in result.detail


def test_the_worker_dies_with_its_parent(tmp_path: Path, write_pdf: Callable[..., Path]) -> None:
    good = write_pdf(tmp_path / "good.pdf", [["hello"]])
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from trfmoe_core.data.sources.find import find_files\n"
        "from trfmoe_core.data.pdf.reader import WALL_FACTOR, PdfLimits, PdfReader\n"
        "reader = PdfReader(PdfLimits(60, 512)); reader.read(find_files(sys.argv[1:])[0], Path('out'))\n"
        "print(reader._worker.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(good)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    worker = int(done.stdout)
    deadline = time.monotonic() + 30
    while not gone(worker):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_modules_in_the_working_folder_do_not_get_in(
    tmp_path: Path, write_pdf: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = write_pdf(tmp_path / "good.pdf", [["hello"]])
    (tmp_path / "pypdf.py").write_text("raise SystemExit(3)")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(tmp_path)
    with PdfReader(PdfLimits(60, 512)) as reader:
        assert read(reader, Path("good.pdf")).status == "ok"
    assert good.exists()


def test_a_worker_that_cannot_start_is_explained(
    tmp_path: Path, write_pdf: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    good = write_pdf(tmp_path / "good.pdf", [["hello"]])
    monkeypatch.setattr(reader_module.sys, "executable", "/bin/false")
    with pytest.raises(DataError, match="check that pypdfium2 is installed"), PdfReader(PdfLimits(60, 512)) as reader:
        read(reader, good)


def test_a_file_that_kills_the_engine_costs_no_other(tmp_path: Path, write_pdf: Callable[..., Path]) -> None:
    good = write_pdf(tmp_path / "good.pdf", [["hello"]])
    # pdfium follows a form that shows itself until its memory ends.
    write_hostile(tmp_path / "hostile", 0, bomb_bytes=1, empty_pages=1)
    deadly = tmp_path / "hostile" / "cyclic-form.pdf"
    with PdfReader(PdfLimits(60, 96), "pdfium") as reader:
        result = read(reader, deadly)
        assert (result.status, result.settled) == ("broken", False)
        assert read(reader, good).status == "ok"
    with PdfReader(PdfLimits(60, 96)) as reader:
        assert read(reader, deadly).status == "no-text", "pypdf reads it"
        assert read(reader, good).status == "ok"
