"""Compiled layers: what is missing is said, and the numbers stay."""

import shutil

import pytest

from tests.trfmoe_core.training.test_trainer import make_config, make_trainer, stream
from trfmoe_core.errors import ConfigError, RunError
from trfmoe_core.training.compile import compile_errors_explained


def test_a_missing_compiler_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"training\.compile: .*no-such-compiler, which is not on the PATH; .*false"):
        make_trainer(make_config(compile=True))
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="not on the PATH"):
        make_trainer(make_config(compile=True))


def test_errors_of_the_compiler_are_explained_and_others_pass() -> None:
    class BrokenError(Exception):
        pass

    BrokenError.__module__ = "torch._inductor.exc"
    expected = r"cannot be compiled here \(no header\); set training\.compile false"
    with pytest.raises(RunError, match=expected), compile_errors_explained():
        raise BrokenError("\nno header\nmore")
    with pytest.raises(ValueError, match="other"), compile_errors_explained():
        raise ValueError("other")


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_compiled_training_is_eager_training() -> None:
    eager, compiled = make_trainer(make_config()), make_trainer(make_config(compile=True))
    assert compiled.train(stream(), 3).loss == pytest.approx(eager.train(stream(), 3).loss, abs=1e-4)
