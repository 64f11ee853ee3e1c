"""The text form of graphs: `to_text` prints, `parse` reads; the round trip is exact.

    graph    ::= 'graph' name '(' [value [':' type] {',' ...}] ')' '{' {line} return '}'
    line     ::= 'metadata' string '=' string
               | value '=' 'constant' array
               | value [':' type] {',' value [':' type]} '=' op '(' [operand {',' ...}] ')'
                 ['{' name '=' attr {',' ...} '}'] [string]        the string is the node's name
    return   ::= 'return' [value {',' value}]
    operand  ::= value | '_'                                     `_`: an optional input left out
    value    ::= '%' word | '%' string                           quoted when not a plain word
    attr     ::= integer | float | string | dtype | 'dim(' dim ')' | array | graph
               | '[' [attr {',' attr}] ']'
    array    ::= type ( '[' element,... ']' | '@' word )           `@`: contents are kept beside
    type     ::= dtype '[' [dim {',' dim}] | '*' ']' ['@' layout]  `*`: the rank is not known
               | 'seq<' type '>' | 'optional<' type '>' | 'map<' dtype ',' type '>'

Strings are quoted as in JSON, `#` starts a comment, and floats read back equal.
"""

from __future__ import annotations

from collections.abc import Mapping

from tuili.ir._printing import Printer
from tuili.ir._reading import Reader
from tuili.ir.graph import Graph
from tuili.tensors import Array


def to_text(graph: Graph, weights: dict[str, Array] | None = None) -> str:
    """The graph as text. Large arrays appear as `@key`; `weights` is filled with their contents."""
    return Printer({} if weights is None else weights).graph(graph) + "\n"


def parse(text: str, weights: Mapping[str, Array] | None = None) -> Graph:
    """The graph that the text describes; raises ParseError with line, column and caret."""
    return Reader(text, weights or {}).read()
