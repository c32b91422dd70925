/* TV-L1 optical flow on the CPU: Zach, Pock, Bischof, "A Duality Based Approach for Realtime TV-L1
 * Optical Flow" (DAGM 2007), run as OpenCV's DualTVL1OpticalFlow (or its CUDA class) runs it.
 *
 * The numerical part is compiled once per instruction set, by this file including itself, and
 * chosen at run time. All of them give the same bits: no contraction, no fast-math, and every sum
 * is taken in 16 lanes in the same order, however wide the registers are.
 *
 * Two flavours. The exact one rounds where OpenCV 5.0 rounds (on a CPU with fused multiply-adds) and
 * gives its bits; tvl1_torch.py is its readable form. The fast one saves divisions and stays as close
 * to OpenCV as OpenCV does to itself when its input moves by one ulp.
 *
 * Layout. Pixels are worked on in blocks of 16 along a row. Flow u, v: planes with rows of `stride`
 * floats, zero beyond the width. What an iteration needs besides them lies block by block, eight
 * groups of 16 floats (see STATE): one stream through memory in place of eight.
 *
 * No memory is allocated here: the caller brings a workspace, and nothing outlives a call. */

#ifndef TVL1_LANES /* ---------------------------------------------------- outer part: once */

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if !defined(__GNUC__)
#error "needs GCC or Clang (vector extensions)"
#endif
#if defined(__FAST_MATH__)
#error "fast-math would give other bits on every machine"
#endif
#if FLT_EVAL_METHOD != 0
#error "needs float arithmetic in float (on 32-bit x86: -msse2 -mfpmath=sse)"
#endif
#if defined(__x86_64__) || (defined(__i386__) && defined(__SSE2__))
#define TVL1_X86 1
#include <immintrin.h>
#endif

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

#ifndef SOURCE_SHA256
#define SOURCE_SHA256 ""
#endif

enum { BLOCK = 16, GROUPS = 8, MARGIN = 4, MAX_SCALES = 64, SMALLEST_LEVEL = 16 };
enum { MAX_SIDE = 32768, MAX_PIXELS = 1 << 27 };
enum { OK = 0, BAD_ARGUMENT = 1, SMALL_WORKSPACE = 2, NOT_FINITE = 3, BAD_PIXEL = 4, NO_LEVEL = 5 };
/* groups of a state block: dual variables of u and v, warped gradient, 1 / |gradient|^2 (exact: the
   square itself), and the part of the residual rho that does not depend on u */
enum { P11, P12, P21, P22, WX, WY, INVERSE, SQUARE = INVERSE, RHO };
enum { STATE = BLOCK * GROUPS };

typedef struct {
    double tau, lambda, theta, epsilon, scale_step;
    int32_t num_scales, num_warps, inner_iterations, outer_iterations, median_filtering;
    int32_t cuda;  /* semantics of OpenCV's CUDA class */
    int32_t exact; /* OpenCV's bits; not with cuda */
} tvl1_numbers;

typedef struct {
    int h, w, blocks;
    ptrdiff_t stride; /* floats per row of a flow plane */
} grid;

typedef struct {
    int num_scales;
    float smallest; /* FN(short_weight) of the level's following image */
    grid level[MAX_SCALES];
    float *previous[MAX_SCALES], *following[MAX_SCALES]; /* rows of w floats */
    float *u, *v, *spare;                                /* planes */
    float *state;                                        /* h rows of blocks */
    float *taps;                                         /* (I, Ix, Iy, 0), MARGIN around */
    float *columns, *row_a, *row_b, *fraction;           /* scratch rows */
    int32_t *index;
    size_t bytes;
} workspace;

/* Numbers of an iteration. In the fast flavour flow is scaled by step = tau / theta, the warped gradient
 * by 1 / step and its inverse square by step^2: then the dual update needs no factor, and one of the
 * primal update is tau. */
typedef struct {
    float limit; /* lambda theta step^2; exact: lambda theta */
    float tau;
    float theta, step; /* exact only */
    int careful;       /* exact only: step is beyond what the shortcuts of dual_exact are proven for */
} factors;

static grid make_grid(int h, int w) {
    int blocks = (w + BLOCK - 1) / BLOCK;
    grid g = {h, w, blocks, (ptrdiff_t)blocks * BLOCK + BLOCK};
    return g;
}

static int valid_numbers(const tvl1_numbers *n) {
    /* written so that NaN fails */
    return n->tau > 0 && n->tau <= 1e6 && n->lambda > 0 && n->lambda <= 1e6 && n->theta > 0 &&
           n->theta <= 1e6 && n->epsilon >= 0 && n->epsilon <= 1e6 && n->scale_step > 0 &&
           n->scale_step < 1 && n->num_scales >= 1 && n->num_warps >= 1 &&
           n->inner_iterations >= 1 && n->outer_iterations >= 1 &&
           (n->median_filtering == 1 || n->median_filtering == 3 || n->median_filtering == 5) &&
           !(n->cuda && n->exact);
}

static int valid_size(int h, int w) {
    return h >= 1 && w >= 1 && h <= MAX_SIDE && w <= MAX_SIDE &&
           (int64_t)h * w <= (int64_t)MAX_PIXELS;
}

static float *take(char *base, size_t *at, size_t floats) {
    size_t used = floats * sizeof(float), next = (*at + used + 63) / 64 * 64 + 64;
    float *here = base ? (float *)(base + *at) : NULL;
#ifdef __SANITIZE_ADDRESS__ /* the gap after each array is out of bounds */
    if (base) ASAN_POISON_MEMORY_REGION(here + floats, next - *at - used);
#endif
    *at = next;
    return here;
}

/* Lays the workspace out from `base` (64-byte aligned; NULL only adds up the bytes). */
static void lay_out(workspace *ws, char *base, int h, int w, const tvl1_numbers *n) {
    size_t at = 0;
    int s = 0;
    for (; s < n->num_scales && s < MAX_SCALES; s++) {
        if (s > 0) {
            h = (int)nearbyint(h * n->scale_step);
            w = (int)nearbyint(w * n->scale_step);
            if (h < SMALLEST_LEVEL || w < SMALLEST_LEVEL) break;
        }
        ws->level[s] = make_grid(h, w);
        ws->previous[s] = take(base, &at, (size_t)h * w);
        ws->following[s] = take(base, &at, (size_t)h * w);
    }
    ws->num_scales = s;
    grid g = ws->level[0];
    size_t row = (size_t)g.stride + 2 * BLOCK, plane = (size_t)g.h * g.stride;
    ws->u = take(base, &at, plane);
    ws->v = take(base, &at, plane);
    ws->spare = take(base, &at, plane);
    ws->state = take(base, &at, (size_t)g.h * g.blocks * STATE);
    ws->taps = take(base, &at, (size_t)(g.h + 2 * MARGIN) * (g.w + 2 * MARGIN) * 4);
    ws->columns = take(base, &at, 5 * row);
    ws->row_a = take(base, &at, row);
    ws->row_b = take(base, &at, row);
    ws->fraction = take(base, &at, row);
    ws->index = (int32_t *)take(base, &at, row);
    ws->bytes = at;
}

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define INLINE static inline __attribute__((always_inline))

#define TVL1_LANES 4
#define FN(name) JOIN(name, _baseline)
#include "_tvl1.c"
#undef TVL1_LANES
#undef FN

