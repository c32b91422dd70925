"""Fuzzes the C engine of TV-L1 under the address and undefined-behaviour sanitizers.

Compiles `_tvl1.c` with a small driver that feeds it random sizes, numbers (also senseless ones) and
frames (also NaN), on every instruction set of this machine, and checks that all give the same bits;
before that, 500 times as many random numbers through the exact flavour's own arithmetic, against
the C library's fmaf and hypotf.
Any finding ends the driver with an error. Prints the number of inputs tried.

    python benchmarks/fuzz_tvl1.py [--inputs 2000] [--seed 1]
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src/flowsight/flow/_tvl1.c"
FLAGS = [
    *("-std=gnu11", "-O1", "-g", "-ffp-contract=off", "-fno-math-errno"),
    *("-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all"),
]

DRIVER = r"""
#include "_tvl1.c"
#include <stdio.h>
#include <stdlib.h>

static uint64_t seed;
static uint32_t rnd(void) {
    seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
    return (uint32_t)(seed >> 16);
}
static int below(int n) { return (int)(rnd() % (uint32_t)n); }
static double unit(void) { return rnd() / 4294967296.0; }

static double odd(double usual) { /* mostly a usual value */
    const double values[] = {0, -1, NAN, INFINITY, -INFINITY, 1e-300, 1e300, 1e6, 1e-7, 0.25, 1};
    return below(24) ? usual : values[below(11)];
}

static int side(void) { return below(8) ? 1 + below(70) : 1 + below(300); }

/* any exponent, often few digits: sums then lie on the border between two floats */
static float number(int near) {
    float x = (float)ldexp(1 + unit(), near ? below(12) - 6 : below(250) - 125);
    uint32_t bits;
    memcpy(&bits, &x, 4);
    bits &= below(3) ? ~0u : ~0u << below(23);
    memcpy(&x, &bits, 4);
    return below(40) ? below(2) ? x : -x : 0;
}

#ifdef TVL1_X86
__attribute__((target("avx2,fma"))) static int lengths(const float *x, const float *y) {
    mask_avx2 unsure;
    float near[8], z[8];
    int32_t doubt[8];
    store_avx2(near, length_in_float_avx2(load_avx2(x), load_avx2(y), &unsure));
    store_avx2(z, (vf_avx2)unsure), memcpy(doubt, z, 32);
    for (int i = 0; i < 8; i++) { /* below 2^-45 a length need not be right */
        float length = hypotf(x[i], y[i]);
        if (!doubt[i] && length >= 0x1p-45f && near[i] != length)
            return printf("length %a %a: %a, not %a\n", x[i], y[i], near[i], length), 1;
    }
    return 0;
}

/* Fused multiply-adds and lengths as the exact flavour computes them, against the C library. */
static int arithmetic(long trials) {
    for (long trial = 0; trial < trials; trial++) {
        float a[8], b[8], c[8], d[4];
        int near = below(2);
        for (int i = 0; i < 8; i++) a[i] = number(near), b[i] = number(near), c[i] = number(near);
        _mm_storeu_ps(d, fused_vector_baseline(_mm_loadu_ps(a), _mm_loadu_ps(b), _mm_loadu_ps(c)));
        for (int i = 0; i < 4; i++) {
            float fused = fmaf(a[i], b[i], c[i]);
            if (d[i] != fused || fused_baseline(a[i], b[i], c[i]) != fused)
                return printf("fused %a %a %a: %a, not %a\n", a[i], b[i], c[i], d[i], fused), 1;
        }
        if (flowsight_tvl1_level() > 1 && lengths(a, b)) return 1;
    }
    return 0;
}
#else
static int arithmetic(long trials) { return trials < 0; }
#endif

