#!/usr/bin/env python3
"""What is inside the program: an SBOM (CycloneDX 1.5, JSON) and the licences of everything that is linked into it.

    packaging/inventory.py TARGET OUT      writes OUT/sbom.cdx.json and OUT/third-party-licences.txt

Crates come from cargo itself (`cargo tree` for this target without dev, build and macro crates), C sources that crates bring along
from their own files. The same sources give the same files; times come from SOURCE_DATE_EPOCH. Needs Python 3.11.
"""

import datetime
import hashlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib
import uuid

ROOT = pathlib.Path(__file__).resolve().parent.parent
LICENCE_FILE = re.compile(r"^(licen[cs]e|copying|copyright|notice|unlicense)", re.IGNORECASE)


def cargo(*arguments):
    return subprocess.run(["cargo", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout


def linked(target):
    """(name, version) of every crate that is linked into the program, our own first."""
    tree = cargo("tree", "--locked", "--target", target, "--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}")
    found = []
    for line in tree.splitlines():
        name, version = line.split()[:2]
        if (name, version.removeprefix("v")) not in found:
            found.append((name, version.removeprefix("v")))
    return found


def texts(folder):
    """The licence files of a folder, with their names."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and LICENCE_FILE.match(path.name))
    return [(path.name, path.read_text(errors="replace").strip()) for path in files]


def first(pattern, path):
    match = re.search(pattern, path.read_text(errors="replace"))
    if not match:
        raise SystemExit(f"inventory: no version in {path}")
    return ".".join(match.groups())


def bundled(package, folder):
    """C sources that a crate brings along and links: (name, version, licence, texts)."""
    if package == "libsqlite3-sys":
        version = first(r'#define SQLITE_VERSION\s+"([0-9.]+)"', folder / "sqlite3" / "sqlite3.h")
        return [("sqlite", version, "blessing", [("sqlite3.c", "SQLite is in the public domain: https://sqlite.org/copyright.html")])]
    if package == "libdbus-sys":
        source = folder / "vendor" / "dbus"
        parts = r"m4_define\(\[dbus_major_version\], \[(\d+)\]\)\s+m4_define\(\[dbus_minor_version\], \[(\d+)\]\)\s+m4_define\(\[dbus_micro_version\], \[(\d+)\]\)"
        version = first(parts, source / "configure.ac")
        found = texts(source) + (texts(source / "LICENSES") if (source / "LICENSES").is_dir() else [])
        return [("dbus", version, "AFL-2.1 OR GPL-2.0-or-later", found)]
    return []


def beside_cargo():
    """What the compiler and the linker bring along."""
    version = subprocess.run(["rustc", "--version"], check=True, capture_output=True, text=True).stdout.split()[1]
    words = "The standard library of Rust and the crates in it: MIT OR Apache-2.0, https://github.com/rust-lang/rust/blob/master/COPYRIGHT"
    unwind = "LLVM's libunwind and compiler-rt, as far as the linker takes them: https://llvm.org/LICENSE.txt"
    return [
        ("rust-std", version, "MIT OR Apache-2.0", [("COPYRIGHT", words)]),
        ("llvm-libunwind", None, "Apache-2.0 WITH LLVM-exception", [("LICENSE.txt", unwind)]),
    ]


def licence_of(expression):
    """SPDX of a crate, whose older ones write `/` for OR."""
    return " OR ".join(part.strip() for part in expression.split("/"))


def is_allowed(expression, allowed):
    """Whether an SPDX expression can be met by the licences that deny.toml allows."""
    words = re.findall(r"\(|\)|[^\s()]+(?: WITH [^\s()]+)?", expression)
    logic = {"AND": "and", "OR": "or", "(": "(", ")": ")"}
    # Nothing but True, False, and, or and brackets gets here.
    return eval(" ".join(logic.get(word, str(word in allowed)) for word in words), {"__builtins__": {}})


def collect(target):
    """Every component: name, version, licence, purl, description, checksum, texts."""
    metadata = json.loads(cargo("metadata", "--locked", "--format-version", "1", "--filter-platform", target))
    packages = {(package["name"], package["version"]): package for package in metadata["packages"]}
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    checksums = {(package["name"], package["version"]): package.get("checksum") for package in lock["package"]}
    allowed = tomllib.loads((ROOT / "deny.toml").read_text())["licenses"]["allow"]
    components = []
    for key in linked(target)[1:]:
        package = packages[key]
        folder = pathlib.Path(package["manifest_path"]).parent
        licence = package["license"]
        if not licence:
            raise SystemExit(f"inventory: {key[0]} {key[1]} names no licence")
        if not is_allowed(licence_of(licence), allowed):
            raise SystemExit(f"inventory: {key[0]} {key[1]} is {licence}, which deny.toml does not allow")
        components.append({
            "name": key[0], "version": key[1], "licence": licence_of(licence), "purl": f"pkg:cargo/{key[0]}@{key[1]}",
            "description": (package["description"] or "").strip().replace("\n", " "), "checksum": checksums.get(key),
            "source": package["repository"], "texts": texts(folder),
        })
        for name, version, licence, found in bundled(key[0], folder):
            components.append(generic(name, version, licence, found))
    components += [generic(*one) for one in beside_cargo()]
    return sorted(components, key=lambda one: (one["name"], one["version"] or ""))


def generic(name, version, licence, found):
    purl = f"pkg:generic/{name}" + (f"@{version}" if version else "")
    return {"name": name, "version": version, "licence": licence, "purl": purl, "description": "", "checksum": None,
            "source": None, "texts": found}


def sbom(target, components):
    version = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
    moment = datetime.datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), datetime.UTC)
    own = f"pkg:generic/vitalbridge@{version}?target={target}"

    def component(one):
        out = {"type": "library", "bom-ref": one["purl"], "name": one["name"]}
        if one["version"]:
            out["version"] = one["version"]
        if one["description"]:
            out["description"] = one["description"]
        out["licenses"] = [{"expression": one["licence"]}]
        out["purl"] = one["purl"]
        if one["checksum"]:
            out["hashes"] = [{"alg": "SHA-256", "content": one["checksum"]}]
        if one["source"]:
            out["externalReferences"] = [{"type": "vcs", "url": one["source"]}]
        return out

    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.5.schema.json",
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": {
            "timestamp": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": {"type": "application", "bom-ref": own, "name": "vitalbridge", "version": version, "purl": own,
                          "licenses": [{"expression": "MIT OR Apache-2.0"}]},
        },
        "components": [component(one) for one in components],
        "dependencies": [{"ref": own, "dependsOn": [one["purl"] for one in components]}],
    }
    name = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    document["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, name)}"
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def licences(components):
    """Every licence text once, with who comes under it."""
    users = {}
    for one in components:
        for file, text in one["texts"]:
            users.setdefault(re.sub(r"\s+", " ", text), (file, text, []))[2].append(f"{one['name']} {one['version'] or ''}".strip())
    lines = ["Libraries that are linked into vitalbridge, with the licence that each names (SPDX), and the texts that they come with.", ""]
    for one in components:
        source = f", {one['source']}" if one["source"] else ""
        note = "" if one["texts"] else "; brings no text of its own"
        lines.append(f"{one['name']} {one['version'] or ''}: {one['licence']}{source}{note}".replace(" :", ":"))
    for file, text, names in sorted(users.values(), key=lambda entry: entry[2]):
        lines += ["", "=" * 100, f"{file} of {', '.join(dict.fromkeys(names))}", "", text]
    return "\n".join(lines) + "\n"


def main():
    target, out = sys.argv[1], pathlib.Path(sys.argv[2])
    components = collect(target)
    out.mkdir(parents=True, exist_ok=True)
    (out / "sbom.cdx.json").write_text(sbom(target, components))
    (out / "third-party-licences.txt").write_text(licences(components))
    print(f"inventory: {len(components)} components for {target}")


if __name__ == "__main__":
    main()