#ifdef TVL1_X86
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define TVL1_LANES 8
#define FN(name) JOIN(name, _avx2)
#include "_tvl1.c"
#undef TVL1_LANES
#undef FN
#ifdef __clang__
#pragma clang attribute pop
#pragma clang attribute push( \
    __attribute__((target("avx2,fma,avx512f,avx512vl,avx512bw,avx512dq"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512vl,avx512bw,avx512dq")
#endif
#define TVL1_LANES 16
#define FN(name) JOIN(name, _avx512)
#include "_tvl1.c"
#undef TVL1_LANES
#undef FN
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

#define PUBLIC __attribute__((visibility("default")))

/* Highest level this machine runs: 1 baseline, 2 AVX2 with FMA, 3 AVX-512. */
PUBLIC int32_t flowsight_tvl1_level(void) {
#ifdef TVL1_X86
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return 1;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
        return 3;
    return 2;
#else
    return 1;
#endif
}

PUBLIC const char *flowsight_tvl1_source(void) { return SOURCE_SHA256; }

/* Bytes of workspace for frames of h x w; 0 for what cannot be solved. */
PUBLIC uint64_t flowsight_tvl1_workspace(int32_t h, int32_t w, const tvl1_numbers *numbers) {
    workspace ws;
    if (!numbers || !valid_numbers(numbers) || !valid_size(h, w)) return 0;
    lay_out(&ws, NULL, h, w, numbers);
    return ws.bytes + 64; /* for alignment */
}

/* Flow from `previous` to `following`, both h x w without gaps: uint8, or float in [0, 1].
 *
 * flow: 2 x h x w floats, px; may be NULL. levels: the same quantised to bytes over +-bound px, may
 * be NULL. level: 0 for the best, or as flowsight_tvl1_level. iterations: adds up those done; may
 * be NULL. Returns OK, or what is wrong; then the outputs hold nothing of use. */
PUBLIC int32_t flowsight_tvl1_solve(const void *previous, const void *following, int32_t is_float,
                             int32_t h, int32_t w, const tvl1_numbers *numbers, float *flow,
                             uint8_t *levels, double bound, void *memory, uint64_t num_bytes,
                             int32_t level, int64_t *iterations) {
    if (!previous || !following || !numbers || !memory || !valid_numbers(numbers) ||
        !valid_size(h, w) || (levels && !(bound > 0 && bound <= 1e6)))
        return BAD_ARGUMENT;
    if (num_bytes < flowsight_tvl1_workspace(h, w, numbers)) return SMALL_WORKSPACE;
    if (level < 0 || level > flowsight_tvl1_level()) return NO_LEVEL;
    workspace ws;
    char *base = (char *)(((uintptr_t)memory + 63) / 64 * 64);
    lay_out(&ws, base, h, w, numbers);
    if (level == 0) level = flowsight_tvl1_level();
    int64_t done = 0;
    int32_t code = NO_LEVEL;
#ifdef TVL1_X86
    /* rounding to nearest, denormals kept: whatever another library has left in this thread */
    const unsigned int mode = _mm_getcsr();
    _mm_setcsr(0x1f80);
#endif
#ifdef TVL1_X86
    if (level == 3)
        code = solve_avx512(&ws, previous, following, is_float, numbers, flow, levels, bound, &done);
    if (level == 2)
        code = solve_avx2(&ws, previous, following, is_float, numbers, flow, levels, bound, &done);
#endif
    if (level == 1)
        code =
            solve_baseline(&ws, previous, following, is_float, numbers, flow, levels, bound, &done);
#ifdef TVL1_X86
    _mm_setcsr(mode);
#endif
    if (iterations) *iterations += done;
    return code;
}

#else /* ------------------------------------------- inner part: once per instruction set */

#define V TVL1_LANES
#define PARTS (BLOCK / V) /* registers per block */
#define vf FN(vf)
#define vi FN(vi)
#define vfu FN(vfu)
#define v4 FN(v4)

typedef float vf __attribute__((vector_size(V * 4), may_alias));
typedef float vfu __attribute__((vector_size(V * 4), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(V * 4), may_alias));
typedef float v4 __attribute__((vector_size(16), aligned(4), may_alias));

INLINE vf FN(load)(const float *p) { return *(const vfu *)p; }
/* from where a register's worth of floats is aligned: an operand, without an instruction of its own */
INLINE vf FN(get)(const float *p) { return *(const vf *)p; }
INLINE void FN(store)(float *p, vf x) { *(vfu *)p = x; }
INLINE vf FN(same)(float x) { return x - (vf){0}; }

/* min and max give the second argument where one is NaN, as the x86 instructions do */
#ifdef TVL1_X86
#if V == 16
INLINE vf FN(vmin)(vf a, vf b) { return (vf)_mm512_min_ps((__m512)a, (__m512)b); }
INLINE vf FN(vmax)(vf a, vf b) { return (vf)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE vf FN(root)(vf a) { return (vf)_mm512_sqrt_ps((__m512)a); }
#elif V == 8
INLINE vf FN(vmin)(vf a, vf b) { return (vf)_mm256_min_ps((__m256)a, (__m256)b); }
INLINE vf FN(vmax)(vf a, vf b) { return (vf)_mm256_max_ps((__m256)a, (__m256)b); }
INLINE vf FN(root)(vf a) { return (vf)_mm256_sqrt_ps((__m256)a); }
#else
INLINE vf FN(vmin)(vf a, vf b) { return (vf)_mm_min_ps((__m128)a, (__m128)b); }
INLINE vf FN(vmax)(vf a, vf b) { return (vf)_mm_max_ps((__m128)a, (__m128)b); }
INLINE vf FN(root)(vf a) { return (vf)_mm_sqrt_ps((__m128)a); }
#endif
#else
INLINE vf FN(vmin)(vf a, vf b) {
    vi less = a < b;
    return (vf)(((vi)a & less) | ((vi)b & ~less));
}
INLINE vf FN(vmax)(vf a, vf b) {
    vi more = a > b;
    return (vf)(((vi)a & more) | ((vi)b & ~more));
}
INLINE vf FN(root)(vf a) {
    for (int i = 0; i < V; i++) a[i] = sqrtf(a[i]);
    return a;
}
#endif

/* Masks of lanes: registers of their own, or vectors. */
#if defined(TVL1_X86) && V == 16
typedef __mmask16 FN(mask);
INLINE FN(mask) FN(more)(vf a, vf b) { return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ); }
INLINE FN(mask) FN(differ)(vf a, vf b) { /* true for NaN */
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_NEQ_UQ);
}
INLINE vf FN(pick)(FN(mask) m, vf a, vf b) {
    return (vf)_mm512_mask_blend_ps(m, (__m512)b, (__m512)a);
}
INLINE int FN(any)(FN(mask) m) { return m != 0; }
INLINE FN(mask) FN(first_lane)(void) { return 1; }
#else
typedef vi FN(mask);
INLINE FN(mask) FN(more)(vf a, vf b) { return a > b; }
INLINE FN(mask) FN(differ)(vf a, vf b) { return a != b; }
INLINE FN(mask) FN(first_lane)(void) {
    vi lane = {-1};
    return lane;
}
#if defined(TVL1_X86) && V == 8
INLINE vf FN(pick)(FN(mask) m, vf a, vf b) {
    return (vf)_mm256_blendv_ps((__m256)b, (__m256)a, (__m256)m);
}
INLINE int FN(any)(FN(mask) m) { return _mm256_movemask_ps((__m256)m) != 0; }
#else
INLINE vf FN(pick)(FN(mask) m, vf a, vf b) { return (vf)(((vi)a & m) | ((vi)b & ~m)); }
#ifdef TVL1_X86
INLINE int FN(any)(FN(mask) m) { return _mm_movemask_ps((__m128)m) != 0; }
#endif
#endif
#endif

INLINE vf FN(magnitude)(vf a) { return (vf)((vi)a & INT32_MAX); }
/* x with the sign of `sign`; x is not negative */
INLINE vf FN(signed_as)(vf x, vf sign) { return (vf)((vi)x | ((vi)sign & INT32_MIN)); }

/* a b + c rounded once, in one instruction or without it. In double the product is exact, and the
 * sum's rounding to double can move its rounding to float only where it lies on the border between two
 * floats; there, and below the smallest normal number, fmaf decides. */
INLINE float FN(fused)(float a, float b, float c) {
#if defined(TVL1_X86) && V == 4
    double sum = (double)a * (double)b + (double)c;
    int64_t bits;
    memcpy(&bits, &sum, sizeof bits);
    if ((bits & 0x1fffffff) == 0x10000000 || (sum < FLT_MIN && sum > -FLT_MIN && sum != 0))
        return fmaf(a, b, c);
    return (float)sum;
#else
    return __builtin_fmaf(a, b, c);
#endif
}

#if defined(TVL1_X86) && V == 4
/* a b + c of two lanes, and where the sum in double does not decide */
INLINE __m128d FN(fused2)(__m128 a, __m128 b, __m128 c) {
    return _mm_add_pd(_mm_mul_pd(_mm_cvtps_pd(a), _mm_cvtps_pd(b)), _mm_cvtps_pd(c));
}
INLINE __m128 FN(fused_vector)(__m128 a, __m128 b, __m128 c) {
    __m128d low = FN(fused2)(a, b, c), high = FN(fused2)(_mm_movehl_ps(a, a), _mm_movehl_ps(b, b),
                                                         _mm_movehl_ps(c, c));
    __m128 result = _mm_movelh_ps(_mm_cvtpd_ps(low), _mm_cvtpd_ps(high));
    __m128i bits = _mm_castps_si128(_mm_shuffle_ps(_mm_castpd_ps(low), _mm_castpd_ps(high), 0x88));
    __m128i border = _mm_cmpeq_epi32(_mm_and_si128(bits, _mm_set1_epi32(0x1fffffff)),
                                     _mm_set1_epi32(0x10000000));
    __m128 size = _mm_and_ps(result, _mm_castsi128_ps(_mm_set1_epi32(INT32_MAX)));
    __m128 tiny = _mm_and_ps(_mm_cmple_ps(size, _mm_set1_ps(FLT_MIN)),
                             _mm_cmpneq_ps(_mm_or_ps(a, c), _mm_setzero_ps()));
    if (_mm_movemask_ps(_mm_or_ps(tiny, _mm_castsi128_ps(border)))) {
        float x[4], y[4], z[4];
        _mm_storeu_ps(x, a), _mm_storeu_ps(y, b), _mm_storeu_ps(z, c);
        for (int i = 0; i < 4; i++) z[i] = fmaf(x[i], y[i], z[i]);
        result = _mm_loadu_ps(z);
    }
    return result;
}
#endif

INLINE vf FN(fma)(vf a, vf b, vf c) {
#if defined(TVL1_X86) && V == 16
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(TVL1_X86) && V == 8
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(TVL1_X86)
    return (vf)FN(fused_vector)((__m128)a, (__m128)b, (__m128)c);
#else
    for (int i = 0; i < V; i++) c[i] = FN(fused)(a[i], b[i], c[i]);
    return c;
#endif
}

/* the same of 4 lanes */
INLINE v4 FN(fma4)(v4 a, v4 b, v4 c) {
#if defined(TVL1_X86) && V > 4
    return (v4)_mm_fmadd_ps((__m128)a, (__m128)b, (__m128)c);
#elif defined(TVL1_X86)
    return (v4)FN(fused_vector)((__m128)a, (__m128)b, (__m128)c);
#else
    for (int i = 0; i < 4; i++) c[i] = FN(fused)(a[i], b[i], c[i]);
    return c;
#endif
}

#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (vi){__VA_ARGS__})
#endif

/* The last of a, then b without its last. */
INLINE vf FN(before)(vf a, vf b) {
#if V == 16
    return SHUFFLE(a, b, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30);
#elif V == 8
    return SHUFFLE(a, b, 7, 8, 9, 10, 11, 12, 13, 14);
#else
    return SHUFFLE(a, b, 3, 4, 5, 6);
#endif
}

/* What lies one float after x = *at. The widest registers would cross a cache line each time. */
INLINE vf FN(after)(const float *at, vf x) {
#if V == 16
    vf next = FN(load)(at + V);
    return SHUFFLE(x, next, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16);
#else
    (void)x;
    return FN(load)(at + 1);
#endif
}

/* ---- resizing ---- */

INLINE float FN(between)(float a, float b, float t) { return FN(fused)(b - a, t, a); }

/* Lower source index and the upper's weight for output i of a bilinear resize; the edge repeats. */
INLINE int FN(position)(int i, double scale, int length, int cuda, float *fraction) {
    double at = cuda ? (double)((float)i * (float)scale) : (i + 0.5) * scale - 0.5;
    double low = floor(at);
    *fraction = (float)(at - low);
    if (!(low >= 0)) low = 0, *fraction = 0;
    if (!(low < length - 1)) low = length - 1, *fraction = 0;
    return (int)low;
}

/* Row y of src, resized along x into out. */
static void FN(resize_row)(const float *src, int w, float *out, int out_w, const workspace *ws) {
    const int32_t *index = ws->index;
    const float *fraction = ws->fraction;
    for (int x = 0; x < out_w; x++) {
        int low = index[x], high = low + (low < w - 1);
        out[x] = FN(between)(src[low], src[high], fraction[x]);
    }
}

/* Bilinear resize of (h, w) with rows of src_stride into (out_h, out_w) with rows of out_stride;
 * `factor` multiplies the result. */
static void FN(resize)(const workspace *ws, const float *src, int h, int w, ptrdiff_t src_stride,
                       float *out, int out_h, int out_w, ptrdiff_t out_stride, double scale_y,
                       double scale_x, int cuda, double factor) {
    for (int x = 0; x < out_w; x++)
        ws->index[x] = FN(position)(x, scale_x, w, cuda, &ws->fraction[x]);
    float *row[2] = {ws->row_a, ws->row_b};
    int held[2] = {-1, -1};
    for (int y = 0; y < out_h; y++) {
        float t;
        int low = FN(position)(y, scale_y, h, cuda, &t), need[2] = {low, low + (low < h - 1)};
        if (held[1] == need[0]) { /* the lower row is the upper one of before */
            float *swapped = row[0];
            row[0] = row[1], row[1] = swapped;
            held[1] = held[0], held[0] = need[0];
        }
        for (int k = 0; k < 2; k++) {
            if (held[k] != need[k])
                FN(resize_row)(src + need[k] * src_stride, w, row[k], out_w, ws);
            held[k] = need[k];
        }
        const float *restrict a = row[0], *restrict b = row[1];
        float *restrict to = out + y * out_stride;
        for (int x = 0; x < out_w; x++)
            to[x] = (float)((double)FN(between)(a[x], b[x], t) * factor);
    }
}

/* ---- warping ---- */

/* Centred gradient of the image, interleaved with it to (I, Ix, Iy, 0), with a margin of zeros or,
 * for cuda, of the edge's values. */
static void FN(make_taps)(const float *image, int h, int w, int cuda, float *taps) {
    ptrdiff_t row = (ptrdiff_t)(w + 2 * MARGIN) * 4;
    if (!cuda) memset(taps, 0, sizeof(float) * (size_t)row * (size_t)(h + 2 * MARGIN));
    for (int y = 0; y < h; y++) {
        const float *here = image + (ptrdiff_t)y * w;
        const float *up = y > 0 ? here - w : here, *down = y < h - 1 ? here + w : here;
        float *to = taps + (y + MARGIN) * row + 4 * MARGIN;
        for (int x = 0; x < w; x++, to += 4) {
            int left = x > 0 ? x - 1 : 0, right = x < w - 1 ? x + 1 : w - 1;
            to[0] = here[x];
            to[1] = 0.5f * (here[right] - here[left]);
            to[2] = 0.5f * (down[x] - up[x]);
            to[3] = 0;
        }
        float *start = taps + (y + MARGIN) * row + 4 * MARGIN;
        for (int m = 1; cuda && m <= MARGIN; m++) {
            memcpy(start - 4 * m, start, 16);
            memcpy(to + 4 * (m - 1), to - 4, 16);
        }
    }
    for (int m = 0; cuda && m < MARGIN; m++) {
        memcpy(taps + m * row, taps + MARGIN * row, sizeof(float) * (size_t)row);
        memcpy(taps + (h + MARGIN + m) * row, taps + (h + MARGIN - 1) * row,
               sizeof(float) * (size_t)row);
    }
}

/* Keys' bicubic kernel (1981) at distances f + 1, f, 1 - f, 2 - f; a is its free parameter. */
INLINE void FN(bicubic)(vf f, float a, float *out, const int exact) {
    vf g = 1 - f, f2 = f * f;
    vf w0 = a * (f * (g * g)), w1, w3 = a * (g * f2);
    if (exact)
        w1 = FN(fma)(FN(fma)(FN(same)(a + 2), f, FN(same)(-(a + 3))), f2, FN(same)(1));
    else
        w1 = ((a + 2) * f - (a + 3)) * f2 + 1;
    FN(store)(out, w0);
    FN(store)(out + BLOCK, w1);
    FN(store)(out + 2 * BLOCK, 1 - w0 - w1 - w3);
    FN(store)(out + 3 * BLOCK, w3);
}

/* x of a pixel, moved by u and held within the margin, to the lower tap and the fraction. */
INLINE vi FN(locate)(vf x, int length, vf *fraction) {
    x = FN(vmax)(FN(vmin)(x, FN(same)((float)(length + 1))), FN(same)(-3));
    vi low = __builtin_convertvector(x, vi);
    low += (__builtin_convertvector(low, vf) > x);
    *fraction = x - __builtin_convertvector(low, vf);
    return low;
}

/* 16 rows of 4 floats to 4 rows of 16, or back. */
INLINE void FN(turn)(const float *from, ptrdiff_t row, float *to, ptrdiff_t to_row) {
    v4 a = *(const v4 *)from, b = *(const v4 *)(from + row), c = *(const v4 *)(from + 2 * row),
       d = *(const v4 *)(from + 3 * row);
#ifdef TVL1_X86
    __m128 p = _mm_unpacklo_ps((__m128)a, (__m128)b), q = _mm_unpacklo_ps((__m128)c, (__m128)d);
    __m128 r = _mm_unpackhi_ps((__m128)a, (__m128)b), s = _mm_unpackhi_ps((__m128)c, (__m128)d);
    *(v4 *)to = (v4)_mm_movelh_ps(p, q);
    *(v4 *)(to + to_row) = (v4)_mm_movehl_ps(q, p);
    *(v4 *)(to + 2 * to_row) = (v4)_mm_movelh_ps(r, s);
    *(v4 *)(to + 3 * to_row) = (v4)_mm_movehl_ps(s, r);
#else
    for (int k = 0; k < 4; k++) {
        v4 x = {a[k], b[k], c[k], d[k]};
        *(v4 *)(to + k * to_row) = x;
    }
#endif
}

/* One bicubic sample of (I, Ix, Iy, 0): 4 rows of 4 taps, first down the columns, then along. */
INLINE v4 FN(sample)(const float *taps, ptrdiff_t row, const float *wy, v4 wx) {
    vf sum[PARTS];
    for (int k = 0; k < PARTS; k++) {
        const float *at = taps + k * V;
        sum[k] = wy[0] * FN(load)(at) + wy[BLOCK] * FN(load)(at + row) +
                 wy[2 * BLOCK] * FN(load)(at + 2 * row) + wy[3 * BLOCK] * FN(load)(at + 3 * row);
    }
#if defined(TVL1_X86) && V == 16
    const __m512i spread = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
    __m512 all = _mm512_permutexvar_ps(spread, _mm512_castps128_ps512((__m128)wx));
    all = _mm512_mul_ps((__m512)sum[0], all);
    __m256 high = _mm512_extractf32x8_ps(all, 1);
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), high);
    return (v4)_mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
#elif defined(TVL1_X86) && V == 8
    __m256 both = _mm256_insertf128_ps(_mm256_castps128_ps256((__m128)wx), (__m128)wx, 1);
    const __m256i low = _mm256_set_epi32(1, 1, 1, 1, 0, 0, 0, 0);
    const __m256i high = _mm256_set_epi32(3, 3, 3, 3, 2, 2, 2, 2);
    __m256 half = _mm256_add_ps(
        _mm256_mul_ps((__m256)sum[0], _mm256_permutevar_ps(both, low)),
        _mm256_mul_ps((__m256)sum[1], _mm256_permutevar_ps(both, high)));
    return (v4)_mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
#else
    return (sum[0] * wx[0] + sum[2] * wx[2]) + (sum[1] * wx[1] + sum[3] * wx[3]);
#endif
}

