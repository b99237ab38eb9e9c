#!/usr/bin/env python3
"""Writes docs/api.md from docs/openapi.json, on standard output.

The description of the API lives in the code (utoipa); docs/openapi.json is what `prover-pod openapi` prints, and this is the
same for people. `make openapi` writes both, `make lint` checks both.
"""

import json
import sys

HEAD = """\
<!-- Written by scripts/api-docs.py from openapi.json. Do not edit: `make openapi` writes it anew. -->

# HTTP API of a prover pod

{description}

The machine-readable form is [openapi.json](openapi.json); a running pod serves its own at `/openapi.json`. The paths carry the
version of the wire format: within `/v1/` fields and problem types are added, never changed or taken away.

## In short

A job in, the proof out, on one connection:

```console
$ curl --fail-with-body --data-binary @job.json -H 'X-Priority: high' http://127.0.0.1:8080/v1/proofs -o proof.bin
```

Or without holding a connection for minutes:

```console
$ curl --data-binary @job.json -H 'Prefer: respond-async' -H 'X-Client-Id: me' http://127.0.0.1:8080/v1/proofs
$ curl -N http://127.0.0.1:8080/v1/proofs/$ID/events           # progress, to the end
$ curl -o proof.bin http://127.0.0.1:8080/v1/proofs/$ID/proof
$ curl -X DELETE -H 'X-Client-Id: me' http://127.0.0.1:8080/v1/proofs/$ID   # not wanted any more
```

- **The job** is the JSON document that neptune-core writes to its prover: `program`, `claim`, `non_determinism`,
  `max_log2_padded_height`, `env_vars`. At most 256 MiB after decompression; send it as gzip or zstd (`Content-Encoding`) if you
  like. A pod of a mock network takes a [MockJob](#mockjob) instead.
- **The id** of a job is the Tip5 hash of its claim, proof version included: 80 hexadecimal digits. Equal claims are one job.
- **The proof** is `bincode(Proof)`, little-endian, as neptune-core and xnt-core read it. It was verified by the pod; verify it again.
- **Compression**: answers other than proofs and events come as gzip or zstd to those who send `Accept-Encoding`.
- **Authorization**: a pod with `--token-file` wants `Authorization: Bearer <token>` on all paths under `/v1/`.
- **Errors** are problem documents (RFC 9457, `application/problem+json`); their [types](#problemtype) are stable.
"""


def schema_type(schema: dict) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{name.lower()})"
    for key in ("oneOf", "anyOf", "allOf"):
        if key in schema:
            kinds = [schema_type(kind) for kind in schema[key] if kind.get("type") != "null"]
            return " or ".join(kinds)
    kind = schema.get("type", "any")
    kinds = [kind] if isinstance(kind, str) else [one for one in kind if one != "null"]
    text = " or ".join(kinds)
    if "array" in kinds:
        text = f"list of {schema_type(schema.get('items', {}))}"
    if "object" in kinds and isinstance(schema.get("additionalProperties"), dict):
        text = f"object of {schema_type(schema['additionalProperties'])}"
    bounds = [f"{sign} {schema[key]:g}" for key, sign in (("minimum", "≥"), ("maximum", "≤")) if schema.get(key)]
    return ", ".join([text, *bounds])


def one_line(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def operation(method: str, path: str, what: dict) -> list[str]:
    lines = [f"### `{method.upper()} {path}`", ""]
    lines += [what.get("summary", ""), ""]
    if what.get("description"):
        lines += [what["description"], ""]
    parameters = [p for p in what.get("parameters", []) if p["in"] != "path"]
    if parameters:
        lines += ["| header | type | |", "|---|---|---|"]
        lines += [f"| `{p['name']}` | {schema_type(p['schema'])} | {one_line(p.get('description', ''))} |" for p in parameters]
        lines.append("")
    lines += ["| status | body | |", "|---|---|---|"]
    for status, answer in sorted(what["responses"].items()):
        bodies = []
        for media, content in answer.get("content", {}).items():
            schema = content.get("schema")
            named = schema is not None and ("$ref" in schema or "$ref" in schema.get("items", {}))
            bodies.append(schema_type(schema) if named else f"`{media}`")
        lines.append(f"| {status} | {', '.join(bodies)} | {one_line(answer.get('description', ''))} |")
    return [*lines, ""]


def component(name: str, schema: dict) -> list[str]:
    lines = [f"### {name}", ""]
    if schema.get("description"):
        lines += [schema["description"].rstrip(), ""]
    if "properties" in schema:
        required = set(schema.get("required", []))
        lines += ["| field | type | |", "|---|---|---|"]
        for field, what in schema["properties"].items():
            often = "" if field in required else "optional; "
            lines.append(f"| `{field}` | {schema_type(what)} | {often}{one_line(what.get('description', ''))} |")
        lines.append("")
    elif "oneOf" in schema:
        lines += ["| value | |", "|---|---|"]
        for variant in schema["oneOf"]:
            values = ", ".join(f"`{value}`" for value in variant.get("enum", []))
            lines.append(f"| {values} | {one_line(variant.get('description', ''))} |")
        lines.append("")
    elif "enum" in schema and "|---|" not in schema.get("description", ""):
        lines += ["One of " + ", ".join(f"`{value}`" for value in schema["enum"]) + ".", ""]
    return lines


def main() -> int:
    with open(sys.argv[1], encoding="utf-8") as file:
        api = json.load(file)
    lines = [HEAD.format(description=api["info"]["description"]).replace("\n\n\n", "\n\n")]
    groups: dict[str, list[str]] = {}
    for path, operations in api["paths"].items():
        for method, what in operations.items():
            groups.setdefault(what["tags"][0], []).extend(operation(method, path, what))
    for tag, title in {"proofs": "Jobs and proofs", "pod": "The pod itself"}.items():
        lines += [f"## {title}", "", *groups.pop(tag)]
    assert not groups, f"no place for {', '.join(groups)}"
    lines += ["## Types", ""]
    for name, schema in api["components"]["schemas"].items():
        lines += component(name, schema)
    print("\n".join(lines).rstrip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
