"""How fast text becomes tokens and batches; `trfmoe bench data` shows it.

Tokens: a node's preparation turns a parquet file of English text into tokens, with one process and with one a core. The
bare tokenizer encodes the same text on all cores. Each measurement has a process and an empty cache of its own, they
take turns, and the best repetition counts. Wall times need a quiet machine; shares by processor time do not. A share of
1 means that preparation costs nothing besides the tokenizer.

Batches: a small model is trained on the CPU, and then a consumer takes batches as fast as a GPU would.
"""

import os
import random
import resource
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from scripts.bench import child

REPEATS = 3
MEGABYTES, QUICK_MEGABYTES = 48, 12
VOCABULARY = 16384
DOCUMENT_PARAGRAPHS = 40
GPU_TOKENS_PER_S = 1_000_000
GPU_BATCH, GPU_CONTEXT = 32, 1024


def write_text(folder: Path, megabytes: int) -> None:
    """Writes about so much English text as one parquet file; no two documents are the same."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from trfmoe_core.data.sample.stdlib_text import language_manuals

    paragraphs = [part for manual in language_manuals() for part in manual.text.split("\n\n") if len(part) > 80]
    draw = random.Random(0)
    documents, size = [], 0
    while size < megabytes * 1_000_000:
        documents.append("\n\n".join(draw.choices(paragraphs, k=DOCUMENT_PARAGRAPHS)))
        size += len(documents[-1].encode())
    pq.write_table(pa.table({"text": documents}), folder / "text.parquet", row_group_size=200)


def measure_tokens(quick: bool, tokenizer: str | None) -> dict[str, Any]:
    """Returns speeds in megabytes of text a second, how the work scales, and its shares of the tokenizer's own."""
    from trfmoe_core.data.tokenizers import load_tokenizer
    from trfmoe_core.data.tokenizers.train import train_bpe

    cores = len(os.sched_getaffinity(0))
    best: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="trfmoe-bench-") as scratch:
        data = Path(scratch, "in")
        data.mkdir()
        write_text(data, QUICK_MEGABYTES if quick else MEGABYTES)
        texts = _texts(data)
        if tokenizer is None:
            tokenizer = str(Path(scratch, "bpe"))
            train_bpe(texts[:200], VOCABULARY, "bench").save(Path(tokenizer))
        for repeat in range(1 if quick else REPEATS):
            for what in ("alone", "one", "all"):
                found = child.result_of(
                    "scripts.bench.tokens:measure_one",
                    {"TOKENIZERS_PARALLELISM": "false" if what == "one" else "true", "RAYON_NUM_THREADS": str(cores)},
                    what=what,
                    data=str(data),
                    tokenizer_name=tokenizer,
                    cache=str(Path(scratch, f"cache-{what}-{repeat}")),
                    cores=cores,
                )
                kept = best.setdefault(what, found)
                best[what] = {name: min(value, kept[name]) for name, value in found.items()}
        megabytes = sum(len(text.encode()) for text in texts) / 1e6
        name = load_tokenizer(tokenizer).name
    alone, one, every = best["alone"], best["one"], best["all"]
    return {
        "tokenizer": name,
        "tokenize_mb": round(megabytes, 1),
        "tokenize_mb_per_s": round(megabytes / every["wall"], 2),
        "tokenizer_alone_mb_per_s": round(megabytes / alone["wall"], 2),
        "tokenize_scaling": round(one["wall"] / every["wall"], 2),
        "tokenize_share_of_tokenizer_speed": round(alone["wall"] / every["wall"], 3),
        "tokenize_share_by_cpu_time": round(alone["cpu"] / every["cpu"], 3),
    }


def measure_loader(quick: bool) -> dict[str, Any]:
    """Returns the shares of time that trainers wait for batches: a real one on the CPU, and one at a GPU's pace."""
    import torch

    from trfmoe_core.config import Recipe
    from trfmoe_core.data.batches.training import training_stream
    from trfmoe_core.data.prepare.corpus_cache import prepare_corpus
    from trfmoe_core.data.tokenizers import load_tokenizer
    from trfmoe_core.model.transformer import build_model
    from trfmoe_core.training.trainer import Trainer

    steps = 10 if quick else 50
    with tempfile.TemporaryDirectory(prefix="trfmoe-bench-") as scratch:
        data = Path(scratch, "in")
        data.mkdir()
        write_text(data, 2)
        recipe, tokenizer = Recipe(), load_tokenizer("byte")
        corpus = prepare_corpus([str(data)], recipe.data, tokenizer, Path(scratch, "cache"))
        torch.set_num_threads(1)
        model = build_model(recipe.model, tokenizer.padded_vocab_size, 0)
        trainer = Trainer(model, recipe.training, steps, torch.device("cpu"))
        with closing(training_stream(corpus, recipe, 0)) as stream:
            on_cpu = trainer.train(stream, steps).data_wait_share
        long = recipe.model_copy(update={"model": recipe.model.model_copy(update={"context": GPU_CONTEXT})})
        with closing(training_stream(corpus, long, 0, batch_size=GPU_BATCH)) as stream:
            stream.next()
            before, started = stream.waited_s, time.perf_counter()
            for _ in range(steps):
                stream.next()
                time.sleep(GPU_BATCH * GPU_CONTEXT / GPU_TOKENS_PER_S)
            at_pace = (stream.waited_s - before) / (time.perf_counter() - started)
    return {"loader_wait_share": round(on_cpu, 5), "loader_wait_share_at_1m_tokens_per_s": round(at_pace, 5)}


def _texts(data: Path) -> list[str]:
    import pyarrow.parquet as pq

    found: list[str] = pq.read_table(data / "text.parquet").column("text").to_pylist()
    return found


def measure_one(what: str, data: str, tokenizer_name: str, cache: str, cores: int) -> dict[str, float]:
    """Returns wall and processor seconds of one measurement, made in a process of its own.

    Args:
        what: `alone` for the tokenizer without anything round it; `one` for one process, `all` for one a core.
        data: Folder of the text.
        tokenizer_name: Folder or name.
        cache: An empty folder for tokens.
        cores: Number of processor cores.
    """
    from trfmoe_core.config import DataConfig
    from trfmoe_core.data.documents.pieces import cut
    from trfmoe_core.data.prepare.corpus_cache import prepare_corpus
    from trfmoe_core.data.tokenizers import load_tokenizer
    from trfmoe_core.data.tokenizers.hugging_face import HfTokenizer

    tokenizer, config = load_tokenizer(tokenizer_name), DataConfig(processes=1 if what == "one" else cores)
    pieces = (
        [piece for text in _texts(Path(data)) for piece in cut(text, config.piece_bytes)] if what == "alone" else []
    )
    tokenizer.encode("The first call loads what the others share.")
    started, before = time.perf_counter(), _cpu()
    if what == "alone":
        # Nothing but the library's own work, in large batches.
        for begin in range(0, len(pieces), 4096):
            if isinstance(tokenizer, HfTokenizer):
                tokenizer.backend.encode_batch_fast(pieces[begin : begin + 4096], add_special_tokens=False)
            else:
                tokenizer.encode_batch(pieces[begin : begin + 4096])
    else:
        corpus = prepare_corpus([data], config, tokenizer, Path(cache))
        assert np.diff(corpus.sources[0].train.piece_offsets).min() > 0
    return {"wall": time.perf_counter() - started, "cpu": _cpu() - before}


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)