/* The same, rounded as OpenCV does: along the columns first, all fused. */
INLINE v4 FN(sample_fused)(const float *taps, ptrdiff_t row, const float *wx, const float *wy) {
    v4 total = {0};
    for (int r = 0; r < 4; r++, taps += row) {
        v4 along = *(const v4 *)taps * wx[0];
        for (int c = 1; c < 4; c++) {
            v4 weight = wx[c * BLOCK] - (v4){0};
            along = FN(fma4)(*(const v4 *)(taps + 4 * c), weight, along);
        }
        v4 weight = wy[r * BLOCK] - (v4){0};
        total = FN(fma4)(along, weight, total);
    }
    return total;
}

#if defined(TVL1_X86) && V == 4
/* 4 lanes in double. */
typedef struct {
    __m128d low, high;
} FN(wide);

INLINE __m128d FN(inexact)(__m128d product, __m128d c, __m128d sum) {
    return _mm_or_pd(_mm_cmpneq_pd(_mm_sub_pd(sum, product), c),
                     _mm_cmpneq_pd(_mm_sub_pd(sum, c), product));
}

/* a b + c, rounded to float; `doubt` gathers where that may not be as fused: see FN(fused). check: 1
 * where the sum is on a border, 2 only if it is not exact, too. */
INLINE FN(wide) FN(step4)(FN(wide) a, __m128d b, FN(wide) c, __m128i *doubt, const int check) {
    __m128d product_low = _mm_mul_pd(a.low, b), product_high = _mm_mul_pd(a.high, b);
    FN(wide) sum = {_mm_add_pd(product_low, c.low), _mm_add_pd(product_high, c.high)}, result;
    if (check) {
        __m128 tails = _mm_shuffle_ps(_mm_castpd_ps(sum.low), _mm_castpd_ps(sum.high), 0x88);
        __m128i tail = _mm_and_si128(_mm_castps_si128(tails), _mm_set1_epi32(0x1fffffff));
        __m128i border = _mm_cmpeq_epi32(tail, _mm_set1_epi32(0x10000000));
        if (check == 2) {
            __m128d off_low = FN(inexact)(product_low, c.low, sum.low);
            __m128d off_high = FN(inexact)(product_high, c.high, sum.high);
            __m128 off = _mm_shuffle_ps(_mm_castpd_ps(off_low), _mm_castpd_ps(off_high), 0x88);
            border = _mm_and_si128(border, _mm_castps_si128(off));
        }
        *doubt = _mm_or_si128(*doubt, border);
    }
    result.low = _mm_cvtps_pd(_mm_cvtpd_ps(sum.low));
    result.high = _mm_cvtps_pd(_mm_cvtpd_ps(sum.high));
    return result;
}

