"""How text becomes tokens."""

from typing import ClassVar, Literal

from pydantic import Field

from trfmoe_core.config.section import Section


class PdfConfig(Section):
    """How PDFs become text."""

    engine: Literal["auto", "pypdf", "pdfium"] = Field(
        "pypdf",
        description="pdfium is 5 to 20 times as fast (pip install pypdfium2); auto: pdfium where it is installed",
    )
    drop_headers: bool = Field(True, description="leave out page numbers and lines that come again on page after page")


class DataConfig(Section):
    """How text becomes tokens, the same on every node."""

    USE_ONLY: ClassVar = (
        "evaluation_tokens", "packing", "processes", "loader_threads",
        "offline", "pdf", "file_timeout_s", "file_memory_mb",
    )  # fmt: skip
    """Settings that leave prepared tokens as they are: how they are used, or how PDFs are read, whose text counts."""

    tokenizer: str = Field("byte", min_length=1, description="byte, a tokenizer folder, or a name on the hub")
    piece_bytes: int = Field(4096, ge=64, le=1 << 24, description="documents are cut at page or paragraph borders")
    held_out: float = Field(0.1, gt=0, lt=1, description="fraction of pieces held out, chosen by hash")
    deduplicate: bool = Field(True, description="leave out pieces whose text came before, whatever its case and blanks")
    evaluation_tokens: int = Field(16384, ge=64, description="held-out tokens a node evaluates on every round, at most")
    packing: Literal["concatenate", "best_fit"] = Field(
        "concatenate", description="concatenate: cut wherever a sequence ends; best_fit: whole pieces, apart by a mask"
    )
    processes: int | None = Field(None, ge=1, le=1024, description="that turn text into tokens; null: one a core")
    loader_threads: int = Field(1, ge=0, le=64, description="that get batches ready ahead; 0: each when it is needed")
    file_timeout_s: float = Field(60.0, gt=0, description="processor time; a PDF that takes longer is skipped")
    file_memory_mb: int = Field(2048, ge=256, description="a PDF that needs more is recorded and skipped")
    pdf: PdfConfig = PdfConfig()
    offline: bool = Field(False, description="never touch the network: the hub's data sets and tokenizers as kept here")
