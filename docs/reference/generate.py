"""The pages of this folder: `python docs/reference/generate.py` writes them, from the code.

What a page says of a setting, key or failure is its bounds and the docstring under it, of a metric
or option its help. Nothing here knows any of them by name.
"""

import ast
import inspect
import itertools
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click
import orjson
import yaml
from prometheus_client.metrics_core import Metric
from pydantic import BaseModel

from service.api.keys import KeyFile
from service.api.problems import STATUS, problem
from service.bundle.manifest import Manifest
from service.cli import main
from service.errors import (
    BundleError,
    CapacityError,
    ClientError,
    DunnoError,
    ServiceError,
    code_of,
)
from service.prediction.catalogue import CatalogueFile
from service.settings import PREFIX, Settings
from service.telemetry.metrics import KEY_OUTCOMES, Metrics
from service.telemetry.series import Counter, Gauge, Histogram

HERE = Path(__file__).parent
MONITORING = HERE.parents[1] / "k8s/monitoring"
MADE = "<!-- Made by `make reference` from the code; changes belong there. -->"

UNITS = {
    "_ms": "milliseconds",
    "_s": "seconds",
    "_bytes": "bytes",
    "_rows": "rows",
    "_pixels": "pixels",
    "_side": "pixels",
    "_threads": "threads",
    "_requests": "requests",
    "_connections": "connections",
    "_headers": "headers",
}
"""End of a setting's name -> what its number counts."""

MANY = ("model", "version", "label", "key", "candidate", "runtime", "device", "sha256", "protocol")
"""Labels of metrics whose values the models, keys and protocols of a server make."""


ABOUT_SETTINGS = """
Environment variables of the server, read once at the start. `dunno check` prints their values. Elements of lists are separated by
commas. Settings of models are in [catalogue.toml](catalogue.md).
"""
ABOUT_MANIFEST = """
Facts about a model: `manifest.json` in a bundle. `dunno train` and `dunno pack` write it; do not edit it. Unknown keys are refused.
Shapes are given without the first axis (rows). Shares, risks and probabilities are between 0 and 1.
"""
ABOUT_CATALOGUE = """
Settings of the served models: `catalogue.toml` in the models folder. Unknown keys are refused. The server reads it at the start, on
SIGHUP, on `POST /reload` at the admin address, and after changes if `DUNNO_WATCH_MODELS_S` is set.
"""
ABOUT_KEYS = """
# The keys

The file in `DUNNO_KEYS`. It is read again with the catalogue. `dunno key` prints lines for it.
"""
ABOUT_ERRORS = """
All errors, grouped by who has to act. Native routes answer with a problem document of RFC 9457 (`application/problem+json`). `type`
and `title` are stable, `detail` is for people, and `request_id` is also in the log. If a value in the body is wrong, there are also
`place`, `expected` and `got`; if a model name is unknown, `models`. `/v1` and `/v2` answer `{"error": detail}` with the same status,
except 400 instead of 422 and, on `/v1`, instead of 415. `Retry-After` is in whole seconds, at least 1.

There are three more codes: `not_found` (404), `method_not_allowed` (405) and `internal` (500). Errors that close a connection are in
[the table of limits](../behaviour.md#limits). What to do about a status:
[What do 400, 413, … mean?](../how-to/statuses.md)
"""
ABOUT_METRICS = """
The metrics of `/metrics`, in base units. Label values are listed if they do not depend on the served models; others appear with their
first event. A histogram has `_bucket`, `_sum` and `_count`. With several workers each series has the label `worker`: sum over it after
`rate()`. Panels are those of the dashboard in `k8s/monitoring`, alerts those of its rules.
Queries for other servers are [translated here](../migrating-metrics.md).
"""
ABOUT_COMMAND = """
The commands of `dunno`, as `--help` prints them. `train`, `evaluate` and `pack` need the extra `training`, `sign` needs `signing`.
Exit code 2 means that something must be fixed first. Further exit codes are in the text of a command.
"""


