#!/usr/bin/env python3
"""Checks that each room alone compiles the heavy crates with the features of the whole workspace.

When it does not, `cargo build -p ROOM` compiles triton-vm a second time: ten minutes on two cores. What is missing then
belongs into unified/Cargo.toml, and is printed.

Cargo's unit graph says exactly which crate would be compiled with which features. It is an unstable option; the toolchain is
pinned, so RUSTC_BOOTSTRAP=1 lets this one read-only query through.
"""

import json
import os
import subprocess
import sys

HEAVY = ("triton-vm", "neptune-consensus")


def cargo(*arguments: str) -> dict:
    command = ["cargo", *arguments]
    environment = {**os.environ, "RUSTC_BOOTSTRAP": "1"}
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout)


def name(unit: dict) -> str:
    # `…/index#name@1.2.3`, or `…/folder#1.2.3` for a crate named like its folder.
    source, _, last = unit["pkg_id"].partition("#")
    return last if "@" in last else f"{source.rsplit('/', 1)[-1]}@{last}"


def closure(selection: list[str], heavy: str) -> set[tuple]:
    """All that is compiled for a heavy crate, with features, for the target and for the host."""
    graph = cargo("build", "--release", "--locked", "--unit-graph", "-Zunstable-options", *selection)
    units = graph["units"]
    pending = [
        index
        for index, unit in enumerate(units)
        if name(unit).startswith(f"{heavy}@") and unit["mode"] == "build" and "lib" in unit["target"]["crate_types"]
    ]
    seen = set()
    while pending:
        index = pending.pop()
        if index not in seen:
            seen.add(index)
            pending.extend(dependency["index"] for dependency in units[index]["dependencies"])
    return {
        (name(unit), "/".join(unit["target"]["kind"]), unit["mode"], unit["profile"]["opt_level"], ",".join(unit["features"]))
        for unit in (units[index] for index in seen)
    }


def main() -> int:
    metadata = cargo("metadata", "--format-version", "1", "--locked", "--no-deps")
    wrong = 0
    for heavy in HEAVY:
        whole = closure(["--workspace"], heavy)
        for room in sorted(package["name"] for package in metadata["packages"]):
            # A room that does not use the crate has an empty closure and nothing to compile twice.
            alone = closure(["--package", room], heavy)
            for unit in sorted(alone - whole):
                wrong += 1
                print(f"feature-sets: {room} alone compiles {unit[0]} ({unit[1]}) for {heavy} with [{unit[4]}]", file=sys.stderr)
                for other in sorted(other for other in whole if other[:3] == unit[:3]):
                    print(f"              the whole workspace has [{other[4]}]", file=sys.stderr)
    if wrong:
        print("feature-sets: name the missing features in unified/Cargo.toml", file=sys.stderr)
        return 1
    print(f"feature-sets: one for all ({', '.join(HEAVY)})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
