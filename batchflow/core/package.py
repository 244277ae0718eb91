"""The package itself: its version and its folder."""

import os

__version__ = "0.1.0"

PACKAGE_DIR = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
"""Code in this folder is ours; frames and modules elsewhere are the user's."""