INLINE __m128d FN(two_floats)(const float *p) {
    return _mm_cvtps_pd(_mm_castpd_ps(_mm_load_sd((const double *)(const void *)p)));
}

INLINE v4 FN(sample_wide)(const float *taps, ptrdiff_t row, __m128 first, const double *wx,
                          const double *wy, __m128i *doubt, const int check) {
    FN(wide) total = {_mm_setzero_pd(), _mm_setzero_pd()};
    for (int r = 0; r < 4; r++, taps += row) {
        /* a product alone is rounded once in float */
        __m128 start = _mm_mul_ps(_mm_loadu_ps(taps), first);
        FN(wide) along = {_mm_cvtps_pd(start), _mm_cvtps_pd(_mm_movehl_ps(start, start))};
        for (int c = 1; c < 4; c++) {
            FN(wide) tap = {FN(two_floats)(taps + 4 * c), FN(two_floats)(taps + 4 * c + 2)};
            along = FN(step4)(tap, _mm_load_pd(wx + 2 * c), along, doubt, check);
        }
        total = FN(step4)(along, _mm_load_pd(wy + 2 * r), total, doubt, check ? check : 1);
    }
    return (v4)_mm_movelh_ps(_mm_cvtpd_ps(total.low), _mm_cvtpd_ps(total.high));
}

/* `short_sums`: along the columns the sums are exact in double, and lie on a border all the time. */
INLINE v4 FN(sample_exact)(const float *taps, ptrdiff_t row, const float *wx, const float *wy,
                           int short_sums) {
    _Alignas(16) double x[8], y[8];
    for (int k = 0; k < 4; k++) {
        _mm_store_pd(x + 2 * k, _mm_set1_pd((double)wx[k * BLOCK]));
        _mm_store_pd(y + 2 * k, _mm_set1_pd((double)wy[k * BLOCK]));
    }
    const __m128 first = _mm_set1_ps(wx[0]);
    __m128i doubt = _mm_setzero_si128();
    v4 all = short_sums ? FN(sample_wide)(taps, row, first, x, y, &doubt, 0)
                        : FN(sample_wide)(taps, row, first, x, y, &doubt, 1);
    if (!_mm_movemask_epi8(doubt)) return all;
    doubt = _mm_setzero_si128();
    all = FN(sample_wide)(taps, row, first, x, y, &doubt, 2);
    return _mm_movemask_epi8(doubt) ? FN(sample_fused)(taps, row, wx, wy) : all;
}

/* Smallest weight with which sums along the columns of an image of 0 to 255 are exact in double: taps
 * are whole multiples of 1/2 or, once resized by 1.25, of 2^-7, and so products and sums multiples of
 * 2^-44 below 2^9. 2, which no weight reaches, where taps are finer. */
static float FN(short_weight)(const float *image, ptrdiff_t count) {
    for (int unit = 1; unit <= 64; unit *= 64) {
        int32_t finer = 0;
        for (ptrdiff_t i = 0; i < count; i++) {
            float grains = image[i] * (float)unit;
            finer |= grains != (float)(int32_t)grains;
        }
        if (!finer) return unit == 1 ? 0x1p-19f : 0x1p-13f;
    }
    return 2;
}

/* Where all 4 weights are 0 or at least the smallest. */
INLINE vi FN(short_weights)(const float *weights, float smallest) {
    vi all = ~(vi){0};
    for (int k = 0; k < 4; k++) {
        vf size = FN(magnitude)(FN(load)(weights + k * BLOCK));
        all &= (size >= smallest) | (size == 0);
    }
    return all;
}
#else
INLINE v4 FN(sample_exact)(const float *taps, ptrdiff_t row, const float *wx, const float *wy,
                           int short_sums) {
    (void)short_sums;
    return FN(sample_fused)(taps, row, wx, wy);
}
#endif

/* What warping knows of a level. */
typedef struct {
    const float *previous;
    float a, step;  /* of the bicubic kernel; tau / theta, 1 in the exact flavour */
    float smallest; /* FN(short_weight), for machines without FMA */
} FN(warping);

/* Samples (I, Ix, Iy, 0) of a block at its flow. `thorough`: each step by FN(fused). */
INLINE void FN(sample_block)(const workspace *ws, const grid *g, const FN(warping) * how, int x, int y,
                             float *samples, const int exact, const int thorough) {
    const ptrdiff_t row = (ptrdiff_t)(g->w + 2 * MARGIN) * 4;
    const float *origin = ws->taps + (MARGIN - 1) * row + 4 * (MARGIN - 1);
    const float *u = ws->u + y * g->stride + x, *v = ws->v + y * g->stride + x;
    const float per_step = 1 / how->step;
    float wx[4 * BLOCK], wy[4 * BLOCK], turned[4 * BLOCK];
    int32_t offset[BLOCK], quick[BLOCK] = {0};
    const int count = g->w - x < BLOCK ? g->w - x : BLOCK;
    vf ramp;
    for (int i = 0; i < V; i++) ramp[i] = (float)i;
    for (int k = 0; k < BLOCK; k += V) {
        vf f;
        vi low_x = FN(locate)((float)(x + k) + ramp + per_step * FN(load)(u + k), g->w, &f);
        FN(bicubic)(f, how->a, wx + k, exact);
        vi low_y = FN(locate)((float)y + per_step * FN(load)(v + k), g->h, &f);
        FN(bicubic)(f, how->a, wy + k, exact);
        low_y = low_y * (int32_t)row + low_x * 4;
        memcpy(offset + k, &low_y, sizeof low_y);
#if defined(TVL1_X86) && V == 4
        vi is_short = FN(short_weights)(wx + k, how->smallest);
        if (exact) memcpy(quick + k, &is_short, sizeof is_short);
#endif
    }
    for (int i = 0; !exact && i < BLOCK; i += 4) FN(turn)(wx + i, BLOCK, turned + 4 * i, 4);
    for (int i = 0; i < count; i++) {
        const float *at = origin + offset[i];
        v4 all;
        if (exact && thorough)
            all = FN(sample_fused)(at, row, wx + i, wy + i);
        else if (exact)
            all = FN(sample_exact)(at, row, wx + i, wy + i, quick[i]);
        else
            all = FN(sample)(at, row, wy + i, *(const v4 *)(turned + 4 * i));
        *(v4 *)(samples + 4 * i) = all;
    }
    for (int i = count; i < BLOCK; i++) memset(samples + 4 * i, 0, 16);
}

