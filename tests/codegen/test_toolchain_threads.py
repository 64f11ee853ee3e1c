"""What a compiler makes of a loop over items writes the results of these items and no others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tuili.codegen.toolchain import Toolchain, Unit

# Rows of neighbouring items lie side by side, as in most kernels; here each of them has a page.
FILL = """
#include <stdint.h>
enum { ROWS = 15, ITEMS = 3, PAGE = 1024 };
typedef float vf __attribute__((vector_size(32), aligned(4)));
void fill(int64_t begin, int64_t end, const float *restrict x, float *restrict y)
{
    for (int64_t item = begin; item < end; item++)
        for (int64_t row = 0; row < ROWS; row++)
            *(vf *)(y + (row * ITEMS + item) * PAGE) = x[row] * *(const vf *)(x + 16 + item);
}
"""

# The pages of other items cannot be touched: doing so ends the process.
FILL_ONE_ITEM = """
import ctypes, mmap, sys
PAGE, PAGES, ITEM = 4096, 45, 1
memory = mmap.mmap(-1, PAGES * PAGE)
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
for page in range(PAGES):
    if page % 3 != ITEM:
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(start + page * PAGE), PAGE, 0) == 0
x = (ctypes.c_float * 64)(*range(64))
bounds = ctypes.c_int64(ITEM), ctypes.c_int64(ITEM + 1)
ctypes.CDLL(sys.argv[1]).fill(*bounds, x, ctypes.c_void_p(start))
"""


def test_a_loop_over_items_leaves_the_memory_of_other_items_alone(tmp_path: Path) -> None:
    unit = Unit("fill", FILL, ("-O3", "-fvisibility=default"))
    library = Toolchain.find().build([unit], tmp_path / "fill.so")
    done = subprocess.run([sys.executable, "-c", FILL_ONE_ITEM, str(library)], check=False)
    assert done.returncode == 0
