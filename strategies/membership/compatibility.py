"""What coordinator and node must have in common. Both sides check it, so that each log has the reason."""

from strategies.exchange.messages import DescribeRequest, Description


def disagreement(request: DescribeRequest, description: Description) -> str | None:
    """Returns what a node and the coordinator must have in common but do not, with the remedy; else None."""
    ours, theirs = request.code_fingerprint, description.code_fingerprint
    if ours != theirs:
        return (
            f"the node's code {theirs[:12]} differs from the coordinator's {ours[:12]}; start the SuperLink from an "
            "empty folder and use one release everywhere"
        )
    ours, tokens = request.tokenizer_fingerprint, description.tokenizer_fingerprint
    if ours != tokens:
        return (
            f"the node's tokenizer {str(tokens)[:12]} differs from the coordinator's {ours[:12]}; copy the "
            "coordinator's tokenizer folder to the node and name it in the node's settings (tokenizer: FOLDER)"
        )
    return None
