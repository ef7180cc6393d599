"""The part of a recipe about the model: its shape, and which nodes hold its experts."""

from typing import Literal, Self

from pydantic import Field, model_validator

from trfmoe_core.config.section import Name, Section


class RopeScaling(Section):
    """How rotary positions are stretched beyond the length on which a model was first trained."""

    kind: Literal["linear", "llama3"] = Field(
        description="linear: every angle is divided by factor; llama3: only those of long waves are (arXiv 2407.21783)"
    )
    factor: float = Field(ge=1, description="by how much the angles are divided", examples=[8])
    low_freq_factor: float = Field(
        1.0, gt=0, description="llama3: waves longer than context / this are stretched", examples=[2]
    )
    high_freq_factor: float = Field(
        4.0, gt=0, description="llama3: waves shorter than context / this stay as they are", examples=[8]
    )
    original_context: int = Field(
        8192, ge=1, description="llama3: tokens a sequence of the first training", examples=[4096]
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind == "llama3" and self.high_freq_factor <= self.low_freq_factor:
            raise ValueError(
                f"high_freq_factor: {self.high_freq_factor} is not above low_freq_factor {self.low_freq_factor}"
            )
        return self


class ModelConfig(Section):
    """Shape of the decoder-only mixture-of-experts transformer (Mixtral's layout, arXiv 2401.04088)."""

    layers: int = Field(
        4, ge=1, le=256, description="transformer layers, each with attention and experts", examples=[12]
    )
    width: int = Field(128, ge=8, le=65536, description="numbers that stand for a token between layers", examples=[768])
    heads: int = Field(4, ge=1, le=1024, description="attention heads; divides width", examples=[12])
    kv_heads: int | None = Field(
        None, ge=1, le=1024, description="null: as many as heads; fewer: grouped-query attention", examples=[4]
    )
    experts: int = Field(8, ge=1, le=4096, description="experts per layer", examples=[16])
    top_k: int = Field(2, ge=1, le=64, description="experts per token", examples=[1])
    expert_width: int = Field(
        176,
        ge=1,
        le=262144,
        description="inner width of one expert; top_k of them make about 8/3 of width",
        examples=[1024],
    )
    shared_width: int = Field(
        0,
        ge=0,
        le=262144,
        description="hidden width of a network that every token takes besides its experts; 0: none",
        examples=[1024],
    )
    context: int = Field(128, ge=8, le=1048576, description="tokens per sequence", examples=[1024])
    head_dim: int | None = Field(
        None, ge=2, le=65536, description="width of a head; null: width / heads", examples=[128]
    )
    qkv_bias: bool = Field(False, description="true: queries, keys and values have a bias, as in Qwen2")
    vocab_size: int | None = Field(
        None,
        ge=1,
        le=1 << 24,
        description="rows of the embedding; null: the tokenizer's, padded to a multiple of 64",
        examples=[50304],
    )
    rope_theta: float = Field(
        10000.0, gt=0, description="base of the rotary position embedding; larger for long contexts", examples=[1e6]
    )
    rope_scaling: RopeScaling | None = Field(
        None,
        description="stretches rotary positions; null: no stretching",
        examples=[{"kind": "linear", "factor": 4.0}],
    )
    norm_eps: float = Field(1e-5, gt=0, lt=1, description="what RMSNorm adds to the mean square", examples=[1e-6])
    tie_embeddings: bool = Field(False, description="the output layer uses the embedding's weights")
    init_std: float = Field(0.02, gt=0, le=1, description="standard deviation of the initial weights", examples=[0.01])
    balance: Literal["per_layer", "pooled"] = Field(
        "per_layer",
        description="over what experts are kept evenly busy: each layer, or all pooled as in Hugging Face's Mixtral",
    )
    balance_weight: float = Field(
        0.01, ge=0, le=10, description="weight of the loss that keeps experts evenly busy; 0: none", examples=[0.02]
    )
    z_loss_weight: float = Field(
        0.0, ge=0, le=10, description="weight of the router's z-loss (arXiv 2202.08906)", examples=[0.001]
    )
    expert: Name = Field(
        "swiglu",
        description="kind of expert: swiglu, gelu, low_rank (small changes of one network a layer), or one of your own",
        examples=["low_rank"],
    )
    rank: int = Field(
        16, ge=1, le=65536, description="of the changes that experts of kind low_rank make to a matrix", examples=[8]
    )
    alpha: float | None = Field(
        None,
        gt=0,
        le=1e6,
        description="kind low_rank: changes are multiplied by alpha / rank; null: twice the rank",
        examples=[32],
    )
    attention: Name = Field(
        "rotary", description="kind of attention: rotary, normed, normed_whole, or your own", examples=["normed"]
    )
    norm_position: Literal["before", "after"] = Field(
        "before", description="before: attention and experts read normalised rows; after: what they add is normalised"
    )
    normalize_top_k: bool = Field(True, description="true: the weights of a token's experts sum to 1")
    document_mask: bool = Field(False, description="true: a token attends only to its own document")

    @property
    def num_kv_heads(self) -> int:
        """Number of key-value heads, with the default applied."""
        return self.heads if self.kv_heads is None else self.kv_heads

    @property
    def head_width(self) -> int:
        """Width of one attention head."""
        return self.width // self.heads if self.head_dim is None else self.head_dim

    @property
    def low_rank_scale(self) -> float:
        """What the changes of experts of kind low_rank are multiplied by."""
        return 2.0 if self.alpha is None else self.alpha / self.rank

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = []
        if self.expert == "low_rank" and self.rank > min(self.width, self.expert_width):
            problems.append(
                f"rank: {self.rank} is above the smaller of width {self.width} and expert_width {self.expert_width}, "
                "so nothing is saved; lower it"
            )
        if self.head_dim is None and self.width % self.heads:
            problems.append(f"heads: {self.heads} does not divide width {self.width}; choose a divisor")
        elif self.head_width % 2:
            key = "heads: width/heads" if self.head_dim is None else "head_dim"
            problems.append(f"{key} = {self.head_width} is odd; rotary embeddings need an even head width")
        if self.heads % self.num_kv_heads:
            problems.append(f"kv_heads: {self.num_kv_heads} does not divide heads {self.heads}; choose a divisor")
        if self.top_k > self.experts:
            problems.append(f"top_k: {self.top_k} is above experts {self.experts}; choose 1..{self.experts}")
        if problems:
            raise ValueError("; ".join(problems))
        return self


class ExpertsConfig(Section):
    """Which nodes hold experts, and what a node does with the experts that it does not hold."""

    replication: int = Field(
        3, ge=1, description="nodes that train every expert: 3, or a larger odd number", examples=[5]
    )
    unheld: Literal["train", "freeze", "absent"] = Field(
        "train",
        description="train: trained but not sent; freeze: used but not trained; absent: not on the node",
    )
    absent_routing: Literal["restrict", "skip"] = Field(
        "restrict",
        description="restrict: tokens go to the best experts on the node; skip: to the best of all experts, and "
        "those that are absent add nothing (arXiv 2606.19025)",
    )


def replication_objection(replication: int) -> str:
    """Returns why a vote cannot have this number of replicas; empty if it can."""
    if replication < 3:
        return f"{replication}: a vote needs at least 3 replicas to outvote one"
    if replication % 2 == 0:
        return (
            f"{replication}: an even number of replicas can split in halves without a majority, and tolerates no "
            f"more faults than {replication - 1}; choose {replication - 1} or {replication + 1}"
        )
    return ""
