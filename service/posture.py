"""The posture of a server: what its settings and files let others do, one sentence for each part.

What is UNSAFE and why stands in `docs/security.md`. Nothing is opened here but the file of keys.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

from service.api.keys import KeyFile, read_key_file
from service.prediction.catalogue import read_catalogue
from service.settings import Settings, is_loopback, unknown_variables

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
OTHERS_READ = stat.S_IRGRP | stat.S_IROTH


class Finding(NamedTuple):
    """One part of the posture."""

    level: Literal["ok", "note", "warning", "UNSAFE"]
    text: str


def find_posture(settings: Settings, environment: Mapping[str, str]) -> list[Finding]:
    """Return how open a server with these settings is.

    Raises:
        BundleError: if the catalogue or the keys cannot be read.
    """
    return [
        _data_address(settings),
        *_keys(settings),
        _admin_address(settings),
        _metrics(settings),
        _signatures(settings),
        _models(settings.models),
        _pages(settings),
        *_process(environment),
    ]


def _data_address(settings: Settings) -> Finding:
    where = f"listening on {settings.host}"
    if is_loopback(settings.host):
        return Finding("ok", f"{where}: only this machine reaches it")
    if settings.keys is not None:
        return Finding("ok", f"{where}: callers show a key; let a proxy in front encrypt it")
    everybody = f"{where}: everybody who reaches this address can predict"
    if settings.allow_anonymous:
        text = f"{everybody}, as DUNNO_ALLOW_ANONYMOUS says; only the network decides who does"
        return Finding("warning", text)
    text = f"{everybody}; set DUNNO_KEYS, or DUNNO_ALLOW_ANONYMOUS=true if the network decides"
    return Finding("UNSAFE", text)


def _keys(settings: Settings) -> Iterator[Finding]:
    path = settings.keys
    if path is None:
        yield Finding("ok", "no keys: nobody has to show one")
        return
    file = read_key_file(path)
    writable = list(_writable([path, path.parent, path.resolve(), path.resolve().parent]))
    if writable:
        yield Finding("UNSAFE", f"keys: others than their owner may write {writable[0]}")
    elif path.stat().st_mode & OTHERS_READ:
        text = f"keys: others than their owner may read {path}; it holds digests and limits only"
        yield Finding("warning", text)
    else:
        yield Finding("ok", f"keys: {len(file.keys)} callers in {path}, for its owner only")
    yield from _unserved(file, settings.models)


def _unserved(file: KeyFile, models: Path) -> Iterator[Finding]:
    served = read_catalogue(models).models
    for name, entry in file.keys.items():
        for model in entry.models or ():
            if model not in served:
                yield Finding("warning", f"keys.{name}.models: {model!r} is not in the catalogue")


def _admin_address(settings: Settings) -> Finding:
    if settings.admin_port is None:
        return Finding("ok", "admin: there is no such address")
    where = f"admin: {settings.admin_host}:{settings.admin_port}"
    if settings.admin_key is not None:
        return Finding("ok", f"{where}: callers show DUNNO_ADMIN_KEY")
    return Finding("ok", f"{where}: every user of this machine may reload; none from elsewhere")


def _metrics(settings: Settings) -> Finding:
    if settings.metrics_port is not None:
        where = f"metrics: {settings.metrics_host}:{settings.metrics_port}"
        if is_loopback(settings.metrics_host):
            return Finding("ok", f"{where}: only this machine reaches it")
        return Finding("warning", f"{where}: everybody who reaches it learns models and traffic")
    if settings.keys is not None:
        return Finding("ok", "metrics: on the address of the models, for keys with `metrics`")
    if is_loopback(settings.host):
        return Finding("ok", "metrics: on the address of the models, for this machine only")
    text = "metrics: on the address of the models, for everybody; DUNNO_METRICS_PORT parts them"
    return Finding("warning", text)


def _signatures(settings: Settings) -> Finding:
    if settings.trusted_keys:
        text = "signatures: every bundle is what one of the keys in DUNNO_TRUSTED_KEYS signed"
        return Finding("ok", text)
    text = (
        "signatures: not looked at, as DUNNO_TRUSTED_KEYS is not set; whoever can write to the "
        "folder of models decides what is answered"
    )
    return Finding("note", text)


def _models(models: Path) -> Finding:
    writable = list(_writable([models, *sorted(_inside(models, set()))]))
    if not writable:
        return Finding("ok", f"models: only their owner may write {models}")
    more = f" and {len(writable) - 1} more" if writable[1:] else ""
    return Finding("UNSAFE", f"models: others than their owner may write {writable[0]}{more}")


def _inside(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Yield all that lies in a folder, behind links as well, but for links to nowhere."""
    if folder.resolve() in seen:
        return
    seen.add(folder.resolve())
    for path in folder.iterdir():
        if path.exists():
            yield path
            if path.is_dir():
                yield from _inside(path, seen)


def _writable(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield those that others than their owner may change, now and where they are mounted."""
    for path in paths:
        is_mounted_to_read = bool(os.statvfs(path).f_flag & os.ST_RDONLY)
        if path.stat().st_mode & OTHERS_WRITE and not is_mounted_to_read:
            yield path


def _pages(settings: Settings) -> Finding:
    origins = f"; pages of {', '.join(settings.cors_origins)}" if settings.cors_origins else ""
    if not settings.docs_page:
        return Finding("ok", f"pages: none{origins}")
    if is_loopback(settings.host) or settings.keys is not None:
        return Finding("ok", f"pages: /docs, for those who can predict{origins}")
    return Finding("note", f"pages: /docs, for everybody; DUNNO_DOCS_PAGE=false ends it{origins}")


def _process(environment: Mapping[str, str]) -> Iterator[Finding]:
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        yield Finding("warning", "process: runs as root, and needs no right of root's")
    for name in unknown_variables(environment):
        text = f"{name} is no setting and has no effect; is it misspelled?"
        yield Finding("warning", text)
