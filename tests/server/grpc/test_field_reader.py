"""Header blocks in pieces, beside another reader of HPACK."""

from __future__ import annotations

from itertools import pairwise

import hpack
import pytest
from hpack.table import HeaderTable
from hypothesis import given, settings
from hypothesis import strategies as st

from tuili.server.grpc.field_reader import FieldReader
from tuili.server.grpc.frames import ConnectionFault

# Names that come again, and values about as large as the table, or larger.
_VALUES = st.one_of(
    st.binary(max_size=40),
    st.builds(bytes.__mul__, st.sampled_from([b"a", b"\xff", b"~0"]), st.integers(0, 4500)),
)
_FIELDS = st.lists(st.tuples(st.sampled_from([b":path", b"te", b"x", b"y-z"]), _VALUES), max_size=4)
_BLOCKS = st.lists(st.tuples(_FIELDS, st.booleans()), min_size=1, max_size=3)


@settings(deadline=None)
@given(_BLOCKS, st.sampled_from([0, 300, 5000, 1 << 20]), st.data())
def test_pieces_are_read_as_wholes_by_others(
    blocks: list[tuple[list[tuple[bytes, bytes]], bool]], most: int, data: st.DataObject
):
    encoder, table = hpack.Encoder(), HeaderTable()
    other = hpack.Decoder(1 << 30)
    for fields, huffman in blocks:
        encoder.header_table_size = data.draw(st.sampled_from([0, 100, 4096]))
        text = encoder.encode(fields, huffman=huffman)
        reader = FieldReader(table, most, 1 << 20)
        cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=5).map(sorted))
        for start, stop in pairwise([0, *cuts, len(text)]):
            reader.feed(text[start:stop])
        reader.end()
        assert [tuple(field) for field in other.decode(text, raw=True)] == fields
        size = sum(len(name) + len(value) + 32 for name, value in fields)
        if size <= most:
            # A value counts as coded where it is not wanted, which may be more than it is.
            assert reader.fields == fields or (reader.size > most and not reader.fields)
        else:
            assert reader.fields == []
        assert table.dynamic_entries == other.header_table.dynamic_entries
        assert table.maxsize == other.header_table.maxsize


def test_what_is_too_large_is_not_kept():
    reader = FieldReader(HeaderTable(), 1000, 1 << 30)
    reader.feed(b"\x40\1a\x7f\x81\xff\x7f")
    for _ in range(10):
        reader.feed(bytes(100_000))
        assert not reader._rest
    with pytest.raises(ConnectionFault, match="cut off"):
        reader.end()