def cell(text: str) -> str:
    """Return a text as a cell of a table holds it."""
    return " ".join(text.split()).replace("|", "\\|")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *([cell(each) for each in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(title: str, about: str, *parts: str) -> str:
    """Return a whole page."""
    return "\n\n".join([MADE, f"# {title}", about.strip(), *parts]) + "\n"


def paragraphs(owner: object) -> list[str]:
    """Return the paragraphs of a docstring, each on one line."""
    return [" ".join(each.split()) for each in (inspect.getdoc(owner) or "").split("\n\n")]


# Fields of models: settings, manifest, catalogue, keys


def sentences(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstring under each field of a model, from the source."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    assert isinstance(definition, ast.ClassDef)
    return {
        field.target.id: " ".join(str(text.value.value).split())
        for field, text in itertools.pairwise(definition.body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
    }


def code(value: object) -> str:
    """Return a value as JSON writes it, marked as code."""
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def between(schema: Mapping[str, Any]) -> str:
    """Return the bounds of a number in words, such as `0 to 1,000`."""
    bounds = {key: f"{schema[key]:,.15g}" for key in BOUNDS if key in schema}
    if {"minimum", "maximum"} <= bounds.keys():
        return f" {bounds['minimum']} to {bounds['maximum']}"
    return "".join(f" {BOUNDS[key].format(bound)}" for key, bound in bounds.items())


BOUNDS = {
    "minimum": "from {} on",
    "exclusiveMinimum": "above {}",
    "maximum": "to {}",
    "exclusiveMaximum": "below {}",
}
"""Key of a JSON schema -> the same in words."""


def text_in_words(schema: Mapping[str, Any]) -> str:
    """Return what a schema of texts takes."""
    if schema.get("format") == "path":
        return "path"
    if "pattern" in schema:
        return f"text like `{schema['pattern']}`"
    least = schema.get("minLength", 0)
    return f"text of at least {least} characters" if least > 1 else "text"


def list_in_words(schema: Mapping[str, Any]) -> str:
    """Return what a schema of lists takes."""
    if "prefixItems" in schema:
        return f"list: {', '.join(in_words(each) for each in schema['prefixItems'])}"
    least, most = schema.get("minItems", 0), schema.get("maxItems")
    counted = f" of {least} to {most}" if most else f" of at least {least}" if least else ""
    return f"list{counted}, each {in_words(schema['items'])}"


def object_in_words(schema: Mapping[str, Any]) -> str:
    """Return what a schema of objects with free keys takes."""
    for pattern, each in schema.get("patternProperties", {}).items():
        return f"object: text like `{pattern}` → {in_words(each)}"
    return f"object: text → {in_words(schema['additionalProperties'])}"


KINDS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "null": lambda _: "`null`",
    "boolean": lambda _: "`true` or `false`",
    "integer": lambda schema: f"whole number{between(schema)}",
    "number": lambda schema: f"number{between(schema)}",
    "string": text_in_words,
    "array": list_in_words,
    "object": object_in_words,
}


def in_words(schema: Mapping[str, Any]) -> str:
    """Return in words what a JSON schema takes."""
    for choice in ("anyOf", "oneOf"):
        if choice in schema:
            return " or ".join(in_words(each) for each in schema[choice])
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "const" in schema:
        return code(schema["const"])
    if "enum" in schema:
        return " or ".join(code(each) for each in schema["enum"])
    return KINDS[schema["type"]](schema)


def given(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema without `null`, for forms that cannot write it."""
    choices = [each for each in schema.get("anyOf", ()) if each.get("type") != "null"]
    return dict(choices[0]) if len(choices) == 1 else dict(schema)


def schemas(model: type[BaseModel]) -> Iterator[tuple[type[BaseModel], Mapping[str, Any]]]:
    """Yield a model and all that it holds, each before its own parts, with their JSON schemas."""
    whole = model.model_json_schema()
    parts = whole.get("$defs", {})
    waiting, seen = [(model.__name__, whole)], {model.__name__}
    while waiting:
        name, schema = waiting.pop(0)
        yield found_beside(model, name), schema
        text = json.dumps(schema["properties"])
        new = [each for each in re.findall(r"#/\$defs/(\w+)", text) if each not in seen]
        seen |= {*new}
        waiting = [(each, parts[each]) for each in dict.fromkeys(new)] + waiting


def found_beside(model: type[BaseModel], name: str) -> type[BaseModel]:
    """Return a model by its name, as the module of another one knows it."""
    found: type[BaseModel] = vars(sys.modules[model.__module__])[name]
    return found


def default_of(schema: Mapping[str, Any], name: str) -> str:
    """Return the default of a field in words."""
    if name in schema.get("required", ()):
        return "required"
    value = schema["properties"][name]["default"]
    return code(value) if value not in (None, [], {}, "") else "none" if value is None else "empty"


def fields(model: type[BaseModel], *, has_null: bool) -> str:
    """Return a section for a model and for each that it holds."""
    parts = []
    for each, schema in schemas(model):
        said, rows = sentences(each), []
        for name, field in schema["properties"].items():
            takes = in_words(field if has_null else given(field))
            rows.append((f"`{name}`", takes, default_of(schema, name), said[name]))
        parts += [f"## {each.__name__}", "\n\n".join(paragraphs(each)), table(FIELD, rows)]
    return "\n\n".join(parts)


FIELD = ("key", "takes", "default", "meaning")


def settings() -> str:
    """Return the page of the DUNNO_* variables; their values are written as a shell takes them."""
    said, schema = sentences(Settings), Settings.model_json_schema()
    rows = []
    for name, field in schema["properties"].items():
        counts = {"integer", "number"} & {given(field).get("type")}
        units = [unit for end, unit in UNITS.items() if counts and name.endswith(end)]
        takes = " ".join([in_words(given(field)), *units]).replace('"', "")
        default = default_of(schema, name).replace('"', "")
        rows.append((f"`{PREFIX}{name.upper()}`", default, takes, said[name]))
    return page("Settings", ABOUT_SETTINGS, table(("variable", *FIELD[2:0:-1], "meaning"), rows))


def manifest() -> str:
    """Return the page of `manifest.json`."""
    return page("The manifest", ABOUT_MANIFEST, fields(Manifest, has_null=True))


def catalogue() -> str:
    """Return the page of `catalogue.toml` and of the file of keys."""
    chosen, keys = (fields(each, has_null=False) for each in (CatalogueFile, KeyFile))
    return page("The catalogue", ABOUT_CATALOGUE, chosen, ABOUT_KEYS.strip(), keys)


# Failures


class Failure(NamedTuple):
    """What a caller sees of one class of failure, and what its docstring says."""

    kind: type[DunnoError]
    code: str
    status: int
    title: str
    type: str
    when: str
    to_do: str


def failure(kind: type[DunnoError]) -> Failure:
    """Return what is to be said of a class of failure."""
    name = code_of(kind.__new__(kind))
    shown = orjson.loads(problem(STATUS[kind], name, "", ""))
    when, to_do = paragraphs(kind)[:2]
    return Failure(kind, name, shown["status"], shown["title"], shown["type"], when, to_do)


FAILURE = ("code", "status", "title", "type", "Retry-After", "when", "what to do")


def failures(base: type[DunnoError]) -> str:
    """Return the section of a base and of all below it, in the order of the one table."""
    rows = []
    for each in (failure(kind) for kind in STATUS if issubclass(kind, base)):
        again = "yes" if issubclass(each.kind, CapacityError) else "no"
        wire = (f"`{each.code}`", str(each.status), each.title, f"`{each.type}`", again)
        rows.append((*wire, each.when, each.to_do))
    return f"## {base.__name__}\n\n{paragraphs(base)[0]}\n\n{table(FAILURE, rows)}"


def errors() -> str:
    """Return the page of failures."""
    bases = (ClientError, CapacityError, ServiceError, BundleError)
    return page("Failures", ABOUT_ERRORS, *(failures(base) for base in bases))


# Metrics


class Family(NamedTuple):
    """One metric as a scrape tells it."""

    name: str
    kind: str
    labels: tuple[str, ...]
    values: Mapping[str, Sequence[str]]
    """Label -> values that are there before the first request; without those of `MANY`."""

    buckets: Sequence[str]
    meaning: str

    @property
    def samples(self) -> set[str]:
        """Names that a query can ask for."""
        ends = ("_bucket", "_sum", "_count") if self.kind == "histogram" else ("",)
        return {self.name + end for end in ends}


def served_metrics() -> Metrics:
    """Return the metrics of a process that serves one model and has seen no request."""
    metrics = Metrics()
    metrics.of_model("wine", "1", ("red", "white")).set_state("available")
    metrics.of_shadow("wine", "2", ("red", "white"))
    metrics.model_load_duration.labels("wine")
    metrics.model_warmup_duration.labels("wine")
    for outcome in KEY_OUTCOMES:
        metrics.key_requests.labels("shop", outcome)
    return metrics


def families() -> list[Family]:
    """Return every metric that Dunno counts, and then those of the process."""
    metrics = served_metrics()
    labels = {
        each.name: each.label_names
        for each in vars(metrics).values()
        if isinstance(each, Counter | Gauge | Histogram)
    }
    found = [family(each, labels.get(each.name)) for each in metrics.registry.collect()]
    return sorted(found, key=lambda each: not each.name.startswith("dunno_"))


def family(told: Metric, labels: Sequence[str] | None) -> Family:
    """Return what is to be said of a metric; `labels` are None where it is none of ours."""
    seen = [sample.labels for sample in told.samples]
    values = {
        label: list(dict.fromkeys(each[label] for each in seen if label in each))
        for label in labels or ()
        if label not in MANY
    }
    buckets = list(dict.fromkeys(each["le"] for each in seen if "le" in each))
    names = tuple(seen[0] if labels is None and seen else labels or ())
    name = f"{told.name}_total" if told.type == "counter" else told.name
    return Family(name, told.type, names, values, buckets, told.documentation)


def names_in(query: str) -> set[str]:
    """Return the words of a query, its metrics among them."""
    return {*re.findall(r"[a-zA-Z_:][\w:]*", query)}


def panels() -> dict[str, set[str]]:
    """Return the words in the queries of each panel of the dashboard, by its title."""
    drawn = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    return {
        each["title"]: set().union(*(names_in(target["expr"]) for target in each["targets"]))
        for each in drawn
        if each["type"] != "row"
    }


def alerts() -> dict[str, set[str]]:
    """Return the words in each alert's query, with those of the recorded rules that it asks."""
    groups = yaml.safe_load((MONITORING / "rules.yaml").read_text())["spec"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    recorded = {rule["record"]: names_in(rule["expr"]) for rule in rules if "record" in rule}
    found = {rule["alert"]: names_in(rule["expr"]) for rule in rules if "alert" in rule}
    return {
        alert: names.union(*(recorded[name] for name in names & recorded.keys()))
        for alert, names in found.items()
    }


METRIC = ("metric", "type", "labels", "meaning", "panels and alerts")


def line_of(each: Family, seen_in: Mapping[str, set[str]]) -> tuple[str, ...]:
    """Return the line of a metric."""
    labels = [
        f"`{label}`" + (f" ({', '.join(each.values[label])})" if each.values.get(label) else "")
        for label in each.labels
    ]
    users = [name for name, names in seen_in.items() if each.samples & names]
    return (f"`{each.name}`", each.kind, ", ".join(labels), each.meaning, ", ".join(users))


def metrics() -> str:
    """Return the page of metrics."""
    seen_in = {f"*{name}*": names for name, names in panels().items()}
    for name, names in alerts().items():
        seen_in[f"[{name}](../runbook.md#{name.lower()})"] = names
    found = families()
    ours = [each for each in found if each.name.startswith("dunno_")]
    others = [each for each in found if each not in ours]
    buckets = [(f"`{each.name}`", ", ".join(each.buckets)) for each in ours if each.buckets]
    return page(
        "Metrics",
        ABOUT_METRICS,
        table(METRIC, [line_of(each, seen_in) for each in ours]),
        "## Buckets",
        table(("histogram", "upper bounds"), buckets),
        "## The process",
        "As prometheus_client tells them on Linux.",
        table(METRIC, [line_of(each, seen_in) for each in others]),
    )


# The command line


def commands(command: click.Command, above: click.Context | None, name: str) -> Iterator[str]:
    """Yield the section of a command, and those of the commands below it."""
    context = click.Context(command, above, info_name=name, terminal_width=WIDTH)
    yield section(command, context)
    if isinstance(command, click.Group):
        for each in sorted(command.list_commands(context)):
            below = command.get_command(context, each)
            if below is not None and not below.hidden:
                yield from commands(below, context, each)


WIDTH = 100
OPTION = ("option", "default", "meaning")


def section(command: click.Command, context: click.Context) -> str:
    """Return what is to be said of one command."""
    usage = command.get_usage(context).removeprefix("Usage: ")
    parts = [f"## {context.command_path}", f"```text\n{usage}\n```", *paragraphs_of_help(command)]
    options = [each for each in command.params if isinstance(each, click.Option)]
    rows = [option_line(each, context) for each in options if not each.hidden]
    return "\n\n".join([*parts, *([table(OPTION, rows)] if rows else [])])


def paragraphs_of_help(command: click.Command) -> list[str]:
    """Return the help of a command; click's mark keeps the lines of a paragraph as they are."""
    found = []
    for each in inspect.cleandoc(command.help or "").split("\n\n"):
        kept = each.removeprefix("\b\n")
        found.append(" ".join(each.split()) if kept == each else f"```text\n{kept}\n```")
    return found


def option_line(option: click.Option, context: click.Context) -> tuple[str, str, str]:
    """Return the line of an option."""
    names, _ = option.get_help_record(context) or ("", "")
    about = option.get_help_extra(context)
    notes = ["required"] * option.required + ["may be repeated"] * option.multiple
    notes += [each for each in (about.get("range"),) if each]
    said = f"{option.help} ({', '.join(notes)})" if notes else str(option.help)
    return f"`{names}`", f"`{about['default']}`" if "default" in about else "", said


def command() -> str:
    """Return the page of the command line."""
    return page("The command line", ABOUT_COMMAND, *commands(main, None, "dunno"))


PAGES: Mapping[str, Callable[[], str]] = {
    "settings.md": settings,
    "metrics.md": metrics,
    "errors.md": errors,
    "manifest.md": manifest,
    "catalogue.md": catalogue,
    "command.md": command,
}
"""File beside this one -> what makes its content."""


if __name__ == "__main__":
    for file, made in PAGES.items():
        (HERE / file).write_text(made())
