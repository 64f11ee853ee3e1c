"""Message classes of the protocol, made at import from its own short table.

They live in a descriptor pool of their own, so that a program may import `tritonclient` (which
registers the same names in the default pool) beside this server.
"""

from __future__ import annotations

import re
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from tuili.server.grpc.schema_text import HEALTH, MODEL_CONFIG, PREDICTION, SERVICE

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS: Final = {
    "double": _Field.TYPE_DOUBLE,
    "float": _Field.TYPE_FLOAT,
    "int64": _Field.TYPE_INT64,
    "uint64": _Field.TYPE_UINT64,
    "int32": _Field.TYPE_INT32,
    "bool": _Field.TYPE_BOOL,
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
    "uint32": _Field.TYPE_UINT32,
}
_ENTRY: Final = re.compile(r"(?:(\w+)/)?(\w+):(.+)=(\d+)")


class Schema:
    """The messages of one package, by their name inside it: `schema["ModelInferRequest"]`."""

    def __init__(self, package: str, text: str) -> None:
        self._package = package
        lines = [line.split() for line in text.replace("\n    ", " ").splitlines() if line]
        self._enums = {words[1] for words in lines if words[0] == "enum"}
        self._file = descriptor_pb2.FileDescriptorProto(
            name=f"tuili/{package}.proto", package=package, syntax="proto3"
        )
        self._messages: dict[str, descriptor_pb2.DescriptorProto] = {}
        for words in lines:
            if words[0] == "enum":
                self._add_enum(words[1], words[2:])
            else:
                self._add_message(words[0], words[1:])
        pool = descriptor_pool.DescriptorPool()
        pool.Add(self._file)
        self._classes: dict[str, Any] = {
            name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
            for name in self._messages
        }

    def __getitem__(self, name: str) -> Any:
        return self._classes[name]

    def __contains__(self, name: str) -> bool:
        return name in self._classes

    def _message(self, name: str) -> descriptor_pb2.DescriptorProto:
        """The descriptor of a message, made on first use inside the one its name is nested in."""
        found = self._messages.get(name)
        if found is None:
            outer, _, own = name.rpartition(".")
            siblings = self._message(outer).nested_type if outer else self._file.message_type
            found = self._messages[name] = siblings.add(name=own)
        return found

    def _add_enum(self, name: str, values: list[str]) -> None:
        outer, _, own = name.rpartition(".")
        siblings = self._message(outer).enum_type if outer else self._file.enum_type
        enum = siblings.add(name=own)
        for number, value in enumerate(values):
            enum.value.add(name=value, number=number)

    def _add_message(self, name: str, fields: list[str]) -> None:
        message = self._message(name)
        groups: dict[str, int] = {}
        for text in fields:
            match = _ENTRY.fullmatch(text)
            assert match is not None, text
            group, field_name, kind, number = match.groups()
            field = message.field.add(name=field_name, number=int(number))
            field.label = _Field.LABEL_OPTIONAL
            if group is not None:
                if group not in groups:
                    groups[group] = len(groups)
                    message.oneof_decl.add(name=group)
                field.oneof_index = groups[group]
            if kind.startswith("<"):
                kind = "*" + self._add_map(name, field_name, kind[1:-1])
            if kind.startswith("*"):
                field.label, kind = _Field.LABEL_REPEATED, kind[1:]
            self._set_type(field, kind)

    def _add_map(self, owner: str, field_name: str, kinds: str) -> str:
        """The entry message that a map field stands for; its name is fixed by protobuf."""
        entry_name = "".join(part.capitalize() for part in field_name.split("_")) + "Entry"
        entry = self._message(owner).nested_type.add(name=entry_name)
        entry.options.map_entry = True
        for number, (name, kind) in enumerate(zip(("key", "value"), kinds.split(","), strict=True)):
            field = entry.field.add(name=name, number=number + 1)
            field.label = _Field.LABEL_OPTIONAL
            self._set_type(field, kind)
        return f"{owner}.{entry_name}"

    def _set_type(self, field: descriptor_pb2.FieldDescriptorProto, kind: str) -> None:
        scalar = _SCALARS.get(kind)
        if scalar is not None:
            field.type = scalar
            return
        field.type = _Field.TYPE_ENUM if kind in self._enums else _Field.TYPE_MESSAGE
        field.type_name = f".{self._package}.{kind}"


INFERENCE: Final = Schema("inference", MODEL_CONFIG + SERVICE)
HEALTH_V1: Final = Schema("grpc.health.v1", HEALTH)
SERVING: Final = Schema("tensorflow.serving", PREDICTION)
