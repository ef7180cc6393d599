"""Shows prepared data to people and programs: its sources, and where the rows of a batch come from."""

from contextlib import closing
from typing import TYPE_CHECKING, Any

from trfmoe_core.counts import counted
from trfmoe_core.terminal import visible

if TYPE_CHECKING:
    from scripts.run.data.entries import ChosenData
    from scripts.terminal.output import Output
    from trfmoe_core.config import NodeSettings
    from trfmoe_core.data.batches.corpus import Corpus
    from trfmoe_core.data.batches.stream import BatchStream, Row
    from trfmoe_core.data.tokenizers import Tokenizer

SAMPLE = 60


def summary(corpus: "Corpus", tokenizer: "Tokenizer") -> dict[str, Any]:
    """Returns a corpus in numbers, as plain values."""
    from dataclasses import asdict

    stores = [store for source in corpus.sources for store in (source.train, source.held_out)]
    num_bytes = sum(store.num_bytes for store in stores)
    num_tokens = sum(store.num_tokens for store in stores)
    return {
        "files": [asdict(report) for report in corpus.files],
        "train_tokens": corpus.train_tokens,
        "held_out_tokens": corpus.held_out_tokens,
        "duplicates": corpus.duplicates,
        "near_duplicates": corpus.near_duplicates,
        "held_out_in_train": corpus.leaked,
        "held_out_nearly_in_train": corpus.overlapping,
        "bytes_per_token": round(num_bytes / max(1, num_tokens), 4),
        "tokenizer": {
            "name": tokenizer.name,
            "vocab_size": tokenizer.vocab_size,
            "fingerprint": tokenizer.fingerprint,
        },
        "bigram_bits_per_byte": corpus.bigram_bits_per_byte,
        "notes": corpus.notes,
        "key": corpus.key,
    }


def show_summary(found: dict[str, Any], output: "Output") -> None:
    """Writes what else is known of a corpus whose files have been listed."""
    tokenizer = found["tokenizer"]
    output.line(
        f"tokenizer {tokenizer['name']}: {tokenizer['vocab_size']:,} tokens, {found['bytes_per_token']:.2f} bytes each "
        f"in this text, fingerprint {tokenizer['fingerprint'][:12]}"
    )
    output.line(
        f"{found['duplicates']:,} duplicate pieces and {found['near_duplicates']:,} near-duplicates across the split "
        f"left out; held-out pieces also in train: {found['held_out_in_train']}, "
        f"nearly the same as one in train: {found['held_out_nearly_in_train']}"
    )


def sources(corpus: "Corpus", stream: "BatchStream") -> list[dict[str, Any]]:
    """Returns, of every source, what the stream makes of it."""
    weights = sum(source.weight for source in corpus.sources)
    return [
        {
            "source": source.name,
            "share": round(source.weight / weights, 4),
            "on_end": "stop" if source.stops else "repeat",
            "train_tokens": source.train.num_tokens,
            "held_out_tokens": source.held_out.num_tokens,
            "rows_per_epoch": feed.layout.rows_per_epoch,
            "context": feed.layout.context,
            "filled": round(feed.layout.targets_per_row / feed.layout.context, 4),
            "cursor": {"epoch": cursor.epoch, "row": cursor.row},
        }
        for source, feed, cursor in zip(corpus.sources, stream.feeds, stream.cursors, strict=True)
    ]


def batch(
    asked: "ChosenData", node: "NodeSettings", corpus: "Corpus", tokenizer: "Tokenizer", number: int, rows: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns (sources, rows) of the batch that a node trains on after `number` others, the first `rows` of it."""
    from trfmoe_core.data.batches.training import training_stream
    from trfmoe_core.seeds import seed_for

    seed = seed_for(asked.recipe.seed, node.name)
    with closing(training_stream(corpus, asked.recipe, seed)) as stream:
        stream.skip(number)
        found = sources(corpus, stream)
        return found, [_row(corpus, tokenizer, stream, row) for row in stream.upcoming()[:rows]]


def _row(corpus: "Corpus", tokenizer: "Tokenizer", stream: "BatchStream", row: "Row") -> dict[str, Any]:
    source = corpus.sources[row.source]
    at, parts = 0, []
    for part in stream.parts(row):
        piece = source.train.piece(part.piece)
        unit, place = corpus.documents[int(source.train.documents[part.piece])]
        parts.append(
            {
                "positions": [at, at + part.tokens],
                "file": source.files[int(unit)],
                "place": place.decode("ascii"),
                "piece": part.piece,
                "from_token": part.start,
                "begins": part.start == 0,
                "text": tokenizer.decode(piece[part.start : part.start + part.tokens].tolist()),
            }
        )
        at += part.tokens
    return {"source": source.name, "epoch": row.cursor.epoch, "row": row.cursor.row, "tokens": at, "parts": parts}


def show_batch(number: int, found: list[dict[str, Any]], rows: list[dict[str, Any]], output: "Output") -> None:
    """Writes sources and rows."""
    for source in found:
        output.line(
            f"source {source['source']}: {100 * source['share']:.4g}% of the tokens, {source['on_end']} at its end; "
            f"{source['rows_per_epoch']:,} rows an epoch, {_fill(source['filled'])}; "
            f"now at epoch {source['cursor']['epoch']}, row {source['cursor']['row']}"
        )
    context = found[0]["context"]
    output.line(
        f"batch {number}, the first {counted(len(rows), 'row')}; a row is a context of {context} tokens "
        "(model.context) and the token after it (| where a document begins):"
    )
    for row in rows:
        output.line(f"  row {row['row']} of epoch {row['epoch']} of {row['source']}: {counted(row['tokens'], 'token')}")
        for part in row["parts"]:
            begin, end = part["positions"]
            text = part["text"] if len(part["text"]) <= SAMPLE else part["text"][: SAMPLE - 3] + "..."
            where = f"{part['file']} {part['place']}".rstrip()
            mark = "|" if part["begins"] else " "
            output.line(
                f"    {begin:>6}-{end:<6} {mark} {visible(text, layout='')}   [{where}, token {part['from_token']}]"
            )


def _fill(share: float) -> str:
    """Returns what share of the places of a row text takes."""
    return "each full of text" if share == 1 else f"{100 * share:.4g}% of their places text, the rest padding"