int main(int count, char **arguments) {
    long inputs = count > 1 ? atol(arguments[1]) : 1000, codes[8] = {0};
    seed = 0x9e3779b97f4a7c15u ^ (uint64_t)(count > 2 ? atol(arguments[2]) : 1) << 20;
    for (int i = 0; i < 20; i++) rnd();
    if (arithmetic(500 * inputs)) return 1;
    for (long input = 0; input < inputs; input++) {
        int h = side(), w = side(), is_float = below(2), outputs = below(4);
        tvl1_numbers n = {odd(0.05 + 0.2 * unit()), odd(0.05 + unit()), odd(0.1 + unit()),
                          odd(below(2) ? 0.01 : 0), odd(below(2) ? 0.8 : 0.3 + 0.6 * unit()),
                          1 + below(below(9) ? 5 : 90), 1 + below(3), 1 + below(6), 1 + below(3),
                          1 + 2 * below(3), 0, 0};
        n.cuda = !below(3), n.exact = below(12) ? !n.cuda && below(2) : 1;
        if (!below(30)) n.num_scales = -below(3);
        if (!below(30)) n.median_filtering = below(9);
        double bound = odd(20);
        size_t pixels = (size_t)h * (size_t)w, bytes = pixels * (is_float ? 4 : 1);
        void *frames[2] = {malloc(bytes), malloc(bytes)};
        double wave = 0.05 + unit(), shift = 40 * unit();
        int noisy = below(3), poisoned = is_float && !below(10);
        for (int f = 0; f < 2; f++)
            for (size_t i = 0; i < pixels; i++) {
                double x = (double)(i % (size_t)w) + f * shift, y = (double)(i / (size_t)w);
                double value = 0.5 + 0.25 * sin(wave * x) + 0.25 * sin(wave * y + 1);
                if (noisy == 1) value = unit();
                if (noisy == 2) value = 0.5;
                if (is_float)
                    ((float *)frames[f])[i] = (float)value;
                else
                    ((uint8_t *)frames[f])[i] = (uint8_t)(255 * value);
            }
        if (poisoned) ((float *)frames[below(2)])[rnd() % pixels] = below(2) ? NAN : 1e30f;
        uint64_t size = flowsight_tvl1_workspace(h, w, &n), given = size;
        if (!below(20) && size) given = size - 1 - rnd() % size;
        void *memory = malloc(given ? given : 1);
        memset(memory, below(256), given);
        float *flow[4] = {0};
        uint8_t *levels[4] = {0};
        int32_t code[4];
        for (int level = 0; level <= flowsight_tvl1_level(); level++) {
            if (outputs & 1) flow[level] = malloc(pixels * 8);
            if (outputs & 2) levels[level] = malloc(pixels * 2);
            code[level] = flowsight_tvl1_solve(frames[0], frames[1], is_float, h, w, &n,
                                               flow[level], levels[level], bound, memory, given,
                                               level, NULL);
            if (code[level] != code[0]) return printf("other code, input %ld\n", input), 1;
            if (code[0]) continue;
            if ((flow[0] && memcmp(flow[0], flow[level], pixels * 8)) ||
                (levels[0] && memcmp(levels[0], levels[level], pixels * 2)))
                return printf("other bits, input %ld level %d\n", input, level), 1;
        }
        codes[code[0]]++;
        for (int level = 0; level < 4; level++) free(flow[level]), free(levels[level]);
        free(memory), free(frames[0]), free(frames[1]);
    }
    printf("%ld inputs on %d instruction sets: %ld solved, refused: %ld numbers or sizes, "
           "%ld workspaces, %ld pixels; %ld diverged\n",
           inputs, flowsight_tvl1_level(), codes[OK], codes[BAD_ARGUMENT], codes[SMALL_WORKSPACE],
           codes[BAD_PIXEL], codes[NOT_FINITE]);
    return 0;
}
"""


def fuzz(inputs: int, seed: int, compiler: str) -> subprocess.CompletedProcess[str]:
    """Compile the driver and run it; its report is in stdout."""
    with tempfile.TemporaryDirectory() as folder:
        driver = Path(folder) / "driver.c"
        driver.write_text(DRIVER)
        program = Path(folder) / "fuzz"
        command = [compiler, *FLAGS, f"-I{SOURCE.parent}", str(driver), "-o", str(program), "-lm"]
        subprocess.run(command, check=True)
        return subprocess.run(
            [str(program), str(inputs), str(seed)], capture_output=True, text=True, check=False
        )


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        print("no C compiler", file=sys.stderr)
        return 2
    done = fuzz(arguments.inputs, arguments.seed, compiler)
    print(done.stdout, end="")
    print(done.stderr, end="", file=sys.stderr)
    return done.returncode


if __name__ == "__main__":
    raise SystemExit(main())
