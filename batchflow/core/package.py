"""Version and folder of the package."""

import os

__version__ = "0.1.0"

PACKAGE_DIR = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
"""Folder of this package; frames and modules elsewhere are the user's."""
