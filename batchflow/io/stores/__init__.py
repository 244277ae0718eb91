"""Where outputs lie: folders of this machine, and object stores behind a URI, with the same few operations.

::

    Path("/data/clean")        Local      files, synced and renamed
    Uri("s3://bucket/clean")   Objects    objects, whole or not there; moved by copying them at the store

Which one is meant shows in the type of a place, so `store_of` needs nothing else. The formats know files
only: what workers make goes to a store, and comes from there, by way of `transit`.
"""

from batchflow.io.stores.base import META, Place, Store, meta_of, output_of, place_of, store_of
from batchflow.io.stores.uri import Uri, filesystem, is_uri, plain_path, why_refused

__all__ = [
    "META",
    "Place",
    "Store",
    "Uri",
    "filesystem",
    "is_uri",
    "meta_of",
    "output_of",
    "place_of",
    "plain_path",
    "store_of",
    "why_refused",
]
