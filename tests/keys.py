"""A file of keys for tests, and the keys themselves."""

from pathlib import Path

from service.api.keys import digest_of

WHOLE, NEXT, NARROW, RARE, SCRAPER = "whole-key", "next-key", "narrow-key", "rare-key", "scrape-key"

ENTRIES = {
    "whole": f'sha256 = ["{digest_of(WHOLE)}", "{digest_of(NEXT)}"]',
    "narrow": f'sha256 = ["{digest_of(NARROW)}"]\nmodels = ["fruit"]',
    # So seldom that no test lives to see the next one.
    "rare": f'sha256 = ["{digest_of(RARE)}"]\nrequests_per_s = 0.001\nburst = 2',
    "scraper": f'sha256 = ["{digest_of(SCRAPER)}"]\nmodels = []\nmetrics = true',
}


def write_keys(folder: Path, **entries: str) -> Path:
    """Write a file of keys: those above unless others are given."""
    path = folder / "keys.toml"
    lines = [f"[keys.{name}]\n{entry}\n" for name, entry in (entries or ENTRIES).items()]
    path.write_text("\n".join(lines))
    path.chmod(0o600)
    return path


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}