/* Linearises the following image around the flow in row y: gradient and residual into the state. */
INLINE void FN(warp_row)(const workspace *ws, const grid *g, const FN(warping) * how, int y,
                         const int exact, const int thorough) {
    const float *u = ws->u + y * g->stride, *v = ws->v + y * g->stride;
    const float *image = how->previous + (ptrdiff_t)y * g->w, per_step = 1 / how->step;
    for (int b = 0; b < g->blocks; b++) {
        int x = b * BLOCK, count = g->w - x < BLOCK ? g->w - x : BLOCK;
        float samples[4 * BLOCK], planes[4 * BLOCK], grey[BLOCK] = {0};
        FN(sample_block)(ws, g, how, x, y, samples, exact, thorough);
        for (int i = 0; i < BLOCK; i += 4) FN(turn)(samples + 4 * i, 4, planes + i, BLOCK);
        float *state = ws->state + ((ptrdiff_t)y * g->blocks + b) * STATE;
        memcpy(grey, image + x, sizeof(float) * (size_t)count);
        for (int k = 0; k < BLOCK; k += V) {
            vf ix = FN(load)(planes + BLOCK + k) * per_step;
            vf iy = FN(load)(planes + 2 * BLOCK + k) * per_step;
            vf square = ix * ix + iy * iy;
            FN(store)(state + WX * BLOCK + k, ix);
            FN(store)(state + WY * BLOCK + k, iy);
            /* no gradient: whatever factor, it meets a gradient of 0 */
            if (!exact) square = 1 / FN(vmax)(square, FN(same)(1e-30f));
            FN(store)(state + INVERSE * BLOCK + k, square);
            FN(store)(state + RHO * BLOCK + k,
                      FN(load)(planes + k) - ix * FN(load)(u + x + k) - iy * FN(load)(v + x + k) -
                          FN(load)(grey + k));
        }
    }
}

#if defined(TVL1_X86) && V == 4
/* Where a result below the smallest normal float may have been rounded twice, the processor has
 * noted an underflow; the row is done again. */
static void FN(warp_exact)(const workspace *ws, const grid *g, const FN(warping) * how) {
    for (int y = 0; y < g->h; y++) {
        _mm_setcsr(_mm_getcsr() & ~(unsigned int)_MM_EXCEPT_UNDERFLOW);
        __asm__ volatile("" ::: "memory");
        FN(warp_row)(ws, g, how, y, 1, 0);
        __asm__ volatile("" ::: "memory");
        if (_mm_getcsr() & _MM_EXCEPT_UNDERFLOW) FN(warp_row)(ws, g, how, y, 1, 1);
    }
}
#else
static void FN(warp_exact)(const workspace *ws, const grid *g, const FN(warping) * how) {
    for (int y = 0; y < g->h; y++) FN(warp_row)(ws, g, how, y, 1, 0);
}
#endif

static void FN(warp)(const workspace *ws, int s, const tvl1_numbers *n) {
    FN(warping) how = {ws->previous[s], n->cuda ? -0.5f : -0.75f, (float)(n->tau / n->theta), 2};
    const grid *g = &ws->level[s];
    if (n->exact) {
        how.step = 1;
        how.smallest = ws->smallest;
        FN(warp_exact)(ws, g, &how);
    } else {
        for (int y = 0; y < g->h; y++) FN(warp_row)(ws, g, &how, y, 0, 0);
    }
}

/* ---- median ---- */

#define SORT2(a, b)              \
    do {                         \
        vf low = FN(vmin)(a, b); \
        b = FN(vmax)(a, b);      \
        a = low;                 \
    } while (0)

INLINE void FN(sort5)(vf *a) {
    SORT2(a[0], a[1]);
    SORT2(a[3], a[4]);
    SORT2(a[2], a[4]);
    SORT2(a[2], a[3]);
    SORT2(a[1], a[4]);
    SORT2(a[0], a[3]);
    SORT2(a[0], a[2]);
    SORT2(a[1], a[3]);
    SORT2(a[1], a[2]);
}

/* Median of 25 with sorted columns, a[rank][column]. Rows sorted too, 13 of the 25 are left that
 * may be the median; of those the network takes out one that is not, in each step. */
INLINE vf FN(median25)(vf a[5][5]) {
    for (int r = 0; r < 5; r++) FN(sort5)(a[r]);
    vf c0 = a[0][3], c1 = a[0][4], c2 = a[1][2], c3 = a[1][3], c4 = a[1][4], c5 = a[2][1],
       c6 = a[2][2], c7 = a[2][3], c8 = a[3][0], c9 = a[3][1], c10 = a[3][2], c11 = a[4][0],
       c12 = a[4][1];
    c5 = FN(vmax)(c3, c5);
    c1 = FN(vmin)(c1, c10);
    c4 = FN(vmin)(c4, c9);
    c4 = FN(vmax)(c0, c4);
    c8 = FN(vmax)(c5, c8);
    c7 = FN(vmin)(c7, c11);
    c8 = FN(vmin)(c8, c12);
    c4 = FN(vmax)(c2, c4);
    SORT2(c4, c6);
    SORT2(c7, c8);
    c6 = FN(vmin)(c6, c8);
    c7 = FN(vmax)(c4, c7);
    SORT2(c1, c6);
    c6 = FN(vmin)(c6, c7);
    return FN(vmax)(c1, c6);
}

INLINE vf FN(median9)(vf a[3][3]) {
    vf low = FN(vmax)(FN(vmax)(a[0][0], a[0][1]), a[0][2]);
    vf high = FN(vmin)(FN(vmin)(a[2][0], a[2][1]), a[2][2]);
    vf middle = FN(vmax)(FN(vmin)(a[1][0], a[1][1]),
                         FN(vmin)(FN(vmax)(a[1][0], a[1][1]), a[1][2]));
    return FN(vmax)(FN(vmin)(low, high), FN(vmin)(FN(vmax)(low, high), middle));
}

/* Median of side x side around each pixel, the edge repeated: columns are sorted once for all the
 * windows that share them. */
INLINE void FN(median_of)(const workspace *ws, const grid *g, const float *from, float *to,
                          const int side) {
    const int margin = side / 2;
    const ptrdiff_t length = g->stride + 2 * BLOCK;
    float *columns = ws->columns + BLOCK;
    for (int y = 0; y < g->h; y++) {
        const float *rows[5];
        for (int r = 0; r < side; r++) {
            int at = y + r - margin;
            rows[r] = from + (at < 0 ? 0 : at > g->h - 1 ? g->h - 1 : at) * g->stride;
        }
        for (int x = 0; x < g->w; x += V) {
            vf a[5];
            for (int r = 0; r < side; r++) a[r] = FN(load)(rows[r] + x);
            if (side == 5) {
                FN(sort5)(a);
            } else {
                SORT2(a[0], a[1]);
                SORT2(a[1], a[2]);
                SORT2(a[0], a[1]);
            }
            for (int r = 0; r < side; r++) FN(store)(columns + r * length + x, a[r]);
        }
        for (int r = 0; r < side; r++)
            for (int m = 1; m <= margin; m++) {
                float *rank = columns + r * length;
                rank[-m] = rank[0];
                rank[g->w - 1 + m] = rank[g->w - 1];
            }
        float *out = to + y * g->stride;
        for (int x = 0; x < g->w; x += V) {
            const float *at = columns + x - margin;
            if (side == 5) {
                vf a[5][5];
                for (int r = 0; r < 5; r++)
                    for (int c = 0; c < 5; c++) a[r][c] = FN(load)(at + r * length + c);
                FN(store)(out + x, FN(median25)(a));
            } else {
                vf a[3][3];
                for (int r = 0; r < 3; r++)
                    for (int c = 0; c < 3; c++) a[r][c] = FN(load)(at + r * length + c);
                FN(store)(out + x, FN(median9)(a));
            }
        }
        memset(out + g->w, 0, sizeof(float) * (size_t)(g->stride - g->w));
    }
}

static void FN(median)(workspace *ws, const grid *g, int side) {
    for (int component = 0; side > 1 && component < 2; component++) {
        float *from = component ? ws->v : ws->u;
        if (side == 5)
            FN(median_of)(ws, g, from, ws->spare, 5);
        else
            FN(median_of)(ws, g, from, ws->spare, 3);
        if (component)
            ws->v = ws->spare;
        else
            ws->u = ws->spare;
        ws->spare = from;
    }
}

/* ---- iterating ---- */

/* u and v of one part of a row; `left` are p11, p21 of the part to the left, for the first part of a
 * block; further parts find them in front of their own. */
