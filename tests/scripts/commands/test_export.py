"""Out of a run into stock transformers, and from there into a run again."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, MixtralConfig, MixtralForCausalLM

from scripts.main import main
from tests.conftest import words
from tests.places import ROOT

HARD_TEXTS = [
    "",
    "plain",
    "Grüße 你好 🙂\n\ttab",
    "<bos> as text, <pad><eos>",
    "\x00\x7f\u00a0  two  spaces ",
    "e\u0301",
]


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_info:
        main([str(argument) for argument in arguments])
    return int(exit_info.value.code or 0)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Path:
    """A finished run of one machine, and `r.yaml`, its recipe, in the current folder."""
    monkeypatch.chdir(tmp_path)
    nodes = []
    for number, name in enumerate(("ada", "bob", "cyd")):
        Path(name).mkdir()
        Path(name, "text.txt").write_text(words(number, 2000))
        nodes.append({"name": name, "data": [name]})
    recipe: dict[str, Any] = {
        "name": "t",
        "model": {"layers": 2, "width": 32, "heads": 2, "experts": 4, "expert_width": 32, "context": 32},
        "data": {"evaluation_tokens": 256, "piece_bytes": 512},
        "rounds": {"num_rounds": 2, "local_steps": 20},
        "training": {"batch_size": 4, "warmup_steps": 1, "device": "cpu", "learning_rate": 1e-2},
        "nodes": nodes,
    }
    Path("r.yaml").write_text(yaml.safe_dump(recipe))
    assert call("train", "r.yaml", "--json") == 0
    return Path(result(capfd)["run_dir"])


def result(capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    value = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert isinstance(value, dict)
    return value


def test_the_export_opens_in_stock_transformers_and_writes_the_same_text(
    run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call("export", run, "out", "--json") == 0
    assert result(capfd)["max_difference"] <= 1e-5
    tokenizer = AutoTokenizer.from_pretrained("out", local_files_only=True)
    for text in HARD_TEXTS:
        ids = tokenizer(text)["input_ids"]
        assert ids == list(text.encode())
        assert tokenizer.decode(ids) == text
    model = AutoModelForCausalLM.from_pretrained("out", local_files_only=True)
    prompt = tokenizer("the ", return_tensors="pt")
    theirs = model.generate(**prompt, max_new_tokens=20, do_sample=False)[0, 4:]
    assert call("generate", run, "--prompt", "the ", "--temperature", "0", "--max-tokens", "20", "--json") == 0
    assert result(capfd)["text"] == tokenizer.decode(theirs, skip_special_tokens=True)
    assert call("export", run, "out") == 2
    assert "out: exists already" in capfd.readouterr().err
    assert call("export", run, "half", "--dtype", "bfloat16", "--no-check") == 0
    assert load_file("half/model.safetensors")["lm_head.weight"].dtype == torch.bfloat16


def test_an_import_is_exported_unchanged_and_trains_on(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("export", run, "first") == 0
    capfd.readouterr()
    assert call("import", "first", "r.yaml", "--set", "name=more", "--json") == 0
    imported = Path(result(capfd)["run_dir"])
    assert call("export", imported, "second") == 0
    first, second = (load_file(f"{name}/model.safetensors") for name in ("first", "second"))
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert json.loads(Path("first/config.json").read_text()) == json.loads(Path("second/config.json").read_text())
    capfd.readouterr()
    assert call("train", imported / "recipe.yaml", "--run-dir", imported, "--json") == 0
    trained = result(capfd)
    assert trained["run_dir"] == str(imported)
    assert trained["bits_per_byte"][0] < 6
    assert trained["bits_per_byte"][-1] < trained["bits_per_byte"][0]
    assert call("simulate", imported / "recipe.yaml", "--run-dir", imported) == 2
    assert "started as a local run" in capfd.readouterr().err


def test_a_folder_that_transformers_wrote_is_imported(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("export", run, "out") == 0
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 4}
    more = {"num_key_value_heads": 2, "num_local_experts": 3, "max_position_embeddings": 64, "vocab_size": 300}
    stock = MixtralForCausalLM(MixtralConfig(**shape, **more, tie_word_embeddings=True)).float()
    stock.save_pretrained("stock")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        Path("stock", name).write_bytes(Path("out", name).read_bytes())
    capfd.readouterr()
    assert call("import", "stock", "r.yaml", "--context", "32", "--json") == 0
    imported = Path(result(capfd)["run_dir"])
    assert call("export", imported, "again", "--json") == 0
    assert result(capfd)["round"] == 0
    again = AutoModelForCausalLM.from_pretrained("again", local_files_only=True)
    tokens = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(again(tokens).logits, stock.eval()(tokens).logits)


def test_what_cannot_be_imported_or_exported_is_named(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for arguments, words_ in {
        ("import", "nowhere", "r.yaml"): "nowhere",
        ("import", "ada", "r.yaml"): "config.json",
        ("import", "ada", "r.yaml", "--set", "model.layers=3"): "model.layers=3",
        ("export", "ada", "out"): "not a run folder",
        ("export", str(run), "out", "--round", "7"): "--round 7",
        ("export", str(run), "r.yaml"): "exists already",
    }.items():
        assert call(*arguments) == 2
        error = capfd.readouterr().err
        assert words_ in error and "Traceback" not in error


@pytest.mark.slow
def test_transformers_serves_a_run(run: Path) -> None:
    pytest.importorskip("openai", reason="transformers' server is the extra trfmoe[serve]")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "scripts", "serve", str(run.absolute()), "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT) as server:
        try:
            wait_for(f"http://127.0.0.1:{port}/health", server)
            (model,) = (run.absolute() / "export").glob("round-*")
            body = json.dumps({"model": str(model), "prompt": "the ", "max_tokens": 5, "temperature": 0}).encode()
            url, header = f"http://127.0.0.1:{port}/v1/completions", {"Content-Type": "application/json"}
            with urllib.request.urlopen(urllib.request.Request(url, body, header), timeout=60) as answer:
                assert json.load(answer)["choices"][0]["text"]
        finally:
            server.terminate()


def wait_for(url: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(240):
        assert server.poll() is None
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"{url} does not answer")


def test_weights_that_changed_after_the_commit_are_not_used(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for path in (run / "checkpoints").glob("*/weights.safetensors"):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    for command in (("generate", run, "--prompt", "the "), ("export", run, "out")):
        assert call(*command) != 0
        assert "do not have the digest that was committed" in capfd.readouterr().err
    assert not Path("out").exists()


def test_prompts_come_from_files_and_standard_input(
    run: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("prompt.txt").write_text("the ")
    settings = ("--max-tokens", "12", "--seed", "3")
    assert call("generate", run, "--prompt", "the ", *settings) == 0
    expected = capfd.readouterr().out
    assert call("generate", run, "--file", "prompt.txt", *settings) == 0
    assert capfd.readouterr().out == expected
    assert call("generate", run, "--file", "prompt.txt", "--stream", *settings) == 0
    assert capfd.readouterr().out == expected
    with Path("prompt.txt").open() as file:
        monkeypatch.setattr("sys.stdin", file)
        assert call("generate", run, *settings) == 0
    assert capfd.readouterr().out == expected
    assert call("generate", run, "--file", "nowhere.txt") == 2
    assert call("generate", run, "--file", "prompt.txt", "--prompt", "x") == 2
