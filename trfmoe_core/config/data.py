"""The part of a recipe about data: how files become text, and text becomes tokens."""

from typing import ClassVar, Literal

from pydantic import Field

from trfmoe_core.config.section import Section
from trfmoe_core.config.sources import DataEntry


class PdfConfig(Section):
    """How PDFs become text."""

    engine: Literal["auto", "pypdf", "pdfium"] = Field(
        "auto", description="auto: pdfium, and pypdf for the files and pages that pdfium cannot read"
    )
    drop_headers: bool = Field(True, description="leave out page numbers and lines that repeat from page to page")


class DataConfig(Section):
    """How text becomes tokens, the same on every node."""

    USE_ONLY: ClassVar = (
        "sources", "evaluation_tokens", "packing", "processes", "loader_threads",
        "offline", "pdf", "file_timeout_s", "file_memory_mb",
    )  # fmt: skip
    """Settings that do not determine the prepared tokens. (What counts of a PDF is its extracted text.)"""

    sources: list[DataEntry] = Field(
        default_factory=list,
        description="text of a run on one machine (trfmoe train), as in a node's data; `data: [papers]` means the same",
        examples=[["papers", {"source": "fineweb", "config": "sample-10BT", "max_documents": 5000}]],
    )
    tokenizer: str = Field(
        "byte", min_length=1, description="byte, a tokenizer folder, or a name on the hub", examples=["gpt2"]
    )
    piece_bytes: int = Field(
        4096,
        ge=64,
        le=1 << 24,
        description="documents are cut into pieces of at most this size, at ends of pages or paragraphs",
        examples=[16384],
    )
    normalization: Literal["safe", "nfc", "nfkc"] = Field(
        "safe",
        description="safe: NFC, plain blanks, letters for ligatures and for full-width letters in Latin text; nfc: no "
        "letters replaced; nfkc: also digits and letters of other shapes, so that 2³² becomes 232",
    )
    held_out: float = Field(
        0.1, gt=0, lt=1, description="fraction of pieces that is held out, chosen by hash", examples=[0.05]
    )
    separate_near_duplicates: bool = Field(
        True, description="leave out pieces that are nearly the same as one on the other side of the split"
    )
    deduplicate: bool = Field(True, description="leave out pieces whose text came before; case and blanks are ignored")
    evaluation_tokens: int = Field(
        16384,
        ge=64,
        description="most held-out tokens of an evaluation; a node has one every round",
        examples=[65536],
    )
    packing: Literal["concatenate", "best_fit"] = Field(
        "concatenate",
        description="concatenate: pieces are joined and cut anywhere; best_fit: whole pieces, separated by a mask",
    )
    processes: int | None = Field(
        None, ge=1, le=1024, description="processes that turn text into tokens; null: one per core", examples=[4]
    )
    loader_threads: int = Field(
        1,
        ge=0,
        le=64,
        description="threads that prepare batches ahead; 0: each batch is prepared when it is needed",
        examples=[2],
    )
    file_timeout_s: float = Field(
        60.0,
        gt=0,
        description="seconds of processor time; a PDF, EPUB, DOCX, ODT or HTML file that takes longer is skipped",
        examples=[300],
    )
    file_memory_mb: int = Field(
        2048, ge=256, description="such a file that needs more memory, in MiB, is skipped", examples=[4096]
    )
    pdf: PdfConfig = PdfConfig()
    offline: bool = Field(
        False, description="never use the network; data sets and tokenizers of the hub must have been downloaded before"
    )