INLINE void FN(primal)(const float *above, const float *here, float *u_at, float *v_at, vf left[2],
                       const factors *f, vf *error, const int has_above, const int first,
                       const int with_error) {
    vf p11 = FN(get)(here + P11 * BLOCK), p21 = FN(get)(here + P21 * BLOCK);
    vf p12 = FN(get)(here + P12 * BLOCK), p22 = FN(get)(here + P22 * BLOCK);
    vf ix = FN(get)(here + WX * BLOCK), iy = FN(get)(here + WY * BLOCK);
    vf u = FN(get)(u_at), v = FN(get)(v_at);
    /* divergence: backward differences */
    if (has_above) {
        p12 -= FN(get)(above + P12 * BLOCK);
        p22 -= FN(get)(above + P22 * BLOCK);
    }
    vf p11_left = first ? FN(before)(left[0], p11) : FN(load)(here + P11 * BLOCK - 1);
    vf p21_left = first ? FN(before)(left[1], p21) : FN(load)(here + P21 * BLOCK - 1);
    vf div_u = (p11 - p11_left) + p12, div_v = (p21 - p21_left) + p22;
    left[0] = p11;
    left[1] = p21;
    /* thresholding step */
    vf rho = FN(get)(here + RHO * BLOCK) + (ix * u + iy * v), limit = FN(same)(f->limit);
    vf move = FN(vmax)(FN(vmin)(rho * FN(get)(here + INVERSE * BLOCK), limit), -limit);
    vf du = f->tau * div_u - move * ix, dv = f->tau * div_v - move * iy;
    FN(store)(u_at, u + du);
    FN(store)(v_at, v + dv);
    if (with_error) *error += du * du + dv * dv;
}

/* Dual variables of one part of a row. */
INLINE void FN(dual)(float *state, const float *u_at, const float *v_at, const float *u_below,
                     const float *v_below, const int has_below, const vi *inside) {
    vf u = FN(get)(u_at), v = FN(get)(v_at), uy = {0}, vy = {0};
    /* forward differences, 0 at the last column and the last row */
    vf ux = FN(after)(u_at, u) - u, vx = FN(after)(v_at, v) - v;
    if (inside) {
        ux = (vf)((vi)ux & *inside);
        vx = (vf)((vi)vx & *inside);
    }
    if (has_below) {
        uy = FN(get)(u_below) - u;
        vy = FN(get)(v_below) - v;
    }
    vf norm_u = 1 + FN(root)(ux * ux + uy * uy), norm_v = 1 + FN(root)(vx * vx + vy * vy);
    /* one division for both */
    vf inverse = 1 / (norm_u * norm_v), scale_u = inverse * norm_v, scale_v = inverse * norm_u;
    FN(store)(state + P11 * BLOCK, (FN(get)(state + P11 * BLOCK) + ux) * scale_u);
    FN(store)(state + P12 * BLOCK, (FN(get)(state + P12 * BLOCK) + uy) * scale_u);
    FN(store)(state + P21 * BLOCK, (FN(get)(state + P21 * BLOCK) + vx) * scale_v);
    FN(store)(state + P22 * BLOCK, (FN(get)(state + P22 * BLOCK) + vy) * scale_v);
}

/* ---- iterating, exact ---- */

/* primal() as OpenCV rounds it. `edge`: the first block of a row, where it adds the divergence in
 * another order. changes: where to leave |du|^2 of each pixel. */
INLINE void FN(primal_exact)(const float *above, const float *here, float *u_at, float *v_at,
                             float *changes, vf left[2], const factors *f, vf *error,
                             const int has_above, const int first, const int edge,
                             const int with_error) {
    vf p11 = FN(get)(here + P11 * BLOCK), p21 = FN(get)(here + P21 * BLOCK);
    vf p12 = FN(get)(here + P12 * BLOCK), p22 = FN(get)(here + P22 * BLOCK);
    vf above12 = {0}, above22 = {0};
    if (has_above) {
        above12 = FN(get)(above + P12 * BLOCK);
        above22 = FN(get)(above + P22 * BLOCK);
    }
    vf p11_left = first ? FN(before)(left[0], p11) : FN(load)(here + P11 * BLOCK - 1);
    vf p21_left = first ? FN(before)(left[1], p21) : FN(load)(here + P21 * BLOCK - 1);
    vf div_u = (p11 - p11_left) + (p12 - above12), div_v = (p21 - p21_left) + (p22 - above22);
    if (edge && first) {
        div_u = FN(pick)(FN(first_lane)(), (p11 + p12) - above12, div_u);
        div_v = FN(pick)(FN(first_lane)(), (p21 + p22) - above22, div_v);
    }
    left[0] = p11;
    left[1] = p21;
    vf ix = FN(get)(here + WX * BLOCK), iy = FN(get)(here + WY * BLOCK);
    vf u = FN(get)(u_at), v = FN(get)(v_at), limit = FN(same)(f->limit);
    vf rho = FN(get)(here + RHO * BLOCK) + (ix * u + iy * v);
    vf square = FN(get)(here + SQUARE * BLOCK), bound = limit * square;
    vf move = FN(pick)(FN(more)(square, FN(same)(FLT_EPSILON)), rho / square, FN(same)(0));
    move = FN(pick)(FN(more)(FN(magnitude)(rho), bound), FN(signed_as)(limit, rho), move);
    vf new_u = (u - move * ix) + f->theta * div_u, new_v = (v - move * iy) + f->theta * div_v;
    FN(store)(u_at, new_u);
    FN(store)(v_at, new_v);
    if (with_error) {
        vf du = new_u - u, dv = new_v - v, change = du * du + dv * dv;
        FN(store)(changes, change);
        *error += change;
    }
}

/* |(x, y)| as the C library's hypotf rounds it: through double. */
#if defined(TVL1_X86) && V == 4
INLINE __m128d FN(length2)(__m128 x, __m128 y) {
    __m128d a = _mm_cvtps_pd(x), b = _mm_cvtps_pd(y);
    return _mm_sqrt_pd(_mm_add_pd(_mm_mul_pd(a, a), _mm_mul_pd(b, b)));
}
INLINE vf FN(length)(vf x, vf y) {
    __m128 a = (__m128)x, b = (__m128)y;
    __m128d low = FN(length2)(a, b), high = FN(length2)(_mm_movehl_ps(a, a), _mm_movehl_ps(b, b));
    return (vf)_mm_movelh_ps(_mm_cvtpd_ps(low), _mm_cvtpd_ps(high));
}
#elif defined(TVL1_X86) && V == 8
INLINE __m128 FN(length4)(__m128 x, __m128 y) {
    __m256d a = _mm256_cvtps_pd(x), b = _mm256_cvtps_pd(y);
    return _mm256_cvtpd_ps(
        _mm256_sqrt_pd(_mm256_add_pd(_mm256_mul_pd(a, a), _mm256_mul_pd(b, b))));
}
INLINE vf FN(length)(vf x, vf y) {
    __m256 a = (__m256)x, b = (__m256)y;
    __m128 low = FN(length4)(_mm256_castps256_ps128(a), _mm256_castps256_ps128(b));
    __m128 high = FN(length4)(_mm256_extractf128_ps(a, 1), _mm256_extractf128_ps(b, 1));
    return (vf)_mm256_insertf128_ps(_mm256_castps128_ps256(low), high, 1);
}
#else
INLINE vf FN(length)(vf x, vf y) {
    for (int i = 0; i < V; i++) {
        double a = (double)x[i], b = (double)y[i];
        x[i] = (float)sqrt(a * a + b * b);
    }
    return x;
}
#endif

#ifdef TVL1_X86
/* Out of line: rare. */
static __attribute__((noinline, cold)) vf FN(norm_slowly)(vf x, vf y, float step) {
    return 1 + step * FN(length)(x, y);
}

/* How far the correction's factor of one half is off on either side: what FN(ratio) may be off by
 * (relatively, twice this), and much more than what is lost elsewhere. */
#if V == 16
#define LENGTH_MARGIN 0x1p-20f
INLINE vf FN(ratio)(vf a, vf b) { return a / b; }
#elif V == 8 /* one division less: its inverse, to 1.5 2^-12 */
#define LENGTH_MARGIN 0x1.ap-13f
INLINE vf FN(ratio)(vf a, vf b) { return a * (vf)_mm256_rcp_ps((__m256)b); }
#else
#define LENGTH_MARGIN 0x1.ap-13f
INLINE vf FN(ratio)(vf a, vf b) { return a * (vf)_mm_rcp_ps((__m128)b); }
#endif

#if V == 4
/* x^2 + y^2 - root^2 of two lanes: only the first sum is rounded, as in FN(length2). */
INLINE __m128 FN(rest2)(__m128 x, __m128 y, __m128 root) {
    __m128d a = _mm_cvtps_pd(x), b = _mm_cvtps_pd(y), c = _mm_cvtps_pd(root);
    __m128d sum = _mm_add_pd(_mm_mul_pd(a, a), _mm_mul_pd(b, b));
    return _mm_cvtpd_ps(_mm_sub_pd(sum, _mm_mul_pd(c, c)));
}
#endif

