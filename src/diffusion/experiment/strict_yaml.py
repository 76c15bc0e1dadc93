"""YAML with less to stumble over: a key stands once, and numbers are what they look like."""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from diffusion.errors import UserError

INT, FLOAT, BOOL = (f"tag:yaml.org,2002:{name}" for name in ("int", "float", "bool"))
INTEGER = r"[-+]?\d+(_\d+)*"
NUMBER = rf"({INTEGER}(\.\d*)?|[-+]?\.\d+)(e[-+]?\d+)?|[-+]?\.inf|\.nan"


class Loader(yaml.SafeLoader):
    """010 is ten and 1e3 a number; 1:30 and yes are words."""

    yaml_implicit_resolvers = {
        first: [(tag, form) for tag, form in forms if tag not in (INT, FLOAT, BOOL)]
        for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise UserError(f"{key!r} stands twice, the second time after line {node.start_mark.line + 1}")
        return super().construct_mapping(node, deep)


Loader.add_implicit_resolver(INT, re.compile(f"({INTEGER})$"), "-+0123456789")
Loader.add_implicit_resolver(FLOAT, re.compile(f"({NUMBER})$", re.IGNORECASE), "-+0123456789.")
Loader.add_constructor(INT, lambda loader, node: int(node.value))


def read(path: Path) -> Any:
    """The content of a YAML file, UTF-8 whatever the locale is; UserError says which file, and where in it."""
    try:
        return yaml.load(path.read_bytes(), Loader)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{str(path)!r} cannot be read: {error.strerror}") from None
    except Exception as error:  # bytes that are no text; and PyYAML's constructors raise anything
        mark = getattr(error, "problem_mark", None)
        where = f": line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"{str(path)!r} is not YAML{where}") from None
