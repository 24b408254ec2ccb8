"""The page's own script: plain JavaScript, all parts in one scope.

In Python, so that it travels in Flower's app bundles. Nothing is loaded: numbers and drawing library are in the page.
"""

from typing import Final

from server.report.script import (
    clients,
    controls,
    core,
    cost,
    curves,
    differences,
    export,
    heatmap,
    looks,
    main,
    partition,
)

_PARTS: Final = (core, looks, controls, export, curves, heatmap, differences, partition, clients, cost, main)

SOURCE: Final = "".join(part.SOURCE for part in _PARTS)
"""The content of the script element."""