/* The same in float; `unsure` gathers where that is not certain. Not what it is below 2^-45.
 *
 * The root of a rounded sum of squares, and what the exact sum has more than the root's square: `rest`,
 * to 2^-44 of the sum. The length is then root + rest / (2 root), known to far below half an ulp. Where
 * a correction a little larger and one a little smaller round to the same float, that is what
 * double arithmetic gives too. Overflow ends in NaN: not certain.
 *
 * With |y| >= |x|, `square - sum` is exact, since one is at most twice the other; the three other terms
 * of the rest are what rounding left of a product or root. Without FMA, the rest is taken in double. */
INLINE vf FN(length_in_float)(vf ux, vf uy, FN(mask) * unsure) {
#if V == 4
    vf root = FN(root)(ux * ux + uy * uy);
    __m128 x = (__m128)ux, y = (__m128)uy, r = (__m128)root;
    vf rest = (vf)_mm_movelh_ps(FN(rest2)(x, y, r),
                                FN(rest2)(_mm_movehl_ps(x, x), _mm_movehl_ps(y, y),
                                          _mm_movehl_ps(r, r)));
    vf correction = FN(ratio)(rest, FN(vmax)(root, FN(same)(0x1p-45f)));
    vf upper = correction * FN(same)(0.5f + LENGTH_MARGIN) + root;
    vf lower = correction * FN(same)(0.5f - LENGTH_MARGIN) + root;
#else
    /* in this order NaN in either reaches one of them */
    vf a = FN(magnitude)(ux), b = FN(magnitude)(uy), x = FN(vmin)(a, b), y = FN(vmax)(b, a);
    vf square = y * y, sum = FN(fma)(x, x, square), root = FN(root)(sum);
    vf low = FN(fma)(y, y, -square) + FN(fma)(x, x, square - sum);
    vf rest = FN(fma)(-root, root, sum) + low;
    vf correction = FN(ratio)(rest, FN(vmax)(root, FN(same)(0x1p-45f)));
    vf upper = FN(fma)(correction, FN(same)(0.5f + LENGTH_MARGIN), root);
    vf lower = FN(fma)(correction, FN(same)(0.5f - LENGTH_MARGIN), root);
#endif
    *unsure |= FN(differ)(upper, lower);
    return upper;
}
#endif

/* What the dual update of a part of a row has come to when half of it is done: numerators and
 * denominators. In between lies a block of others: the whole is too long a chain of roots and divisions
 * for one to be started before the one before has ended. */
typedef struct {
    vf p11, p12, p21, p22, norm_u, norm_v;
} FN(halfway);

/* First half of dual() as OpenCV rounds it. */
INLINE void FN(dual_begin)(FN(halfway) * half, const float *state, const float *u_at,
                           const float *v_at, const float *u_below, const float *v_below,
                           const factors *f, const int has_below, const vi *inside) {
    vf u = FN(get)(u_at), v = FN(get)(v_at), uy = {0}, vy = {0};
    vf ux = FN(after)(u_at, u) - u, vx = FN(after)(v_at, v) - v;
    if (inside) {
        ux = (vf)((vi)ux & *inside);
        vx = (vf)((vi)vx & *inside);
    }
    if (has_below) {
        uy = FN(get)(u_below) - u;
        vy = FN(get)(v_below) - v;
    }
#ifdef TVL1_X86
    FN(mask) unsure = (FN(mask)){0};
#if V == 4 /* one in double, which keeps the divider busy, and one in float, which takes more sums */
    vf length_u = FN(length)(ux, uy);
#else
    vf length_u = FN(length_in_float)(ux, uy, &unsure);
#endif
    vf length_v = FN(length_in_float)(vx, vy, &unsure);
#else
    vf length_u = FN(length)(ux, uy), length_v = FN(length)(vx, vy);
#endif
    half->p11 = FN(get)(state + P11 * BLOCK) + f->step * ux;
    half->p12 = FN(get)(state + P12 * BLOCK) + f->step * uy;
    half->p21 = FN(get)(state + P21 * BLOCK) + f->step * vx;
    half->p22 = FN(get)(state + P22 * BLOCK) + f->step * vy;
    half->norm_u = 1 + f->step * length_u;
    half->norm_v = 1 + f->step * length_v;
#ifdef TVL1_X86
    if (__builtin_expect(FN(any)(unsure) | f->careful, 0)) {
        half->norm_u = FN(norm_slowly)(ux, uy, f->step);
        half->norm_v = FN(norm_slowly)(vx, vy, f->step);
    }
#endif
}

/* Second half: four divisions, since a product with an inverse is not rounded as they are. */
INLINE void FN(dual_end)(const FN(halfway) * half, float *state) {
    FN(store)(state + P11 * BLOCK, half->p11 / half->norm_u);
    FN(store)(state + P12 * BLOCK, half->p12 / half->norm_u);
    FN(store)(state + P21 * BLOCK, half->p21 / half->norm_v);
    FN(store)(state + P22 * BLOCK, half->p22 / half->norm_v);
}

/* ---- sweeping ---- */

/* u, v of row y, and the dual variables of the row above, which wait for just these: one block
 * behind, so that the divisions and roots of one run beside the sums of the other. */
INLINE void FN(sweep_row)(const workspace *ws, const grid *g, int y, const factors *f,
                          const vi *inside, vf *error, const int has_above, const int has_here,
                          const int with_error) {
    ptrdiff_t row = (ptrdiff_t)g->blocks * STATE;
    float *here = ws->state + y * row, *above = here - row;
    float *u = ws->u + y * g->stride, *v = ws->v + y * g->stride;
    const float *u_above = u - g->stride, *v_above = v - g->stride;
    vf left[2] = {{0}, {0}};
    const int last = g->blocks - 1;
    for (int b = 0; b <= last; b++) {
        for (int k = 0; has_here && k < BLOCK; k += V)
            FN(primal)(above + b * STATE + k, here + b * STATE + k, u + b * BLOCK + k,
                       v + b * BLOCK + k, left, f, error + k / V, has_above, k == 0,
                       with_error);
        int c = (b - 1) * BLOCK;
        for (int k = c; has_above && b > 0 && k < c + BLOCK; k += V)
            FN(dual)(above + (b - 1) * STATE + (k - c), u_above + k, v_above + k, u + k, v + k, has_here,
                     NULL);
    }
    for (int k = 0; has_above && k < BLOCK; k += V) {
        int x = last * BLOCK + k;
        FN(dual)(above + last * STATE + k, u_above + x, v_above + x, u + x, v + x, has_here,
                 inside + k / V);
    }
}

/* The same of the exact flavour: the dual's first half one block behind, its second two; part by part,
 * so that the roots and divisions of one run beside the sums of the others. */
INLINE void FN(sweep_row_exact)(const workspace *ws, const grid *g, int y, const factors *f,
                                const vi *inside, vf *error, const int has_above,
                                const int has_here, const int with_error) {
    ptrdiff_t row = (ptrdiff_t)g->blocks * STATE;
    float *here = ws->state + y * row, *above = here - row;
    float *u = ws->u + y * g->stride, *v = ws->v + y * g->stride;
    float *changes = ws->spare + y * g->stride;
    const float *u_above = u - g->stride, *v_above = v - g->stride;
    vf left[2] = {{0}, {0}};
    FN(halfway) half[PARTS] = {{.p11 = {0}}};
    const int last = g->blocks - 1;
    for (int k = 0; has_here && k < BLOCK; k += V)
        FN(primal_exact)(above + k, here + k, u + k, v + k, changes + k, left, f, error + k / V,
                         has_above, k == 0, 1, with_error);
    for (int b = 1; b <= last; b++) {
        float *behind = above + (b - 1) * STATE;
#pragma GCC unroll 4
        for (int k = 0; k < BLOCK; k += V) {
            int x = b * BLOCK + k, at = b * STATE + k, xb = x - BLOCK;
            if (has_above && b > 1) FN(dual_end)(half + k / V, behind - STATE + k);
            if (has_above)
                FN(dual_begin)(half + k / V, behind + k, u_above + xb, v_above + xb, u + xb, v + xb,
                               f, has_here, NULL);
            if (has_here)
                FN(primal_exact)(above + at, here + at, u + x, v + x, changes + x, left, f,
                                 error + k / V, has_above, k == 0, 0, with_error);
        }
    }
    for (int k = 0; has_above && last > 0 && k < BLOCK; k += V)
        FN(dual_end)(half + k / V, above + (last - 1) * STATE + k);
    for (int k = 0; has_above && k < BLOCK; k += V) {
        int x = last * BLOCK + k;
        float *state = above + last * STATE + k;
        FN(dual_begin)(half, state, u_above + x, v_above + x, u + x, v + x, f, has_here,
                       inside + k / V);
        FN(dual_end)(half, state);
    }
}

/* Either. */
INLINE void FN(sweep)(const workspace *ws, const grid *g, int y, const factors *f, const vi *inside,
                      vf *error, const int has_above, const int has_here, const int with_error,
                      const int exact) {
    if (exact)
        FN(sweep_row_exact)(ws, g, y, f, inside, error, has_above, has_here, with_error);
    else
        FN(sweep_row)(ws, g, y, f, inside, error, has_above, has_here, with_error);
}

/* One iteration in a single sweep, in place: as if all of u, then all of p were updated. Row by
 * row, because p of a row needs the new u of the next, and u of a row the old p of the one above.
 * Returns sum |du|^2, or, as soon as it is above `enough`, that much of it. */
