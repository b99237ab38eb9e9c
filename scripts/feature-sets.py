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


def described(unit: dict) -> str:
    return f"{name(unit)} ({'/'.join(unit['target']['kind'])}) with [{','.join(unit['features'])}]"


def closure(selection: list[str], heavy: str) -> dict[int, tuple[str, list[int]]]:
    """All that is compiled for a heavy crate, by identity: a unit with its features and, recursively, those of its dependencies.

    Without the recursion a crate that build scripts use with other features than the target does would hide a difference.
    """
    units = cargo("build", "--release", "--locked", "--unit-graph", "-Zunstable-options", *selection)["units"]
    identities: dict[int, int] = {}

    def identity(index: int) -> int:
        if index not in identities:
            unit = units[index]
            own = (name(unit), *unit["target"]["kind"], unit["mode"], unit["profile"]["opt_level"], *unit["features"])
            identities[index] = hash((own, tuple(sorted(identity(dependency["index"]) for dependency in unit["dependencies"]))))
        return identities[index]

    pending = [
        index
        for index, unit in enumerate(units)
        if name(unit).startswith(f"{heavy}@") and unit["mode"] == "build" and {"lib", "rlib"} & set(unit["target"]["crate_types"])
    ]
    seen: dict[int, tuple[str, list[int]]] = {}
    while pending:
        index = pending.pop()
        if index not in seen:
            dependencies = [dependency["index"] for dependency in units[index]["dependencies"]]
            seen[index] = (described(units[index]), [identity(dependency) for dependency in dependencies])
            pending.extend(dependencies)
    return {identity(index): what for index, what in seen.items()}


def main() -> int:
    metadata = cargo("metadata", "--format-version", "1", "--locked", "--no-deps")
    wrong = 0
    for heavy in HEAVY:
        whole = closure(["--workspace"], heavy)
        if not whole:
            print(f"feature-sets: the workspace does not compile {heavy}; is the check looking for the right crate?", file=sys.stderr)
            return 1
        for room in sorted(package["name"] for package in metadata["packages"]):
            # A room that does not use the crate has an empty closure and nothing to compile twice.
            for identity, (what, dependencies) in closure(["--package", room], heavy).items():
                # The crates at the root of a difference: their dependencies are all shared.
                if identity not in whole and all(dependency in whole for dependency in dependencies):
                    wrong += 1
                    crate = what.partition(" with ")[0]
                    print(f"feature-sets: {room} alone compiles {what} for {heavy}", file=sys.stderr)
                    for other in sorted({other for other, _ in whole.values() if other.startswith(f"{crate} with ")}):
                        print(f"              the whole workspace has {other}", file=sys.stderr)
    if wrong:
        print("feature-sets: name the missing features in unified/Cargo.toml", file=sys.stderr)
        return 1
    print(f"feature-sets: one for all ({', '.join(HEAVY)})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
