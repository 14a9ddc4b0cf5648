"""Writes JSON schemas as kubeconform reads them: schemas.py FOLDER FILE...

From YAML files, those of CustomResourceDefinitions. JSON files are schemas of kubernetes-validate, whose references are to a server.
"""

import json
import sys
from pathlib import Path

import yaml


def close(schema):
    """Kubernetes drops unknown fields silently; the schema refuses them."""
    if isinstance(schema, list):
        for item in schema:
            close(item)
    if not isinstance(schema, dict):
        return
    is_open = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not is_open:
        schema["additionalProperties"] = False
    for value in schema.values():
        close(value)


def copy(file, folder):
    schema = json.loads(file.read_text().replace('"/api/_definitions.json', '"_definitions.json'))
    schema.pop("$id", None)
    Path(folder, file.name).write_text(json.dumps(schema))


def main(folder, files):
    for file in map(Path, files):
        if file.suffix == ".json":
            copy(file, folder)
            continue
        for crd in yaml.safe_load_all(file.read_text()):
            if not crd or crd.get("kind") != "CustomResourceDefinition":
                continue
            group, kind = crd["spec"]["group"], crd["spec"]["names"]["kind"].lower()
            for version in crd["spec"]["versions"]:
                schema = version["schema"]["openAPIV3Schema"]
                close(schema)
                schema["properties"].setdefault("apiVersion", {"type": "string"})
                schema["properties"].setdefault("kind", {"type": "string"})
                schema["properties"].setdefault("metadata", {"type": "object"})
                Path(folder, f"{kind}-{group}-{version['name']}.json").write_text(json.dumps(schema))


main(sys.argv[1], sys.argv[2:])