INLINE double FN(iterate_as)(const workspace *ws, const grid *g, const factors *given,
                             double enough, const int exact) {
    const factors own = *given, *f = &own;
    vi inside[PARTS];
    for (int i = 0; i < BLOCK; i++)
        ((int32_t *)inside)[i] = (g->blocks - 1) * BLOCK + i < g->w - 1 ? -1 : 0;
    double sum = 0;
    vf error[PARTS] = {{0}};
    for (int y = 0; y <= g->h; y++) {
        if (y == g->h)
            FN(sweep)(ws, g, y, f, inside, error, 1, 0, 0, exact);
        else if (y == 0)
            FN(sweep)(ws, g, y, f, inside, error, 0, 1, 1, exact);
        else if (sum > enough)
            FN(sweep)(ws, g, y, f, inside, error, 1, 1, 0, exact);
        else
            FN(sweep)(ws, g, y, f, inside, error, 1, 1, 1, exact);
        if ((y % 8 && y < g->h) || sum > enough) continue;
        float lanes[BLOCK];
        for (int k = 0; k < PARTS; k++) {
            FN(store)(lanes + k * V, error[k]);
            error[k] = (vf){0};
        }
        double part = 0;
        for (int i = 0; i < BLOCK; i++) part += (double)lanes[i];
        sum += part;
    }
    return sum;
}

static double FN(iterate)(const workspace *ws, const grid *g, const factors *f, double enough) {
    return FN(iterate_as)(ws, g, f, enough, 0);
}

/* One exact iteration; whether OpenCV's stop test lets another follow.
 *
 * OpenCV adds up the changes in float, one after the other. That sum lies within n ulp / 2 of the true
 * one (n numbers, none negative), as the sum here does for the few of each lane: only in between is
 * OpenCV's sum itself taken. */
static int FN(goes_on)(const workspace *ws, const grid *g, const factors *f, float limit) {
    const double theirs = (double)g->h * g->w * 0x1p-24, ours = (8 * g->blocks + 16) * 0x1p-24;
    double certain = DBL_MAX;
    if (theirs < 0.25) certain = (double)limit * (1 + ours) * (1 - theirs) / (1 - 2 * theirs);
    double sum = FN(iterate_as)(ws, g, f, certain, 1);
    if (sum > certain) return 1;
    if (sum < (double)limit * (1 - ours) * (1 - theirs)) return 0;
    float total = 0;
    for (int y = 0; y < g->h; y++)
        for (int x = 0; x < g->w; x++) total += ws->spare[y * g->stride + x];
    return total > limit;
}

/* Iterations after one warp; returns how many. */
static int64_t FN(relax)(workspace *ws, const grid *g, const tvl1_numbers *n, const factors *f) {
    const double step = n->exact ? 1 : n->tau / n->theta;
    const double limit = n->epsilon * n->epsilon * step * step * g->h * g->w;
    double error = DBL_MAX, estimate = 0;
    int64_t done = 0;
    for (int outer = 0; error > limit && outer < n->outer_iterations; outer++) {
        FN(median)(ws, g, n->median_filtering);
        for (int inner = 0; error > limit && inner < n->inner_iterations; inner++, done++) {
            if (n->exact) {
                error = FN(goes_on)(ws, g, f, (float)limit) ? DBL_MAX : 0;
            } else if (!n->cuda) {
                error = FN(iterate)(ws, g, f, limit);
            } else if (n->epsilon > 0 && (done & 1) && estimate < limit) {
                error = estimate = FN(iterate)(ws, g, f, DBL_MAX);
            } else { /* the CUDA class looks at its error only when it expects it to be small */
                FN(iterate)(ws, g, f, -1);
                error = DBL_MAX;
                estimate -= limit;
            }
        }
    }
    return done;
}

static int64_t FN(solve_level)(workspace *ws, int s, const tvl1_numbers *n) {
    const grid *g = &ws->level[s];
    double step = n->tau / n->theta;
    const int careful = !(step < 0x1p20);
    factors f = {(float)(n->lambda * n->theta * step * step), (float)n->tau, 0, 0, 0};
    if (n->exact)
        f = (factors){(float)(n->lambda * n->theta), 0, (float)n->theta, (float)step, careful};
    int64_t done = 0;
    memset(ws->state, 0, sizeof(float) * (size_t)g->h * (size_t)g->blocks * STATE);
    FN(make_taps)(ws->following[s], g->h, g->w, n->cuda, ws->taps);
#if defined(TVL1_X86) && V == 4
    if (n->exact) ws->smallest = FN(short_weight)(ws->following[s], (ptrdiff_t)g->h * g->w);
#endif
    for (int k = 0; k < n->num_warps; k++) {
        FN(warp)(ws, s, n);
        done += FN(relax)(ws, g, n, &f);
    }
    return done;
}

/* ---- the whole ---- */

static int FN(grey_levels)(const void *frame, int is_float, ptrdiff_t count, float *out) {
    int bad = 0;
    if (!is_float) {
        const uint8_t *from = frame;
        for (ptrdiff_t i = 0; i < count; i++) out[i] = from[i];
        return OK;
    }
    const float *from = frame;
    for (ptrdiff_t i = 0; i < count; i++) {
        bad |= !(from[i] >= 0 && from[i] <= 1);
        out[i] = from[i] * 255.0f;
    }
    return bad ? BAD_PIXEL : OK;
}

/* Flow of the coarser level s + 1, in ws->u and ws->v, to level s and its px. */
static void FN(upsample)(workspace *ws, int s, const tvl1_numbers *n) {
    const grid *from = &ws->level[s + 1], *to = &ws->level[s];
    for (int component = 0; component < 2; component++) {
        float *flow = component ? ws->v : ws->u;
        memset(ws->spare, 0, sizeof(float) * (size_t)to->h * (size_t)to->stride);
        FN(resize)(ws, flow, from->h, from->w, from->stride, ws->spare, to->h, to->w, to->stride,
                   (double)from->h / to->h, (double)from->w / to->w, n->cuda, 1 / n->scale_step);
        if (component)
            ws->v = ws->spare;
        else
            ws->u = ws->spare;
        ws->spare = flow;
    }
}

static int FN(write_out)(const workspace *ws, float per_step, float *flow, uint8_t *levels,
                         double bound) {
    const grid *g = &ws->level[0];
    float *px = ws->row_a;
    int bad = 0;
    for (int row = 0; row < 2 * g->h; row++) {
        int y = row < g->h ? row : row - g->h;
        const float *from = (row < g->h ? ws->u : ws->v) + y * g->stride;
        for (int x = 0; x < g->w; x++) {
            px[x] = from[x] * per_step;
            bad |= !(px[x] >= -FLT_MAX && px[x] <= FLT_MAX);
        }
        if (bad) return NOT_FINITE;
        if (flow) memcpy(flow + (ptrdiff_t)row * g->w, px, sizeof(float) * (size_t)g->w);
        uint8_t *to = levels + (levels ? (ptrdiff_t)row * g->w : 0);
        for (int x = 0; levels && x < g->w; x++) {
            double value = (double)px[x];
            value = value < -bound ? -bound : value > bound ? bound : value;
            /* adding 1.5 * 2^52 rounds to a whole number, halves to even */
            double rounded = ((value + bound) * 255 / (2 * bound) + 0x1.8p52) - 0x1.8p52;
            to[x] = (uint8_t)(int)rounded;
        }
    }
    return OK;
}

static int32_t FN(solve)(workspace *ws, const void *previous, const void *following, int is_float,
                         const tvl1_numbers *n, float *flow, uint8_t *levels, double bound,
                         int64_t *done) {
    const grid *finest = &ws->level[0];
    ptrdiff_t count = (ptrdiff_t)finest->h * finest->w;
    if (FN(grey_levels)(previous, is_float, count, ws->previous[0]) ||
        FN(grey_levels)(following, is_float, count, ws->following[0]))
        return BAD_PIXEL;
    for (int s = 1; s < ws->num_scales; s++) {
        const grid *from = &ws->level[s - 1], *to = &ws->level[s];
        for (int k = 0; k < 2; k++) {
            float **images = k ? ws->following : ws->previous;
            /* the scale is the step itself, not the ratio of the rounded sizes */
            FN(resize)(ws, images[s - 1], from->h, from->w, from->w, images[s], to->h, to->w, to->w,
                       1 / n->scale_step, 1 / n->scale_step, n->cuda, 1);
        }
    }
    int s = ws->num_scales - 1;
    size_t plane = sizeof(float) * (size_t)ws->level[s].h * (size_t)ws->level[s].stride;
    memset(ws->u, 0, plane);
    memset(ws->v, 0, plane);
    for (; s >= 0; s--) {
        *done += FN(solve_level)(ws, s, n);
        if (s > 0) FN(upsample)(ws, s - 1, n);
    }
    float per_step = n->exact ? 1 : 1 / (float)(n->tau / n->theta);
    return FN(write_out)(ws, per_step, flow, levels, bound);
}

#undef SORT2
#undef LENGTH_MARGIN
#undef SHUFFLE
#undef V
#undef PARTS
#undef vf
#undef vi
#undef vfu
#undef v4
#endif
