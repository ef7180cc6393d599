"""Out of a run into stock transformers, and from there into a run again."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, MixtralConfig, MixtralForCausalLM

from scripts.main import main
from tests.conftest import words
from tests.places import ROOT
from trfmoe_core.data.tokenizers import load_tokenizer
from trfmoe_core.data.tokenizers.byte import ByteTokenizer

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


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the recipe `r.yaml`, its data, and a finished run of one machine."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        _train()
    yield folder


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Path:
    """The run of `trained`, copied into the current folder with the recipe and its data."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    capfd.readouterr()
    return tmp_path / "runs" / "t-local-001"


def _train() -> None:
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
    assert call("train", "r.yaml") == 0


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


def llama_like_tokenizer(folder: Path, **config: Any) -> int:
    """Writes a byte-level tokenizer that puts <s> before every text, as Llama's do; returns its number of tokens."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    letters = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<unk>", "<s>", "</s>"], initial_alphabet=letters)
    backend.train_from_iterator(["the run of the model"] * 9, trainer)
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    folder.mkdir(exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", **config}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return int(backend.get_vocab_size())


def chat_model(folder: Path) -> Path:
    """Writes a stock Mixtral with an end, generation settings and a chat template."""
    vocabulary = llama_like_tokenizer(folder, add_bos_token=True)
    shape = {"hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    more = {"num_key_value_heads": 2, "num_local_experts": 4, "max_position_embeddings": 64}
    torch.manual_seed(0)
    config = MixtralConfig(
        **{**shape, **more, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": vocabulary, "initializer_range": 0.3}
    )
    MixtralForCausalLM(config).float().save_pretrained(folder)
    generation = {"bos_token_id": 1, "eos_token_id": 2, "temperature": 0.6, "do_sample": True}
    (folder / "generation_config.json").write_text(json.dumps(generation))
    (folder / "chat_template.jinja").write_text("{% for m in messages %}[INST]{{ m.content }}[/INST]{% endfor %}")
    return folder


def test_what_came_in_goes_out_and_prompts_begin_as_in_transformers(
    run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    chat_model(Path("chat"))
    assert call("import", "chat", "r.yaml", "--json") == 0
    imported = Path(result(capfd)["run_dir"])
    assert call("export", imported, "again") == 0
    assert Path("again/chat_template.jinja").read_text() == Path("chat/chat_template.jinja").read_text()
    generation = [json.loads(Path(name, "generation_config.json").read_text()) for name in ("chat", "again")]
    assert generation[0] == generation[1]
    configs = [json.loads(Path(name, "config.json").read_text()) for name in ("chat", "again")]
    assert configs[1]["eos_token_id"] == 2 and configs[1]["bos_token_id"] == 1
    for key in configs[0].keys() - {"transformers_version", "dtype", "head_dim"}:
        assert configs[1][key] == configs[0][key], key
    model = AutoModelForCausalLM.from_pretrained("again", local_files_only=True)
    theirs = AutoTokenizer.from_pretrained("again", local_files_only=True)
    assert theirs.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False) == "[INST]x[/INST]"
    ours = load_tokenizer("again")
    for text in ("The run", "", "  the ", "Grüße </s> 你 <s>", *HARD_TEXTS):
        assert ours.encode_prompt(text) == theirs(text)["input_ids"], text
    for text in ("The run", "of the "):
        prompt = theirs(text, return_tensors="pt")
        ids = model.generate(**prompt, max_new_tokens=12, do_sample=False)[0, prompt["input_ids"].shape[1] :]
        capfd.readouterr()
        arguments = ("--temperature", "0", "--max-tokens", "12", "--json")
        assert call("generate", imported, "--prompt", text, *arguments) == 0
        assert result(capfd)["text"] == theirs.decode(ids, skip_special_tokens=True)


def test_an_own_model_ends_where_the_next_piece_begins(run: Path) -> None:
    assert call("export", run, "out") == 0
    model = AutoModelForCausalLM.from_pretrained("out", local_files_only=True)
    assert model.generation_config.eos_token_id == model.config.eos_token_id == ByteTokenizer.bos_id

    def bos_after_three(ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores[:, ByteTokenizer.bos_id] = 1e9 if ids.shape[1] == 11 else -1e9
        return scores

    prompt = torch.arange(97, 105)[None]
    ended = model.generate(prompt, max_new_tokens=24, do_sample=False, logits_processor=[bos_after_three])
    assert ended.shape[1] == 12 and ended[0, -1] == ByteTokenizer.bos_id


def test_a_trained_import_also_ends_where_the_next_piece_begins(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    chat_model(Path("chat"))
    assert call("import", "chat", "r.yaml", "--set", "name=more", "--context", "32", "--json") == 0
    imported = Path(result(capfd)["run_dir"])
    assert call("train", imported / "recipe.yaml", "--run-dir", imported, "--json") == 0
    assert call("export", imported, "trained") == 0
    generation = json.loads(Path("trained/generation_config.json").read_text())
    assert (generation["eos_token_id"], generation["temperature"]) == ([2, 1], 0.6)
    config = json.loads(Path("trained/config.json").read_text())
    assert (config["eos_token_id"], config["max_position_embeddings"]) == (2, 64)


def test_bfloat16_is_checked_too(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("export", run, "half", "--dtype", "bfloat16", "--json") == 0
    assert result(capfd)["max_difference"] <= 1e-5
    assert load_file("half/model.safetensors")["lm_head.weight"].dtype == torch.bfloat16


def test_weights_are_written_in_several_files(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert call("export", run, "parts", "--max-shard-size", "50KB", "--json") == 0
    assert result(capfd)["max_difference"] <= 1e-5
    assert len(list(Path("parts").glob("model-*-of-*.safetensors"))) > 1
    assert call("export", run, "wrong", "--max-shard-size", "much") == 2
    assert "--max-shard-size much: no size; give one such as 500MB or 5GB" in capfd.readouterr().err


def test_widths_that_transformers_refuses_are_said_with_the_recipe(
    run: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def warned(*widths: str) -> str:
        sets = [word for width in widths for word in ("--set", width)]
        assert call("train", "r.yaml", "--dry-run", *sets) == 0
        return capfd.readouterr().err

    assert "warning" not in warned("model.expert_width=40")
    assert "model.expert_width: 36: no multiple of 8, so stock transformers runs it in bfloat16 only" in warned(
        "model.expert_width=36"
    )
    assert "model.width: 44" in (both := warned("model.width=44", "model.expert_width=22"))
    assert (
        "model.expert_width: 22: no multiple of 8, so stock transformers runs it in bfloat16 and float32 only" in both
    )
    assert call("train", "r.yaml", "--set", "model.expert_width=22", "--set", "name=odd") == 0
    capfd.readouterr()
    assert call("export", "odd-local-001", "odd") == 0
    assert "expert_width: 22" in capfd.readouterr().err


def test_a_run_is_found_by_name_or_as_the_latest(run: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert call("generate", "--prompt", "the ", "--max-tokens", "3") == 0
    assert capfd.readouterr().err == "run runs/t-local-001, the latest\n"
    assert call("generate", "t-local-001", "--prompt", "the ", "--max-tokens", "3") == 0
    assert call("report", "--json") == 0
    assert result(capfd)["report"] == str(run / "report.html")
    assert call("export", "out", "--json") == 0
    assert result(capfd)["out"] == str(tmp_path / "out")
    for arguments in (("generate", "t-009", "--prompt", "x"), ("report", "t-009"), ("export", "t-009", "o")):
        assert call(*arguments) == 2
        assert "t-009: not a run folder nor inside one; there are runs/t-local-001" in capfd.readouterr().err
    assert call("export", run) == 2
    assert "no folder to write is named" in capfd.readouterr().err
    Path("runs").rename("elsewhere")
    assert call("generate", "--prompt", "x") == 2
    assert "there is no run below runs" in capfd.readouterr().err


def test_the_server_answers_as_an_openai_server(run: Path) -> None:
    pytest.importorskip("openai", reason="transformers' server is the extra trfmoe[serve]")
    from fastapi.testclient import TestClient

    from scripts.run.model_server import make_app

    assert call("export", run, "out") == 0
    client = TestClient(make_app(Path("out").absolute(), "short", "safe"), raise_server_exceptions=False)
    (listed,) = client.get("/v1/models").json()["data"]
    assert (listed["id"], listed["object"]) == ("short", "model")
    assert client.get("/v1/models/short").json() == listed
    chat = {"model": "short", "messages": [{"role": "user", "content": "the "}], "max_tokens": 4}
    answer = client.post("/v1/chat/completions", json=chat).json()
    assert (answer["object"], answer["model"]) == ("chat.completion", "short")
    assert answer["choices"][0]["message"]["role"] == "assistant"
    parts = [{"type": "text", "text": "the "}]
    assert client.post(
        "/v1/chat/completions", json={**chat, "messages": [{"role": "user", "content": parts}]}
    ).is_success
    text = client.post("/v1/completions", json={"model": "short", "prompt": "the ", "max_tokens": 4})
    assert text.json()["object"] == "text_completion"
    for path, body, status in (
        ("/v1/chat/completions", {**chat, "model": "other"}, 400),
        ("/v1/chat/completions", {"model": "short"}, 400),
        ("/v1/completions", {"model": "short"}, 400),
        ("/v1/completions", [], 400),
    ):
        refused = client.post(path, json=body)
        assert refused.status_code == status
        assert refused.json()["error"]["message"] and refused.json()["error"]["type"] == "invalid_request_error"
    assert client.get("/v1/models/other").status_code == 404


@pytest.mark.slow
def test_a_run_is_served_until_ctrl_c(run: Path) -> None:
    pytest.importorskip("openai", reason="transformers' server is the extra trfmoe[serve]")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "scripts", "serve", str(run.absolute()), "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as server:
        try:
            wait_for(f"http://127.0.0.1:{port}/health", server)
            body = json.dumps({"model": run.name, "prompt": "the ", "max_tokens": 5, "temperature": 0}).encode()
            url, header = f"http://127.0.0.1:{port}/v1/completions", {"Content-Type": "application/json"}
            with urllib.request.urlopen(urllib.request.Request(url, body, header), timeout=60) as answer:
                assert json.load(answer)["choices"][0]["text"]
        finally:
            server.send_signal(signal.SIGINT)
        _, errors = server.communicate(timeout=60)
    assert server.returncode == 0
    assert "Traceback" not in errors and "error" not in errors.lower()


def wait_for(url: str, server: subprocess.Popen[str]) -> None:
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


def test_the_difference_is_judged_by_the_size_of_the_logits(
    run: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained models have logits of 30 and more, whose rounding alone is more than the limit for small ones."""
    forward = MixtralForCausalLM.forward

    def shifted(self: Any, *arguments: Any, **options: Any) -> Any:
        found = forward(self, *arguments, **options)
        found.logits += 3e-5 * found.logits.abs().max()
        return found

    assert call("export", run, "out", "--json") == 0
    monkeypatch.setattr(MixtralForCausalLM, "forward", shifted)
    capfd.readouterr()
    assert call("export", run, "other") == 1
    assert "transformers' logits differ by 3.0" in capfd.readouterr().err and not Path("other").exists()
