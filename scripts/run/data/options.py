"""`--pdfs`: puts other files and folders in the place of the recipe's data."""

from pathlib import Path

from trfmoe_core.config import NodeSettings, Recipe
from trfmoe_core.counts import counted
from trfmoe_core.data.formats import kind_of, known_suffixes
from trfmoe_core.data.sources.archives import is_archive
from trfmoe_core.errors import ConfigError, DataError
from trfmoe_core.places import expand


def with_sources(recipe: Recipe, sources: list[Path]) -> Recipe:
    """Returns the recipe with its nodes' data replaced; no sources, no change.

    As many sources as nodes or more: one each in order, and a new node for each that is left. One folder: its files
    are dealt out by size.

    Raises:
        ConfigError: another number of sources.
        DataError: one folder that is none, or has fewer files than there are nodes.
    """
    if not sources:
        return recipe
    nodes = list(recipe.nodes)
    num_nodes = recipe.federation_size
    if len(sources) == 1:
        shares = deal_out(sources[0], num_nodes)
    elif len(sources) >= num_nodes:
        shares = [[str(expand(source).absolute())] for source in sources]
    else:
        raise ConfigError(
            f"--pdfs: given {counted(len(sources), 'time')}, and the recipe has {counted(num_nodes, 'node')}; "
            f"give it {num_nodes} times or more, one a node, or once for a folder whose files are dealt out"
        )
    taken = {node.name for node in nodes}
    for number in range(len(nodes) + 1, len(shares) + 1):
        name = f"node-{number}"
        while name in taken:
            name += "x"
        taken.add(name)
        nodes.append(NodeSettings.model_validate({"name": name, "data": ["-"]}))
    nodes = [node.model_copy(update={"data": share}) for node, share in zip(nodes, shares, strict=True)]
    data = recipe.data.model_copy(update={"sources": []})
    return recipe.model_copy(update={"nodes": nodes, "num_nodes": len(nodes), "data": data})


def deal_out(folder: Path, num_nodes: int) -> list[list[str]]:
    """Returns the files below a folder in `num_nodes` shares of about equal size: the largest first, to the smallest.

    Files of kinds that cannot be read are left out.

    Raises:
        DataError: not a folder, or fewer readable kinds of files than nodes.
    """
    root = expand(folder).absolute()
    if not root.is_dir():
        raise DataError(f"--pdfs {folder}: no such folder; give the folder whose files are dealt out to the nodes")
    files = sorted(
        str(path) for path in root.rglob("*") if (is_archive(path) or kind_of(path) != "other") and path.is_file()
    )
    if len(files) < num_nodes:
        raise DataError(
            f"--pdfs {folder}: {counted(len(files), 'readable file')}, too few to deal out to {num_nodes} nodes; "
            f"add files, or give --pdfs once a node. Readable are {known_suffixes()}"
        )
    sizes = {path: Path(path).stat().st_size for path in files}
    shares: list[list[str]] = [[] for _ in range(num_nodes)]
    for path in sorted(files, key=lambda path: (-sizes[path], path)):
        min(shares, key=lambda share: (sum(sizes[other] for other in share), len(share))).append(path)
    return [sorted(share) for share in shares]
