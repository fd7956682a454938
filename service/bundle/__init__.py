"""A model's folder: its manifest of facts and its checked files."""

from service.bundle.manifest import Manifest
from service.bundle.signatures import TrustedKeys
from service.bundle.store import Bundle, open_bundle, read_bundle, write_bundle

__all__ = ["Bundle", "Manifest", "TrustedKeys", "open_bundle", "read_bundle", "write_bundle"]
