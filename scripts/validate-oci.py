#!/usr/bin/python3
"""Validates documents against the JSON schemas of the OCI image specification.

Usage: validate-oci.py SCHEMAS < LIST

SCHEMAS is the folder `schema` of the specification; Debian has it in the package
golang-github-opencontainers-image-spec-dev. Each line of LIST is `KIND PATH`: a schema (config, image-index,
image-layout, image-manifest) and a JSON file. What does not hold is told on standard output; then the exit code is 1.
"""

import json
import os
import sys

from jsonschema import Draft4Validator, FormatChecker


def at(document, pointer):
    """The part of a document that a JSON pointer names."""
    for step in pointer.split("/")[1:]:
        document = document[step]
    return document


def whole(folder, file, part):
    """A schema with what it refers to put in: the ids in it name addresses that nothing is fetched from."""
    if isinstance(part, list):
        return [whole(folder, file, item) for item in part]
    if not isinstance(part, dict):
        return part
    if isinstance(part.get("$ref"), str):
        other, _, pointer = part["$ref"].partition("#")
        other = other or file
        with open(os.path.join(folder, other), encoding="utf-8") as text:
            return whole(folder, other, at(json.load(text), pointer))
    return {key: whole(folder, file, value) for key, value in part.items() if key != "id" or isinstance(value, dict)}


def main():
    folder = sys.argv[1]
    validators = {}
    failed = False
    for line in sys.stdin:
        kind, path = line.rstrip("\n").split(" ", 1)
        if kind not in validators:
            file = f"{kind}-schema.json"
            with open(os.path.join(folder, file), encoding="utf-8") as text:
                schema = whole(folder, file, json.load(text))
            Draft4Validator.check_schema(schema)
            validators[kind] = Draft4Validator(schema, format_checker=FormatChecker())
        with open(path, encoding="utf-8") as text:
            document = json.load(text)
        for error in validators[kind].iter_errors(document):
            where = "/".join(str(step) for step in error.absolute_path)
            print(f"{path} ({kind}): /{where}: {error.message[:300]}")
            failed = True
    return 1 if failed else 0


sys.exit(main())
