"""A signed journal cannot be written anew unseen, and every broken key or signature is one clear line."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from scripts.commands.sign import make_key
from scripts.main import main
from scripts.run.signing import sign_run
from server.run_folder.folder import RunFolder
from server.run_folder.journal import Journal
from server.run_folder.journal_entries import GENESIS, line_hash
from server.run_folder.signatures import SIGNATURES_FILE, load_public_key
from server.run_folder.verify import verify_run
from trfmoe_core.config import Recipe
from trfmoe_core.errors import RunFolderError


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run that has begun and committed nothing."""
    folder = RunFolder.create(tmp_path / "runs", Recipe())
    journal = Journal(folder.events_path)
    journal.append("run_started", run_id="r", recipe_hash=folder.recipe_digest())
    journal.append("warning", text="a")
    journal.close()
    return folder


@pytest.fixture
def key(tmp_path: Path) -> Path:
    make_key(tmp_path / "sign.key")
    return tmp_path / "sign.key"


def verify(folder: RunFolder, key: Path) -> list[str]:
    return verify_run(folder, key=load_public_key(key.with_name(f"{key.name}.pub"))).problems


def command(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(str(ended.value.code))


def rewritten(folder: RunFolder, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    lines, prev = [], GENESIS
    for line in folder.events_path.read_bytes().splitlines():
        lines.append(json.dumps({**change(json.loads(line)), "prev": prev}, separators=(",", ":")).encode())
        prev = line_hash(lines[-1])
    folder.events_path.write_bytes(b"".join(line + b"\n" for line in lines))


def test_what_follows_a_signature_is_counted_and_what_came_before_cannot_change(folder: RunFolder, key: Path) -> None:
    sign_run(folder, key)
    assert key.stat().st_mode & 0o777 == 0o600
    journal = Journal(folder.events_path)
    journal.append("warning", text="b")
    journal.append("run_finished", outcome="failed")
    journal.close()
    found = verify_run(folder, key=load_public_key(key.with_name("sign.key.pub")))
    assert found.problems == []
    assert any(note.startswith("entries 0 to 1 were signed by this key on 20") for note in found.notes)
    assert (found.signed, found.unsigned.partition(" signed")[0]) == (2, "entries 2 to 3, the newest, are not")
    sign_run(folder, key)
    found = verify_run(folder, key=load_public_key(key.with_name("sign.key.pub")))
    assert (found.problems, found.signed, found.unsigned) == ([], 4, "")
    rewritten(folder, lambda event: {**event, "time": event["time"] + 1})
    assert verify_run(folder).problems == []
    assert "rewritten, or cut since" in verify(folder, key)[0]
    with pytest.raises(RunFolderError, match="not signed, because it is broken"):
        sign_run(folder, key)


def test_a_cut_or_edited_tail_that_was_signed_is_found(folder: RunFolder, key: Path) -> None:
    sign_run(folder, key)
    whole = folder.events_path.read_bytes()
    folder.events_path.write_bytes(whole.replace(b'"text":"a"', b'"text":"b"'))
    assert verify_run(folder).problems == []
    assert "signed at entry 2 is not this one" in verify(folder, key)[0]
    folder.events_path.write_bytes(whole.splitlines(keepends=True)[0])
    assert "signed at entry 2 is not this one" in verify(folder, key)[0]


@pytest.mark.parametrize(
    ("field", "value"), [("entries", 1), ("head", "0" * 64), ("time", 0), ("run_id", "s"), ("recipe_hash", "x")]
)
def test_a_changed_statement_does_not_verify(folder: RunFolder, key: Path, field: str, value: object) -> None:
    sign_run(folder, key)
    path = folder.path / SIGNATURES_FILE
    raw = json.loads(path.read_text())
    raw["statement"][field] = value
    path.write_text(json.dumps(raw) + "\n")
    assert "is broken" in verify(folder, key)[0]


def test_a_signature_of_another_run_by_the_same_key_does_not_count(
    folder: RunFolder, key: Path, tmp_path: Path
) -> None:
    other = RunFolder.create(tmp_path / "runs", Recipe())
    Journal(other.events_path).append("run_started", run_id="s", recipe_hash=other.recipe_digest())
    sign_run(other, key)
    (folder.path / SIGNATURES_FILE).write_bytes((other.path / SIGNATURES_FILE).read_bytes())
    assert "is of another run ('s')" in verify(folder, key)[0]


def test_broken_signature_files_are_one_line(folder: RunFolder, key: Path) -> None:
    assert verify(folder, key) == []
    sign_run(folder, key)
    path = folder.path / SIGNATURES_FILE
    whole = path.read_bytes()
    for broken in (
        whole[:-20],
        b"\x00\xff\n",
        b"[]\n",
        b'{"statement":{}}\n',
        whole + b"\n",
        b"[" * 99_999,
        b"1e999\n",
    ):
        path.write_bytes(broken)
        assert "is no signature" in verify(folder, key)[0]
        with pytest.raises(RunFolderError, match="is no signature"):
            sign_run(folder, key)
    path.write_bytes(b"")
    assert verify_run(folder, key=load_public_key(key.with_name("sign.key.pub"))).signed == 0
    path.unlink()
    os.mkfifo(path)
    assert "cannot be read" in verify(folder, key)[0]
    path.unlink()
    path.mkdir()
    assert "cannot be read" in verify(folder, key)[0]


def test_a_key_that_did_not_sign_is_not_fooled(folder: RunFolder, key: Path, tmp_path: Path) -> None:
    sign_run(folder, key)
    make_key(tmp_path / "other.key")
    found = verify_run(folder, key=load_public_key(tmp_path / "other.key.pub"))
    assert (found.problems, found.signed) == ([], 0)
    assert "1 signature is by other keys and not checked" in found.notes
    path = folder.path / SIGNATURES_FILE
    raw = json.loads(path.read_text())
    sign_run(folder, tmp_path / "other.key")
    theirs = json.loads(path.read_text().splitlines()[1])
    path.write_text(json.dumps({**raw, "public_key": theirs["public_key"]}) + "\n")
    assert "is broken" in verify(folder, tmp_path / "other.key")[0]


def test_keys_of_other_kinds_and_ssh_keys(
    folder: RunFolder, key: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    public = key.with_name("sign.key.pub")
    for made, name in ((Ed25519PrivateKey.generate(), "own"), (ec.generate_private_key(ec.SECP256R1()), "ec")):
        form = (serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption())
        (tmp_path / name).write_bytes(made.private_bytes(*form))
        half = made.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        (tmp_path / f"{name}.pub").write_bytes(half + b" me@here\n")
    (tmp_path / "empty").touch()
    for path, named in (
        (tmp_path / "missing", "the key cannot be read"),
        (tmp_path, "the key cannot be read"),
        (tmp_path / "empty", "no private key"),
        (public, "no private key"),
        (tmp_path / "ec", "not of Ed25519"),
    ):
        assert command("sign", folder.path, "--key", path) == 2
        assert named in capsys.readouterr().err
    assert command("sign", folder.path, "--key", tmp_path / "own") == 0
    assert command("verify", folder.path, "--key", tmp_path / "own.pub") == 0
    for path, named in (
        (key, "stays with its owner"),
        (tmp_path / "empty", "no public key"),
        (tmp_path / "ec.pub", "no public key"),
    ):
        assert command("verify", folder.path, "--key", path) == 2
        assert named in capsys.readouterr().err
    assert command("verify", folder.path, "--key", public) == 3


def test_an_unsigned_journal_is_not_called_broken_and_the_remedy_signs_it(
    folder: RunFolder, key: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    public = key.with_name("sign.key.pub")
    assert command("verify", folder.path, "--key", public) == 3
    told = capsys.readouterr().out
    assert "BROKEN" not in told
    assert "NOT SIGNED: none of its 2 entries is signed by this key" in told
    remedy = told.partition("signs: ")[2].splitlines()[0]
    assert remedy == f"trfmoe sign {folder.path} --key sign.key"
    assert command(*remedy.replace(" sign.key", f" {key}").split()[1:]) == 0
    assert command("verify", folder.path, "--key", public) == 0
    journal = Journal(folder.events_path)
    journal.append("warning", text="b")
    journal.close()
    capsys.readouterr()
    assert command("verify", folder.path, "--key", public, "--json") == 3
    said = json.loads(capsys.readouterr().out)
    assert (said["outcome"], said["signed"], said["problems"]) == ("unsigned", 2, [])
    assert said["unsigned"].startswith("entry 2, the newest, is not signed by this key")


def test_the_commands_make_a_key_say_where_and_never_overwrite_one(
    folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRFMOE_CONFIG", str(tmp_path / "config"))
    assert command("verify", folder.path) == 0
    told = capsys.readouterr().out
    assert "unfinished" in told
    assert "nothing here would show it" in told
    assert command("sign", folder.path) == 0
    assert f"new key {tmp_path / 'config' / 'sign.key'}" in capsys.readouterr().out.replace("\n", "")
    data = (tmp_path / "config" / "sign.key").read_bytes()
    assert command("sign", folder.path) == 0
    assert command("sign", folder.path, "--new-key", tmp_path / "config" / "sign.key") == 2
    assert (tmp_path / "config" / "sign.key").read_bytes() == data
    capsys.readouterr()
    assert command("verify", folder.path, "--key", tmp_path / "config" / "sign.key.pub", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["head"] == line_hash(folder.events_path.read_bytes().splitlines()[-1])
    assert command("verify", folder.path, "--head", result["head"]) == 0
    assert command("verify", folder.path, "--head", "0" * 64) == 1
    assert command("verify", folder.path, "--head", "beef") == 2
