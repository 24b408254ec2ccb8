"""What libraries are told before they are imported: report nothing to your makers, ask nobody for updates."""

import os

SETTINGS = {
    "FLWR_TELEMETRY_ENABLED": "0",  # of Flower and flwr-datasets
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "HF_HUB_DISABLE_TELEMETRY": "1",  # of what flwr-datasets imports
}


def keep_to_ourselves() -> None:
    """Put the settings into this process's environment, which its children inherit; what the user set stays."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
