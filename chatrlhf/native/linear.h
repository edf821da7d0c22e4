// Linear layers of few rows: weights as int8 with a scale an output, or bfloat16 where they lie.
//
// Notation: R rows, K inputs of a layer. What a row gets depends neither on the other rows nor on
// the number of threads: every output is computed by one thread, in one order of operations.

#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "tiles.h"

namespace {

constexpr int kBlock = 64;  // outputs that are computed together
constexpr int kMaxRows = 32;
constexpr int kMaxParts = 3;
constexpr int kChunk = 8;  // rows of a tile, which has a column for the high and the low part of each

enum WeightKind { kInt8 = 0, kBf16 = 1 };

}  // namespace

extern "C" {

// A linear layer, or several that share their input. The outputs of every part begin at a block.
struct Linear {
    int32_t d_in, d_out;              // d_out: of all parts, each filled up to whole blocks
    int32_t parts, sizes[kMaxParts];  // outputs of each part
    int32_t first[kMaxParts];         // its first block
    const void* weight[kMaxParts];    // int8: packed; bfloat16: (size, d_in)
    const float* scale;               // (d_out) of int8
    const float* bias;                // (d_out) or null
};

}  // extern "C"

namespace {

inline int part_of(const Linear& linear, int block) {
    int part = 0;
    while (part + 1 < linear.parts && block >= linear.first[part + 1]) ++part;
    return part;
}

// The input of a linear layer: float32 rows, and a form that the kernels multiply with.
//
// For int8 weights rows are rounded to fifteen bits, x = unit * q, far finer than bfloat16, and
// products are summed as integers. AMX and VNNI have products of int8 only: q = 128 high + low.
// For bfloat16 weights AMX takes x as the sum of two halves; elsewhere it stays float32.
struct Input {
    int rows = 0, d_in = 0, stride = 0, kind = kInt8;
    std::vector<float> value;  // (R, stride), zeros after d_in
    float unit[kMaxRows];
    int32_t high_sum[kMaxRows], low_sum[kMaxRows];
    std::vector<int8_t> columns;    // AMX: (chunks, stride / 4, 16, 4): 8 rows high, 8 low
    std::vector<int8_t> high, low;  // VNNI: (R, stride)
    std::vector<int16_t> whole;     // other int8: (R, stride)
    std::vector<bf16> halves;       // AMX: (chunks, stride / 2, 16, 2): 8 rows high, 8 low

    float* row(int r) { return value.data() + size_t(r) * stride; }
    const float* row(int r) const { return value.data() + size_t(r) * stride; }

    void resize(int rows_, int d_in_, int kind_) {
        if (rows == rows_ && d_in == d_in_ && kind == kind_) return;
        rows = rows_, d_in = d_in_, kind = kind_;
        stride = (d_in + 63) / 64 * 64;
        const size_t size = size_t(rows) * stride;
        const size_t filled = size_t((rows + kChunk - 1) / kChunk) * stride;
        value.assign(size, 0.0f);
        if (kind == kBf16) {
            if (KERNEL == AMX) halves.assign(filled * 16, 0);
        } else if (KERNEL == AMX) {
            columns.assign(filled * 16, 0);
        } else if (KERNEL == VNNI) {
            high.resize(size), low.resize(size);
        } else {
            whole.resize(size);
        }
    }

    void prepare() {
        for (int r = 0; r < rows; ++r) {
            if (kind == kInt8) quantize(r);
            else if (KERNEL == AMX) split(r);
        }
    }

  private:
    void split(int r) {
        bf16* to = halves.data() + size_t(r / kChunk) * stride * 16 + (r % kChunk) * 2;
        for (int k = 0; k < stride; k += kLanes, to += kLanes * 16) {
            const vf x = load_floats(row(r) + k);
            const vh upper = narrow(x), lower = narrow(x - widen(upper));
            for (int i = 0; i < kLanes; i += 2) {
                std::memcpy(to + i * 16, reinterpret_cast<const bf16*>(&upper) + i, 4);
                std::memcpy(to + i * 16 + kChunk * 2, reinterpret_cast<const bf16*>(&lower) + i, 4);
            }
        }
    }

    void quantize(int r) {
        const float* x = row(r);
        vf peaks{}, probe{};
        for (int k = 0; k < stride; k += kLanes) {
            const vf v = load_floats(x + k);
            const vf size = choose(v < vf{}, -v, v);
            peaks = choose(size > peaks, size, peaks);
            probe += v * 0.0f;  // no number if one of them is none or infinite
        }
        float peak = 0.0f;
        for (int i = 0; i < kLanes; ++i) peak = std::max(peak, peaks[i]);
        const float bad = sum(probe);
        unit[r] = peak / 16256.0f + bad;
        const float inverse = peak > 0.0f && bad == 0.0f ? 16256.0f / peak : 0.0f;
        vi highs{}, lows{};
        for (int k = 0; k < stride; k += kLanes) {
            const vf scaled = bad == 0.0f ? load_floats(x + k) * inverse : vf{};
            const vf half = choose(scaled < vf{}, splat(-0.5f), splat(0.5f));
            const vi q = __builtin_convertvector(scaled + half, vi);
            const vi over = (q + 64) >> 7, under = q - over * 128;
            highs += over;
            lows += under;
            place(r, k, q, __builtin_convertvector(over, vb), __builtin_convertvector(under, vb));
        }
        high_sum[r] = low_sum[r] = 0;
        for (int i = 0; i < kLanes; ++i) high_sum[r] += highs[i], low_sum[r] += lows[i];
    }

    void place(int r, int k, vi q, vb upper, vb lower) {
        const size_t at = size_t(r) * stride + k;
        if (KERNEL == AMX) {
            int8_t* to = columns.data() + (size_t(r / kChunk) * stride + k) * 16 + (r % kChunk) * 4;
            for (int i = 0; i < kLanes; i += 4, to += 64) {
                std::memcpy(to, reinterpret_cast<const int8_t*>(&upper) + i, 4);
                std::memcpy(to + kChunk * 4, reinterpret_cast<const int8_t*>(&lower) + i, 4);
            }
        } else if (KERNEL == VNNI) {
            std::memcpy(high.data() + at, &upper, sizeof upper);
            std::memcpy(low.data() + at, &lower, sizeof lower);
        } else {
            const vs both = __builtin_convertvector(q, vs);
            std::memcpy(whole.data() + at, &both, sizeof both);
        }
    }
};

// ---------------------------------------------------------------- int8

// Puts a row of weights, filled up to the stride, into a packed block.
// AMX: (stride / 64, 64 outputs, 64). Others: (4, stride / 4, 16 outputs, 4).
inline void place(const int8_t* row, int inside, int stride, int8_t* block) {
    if (KERNEL == AMX) {
        for (int k = 0; k < stride; k += 64)
            std::memcpy(block + size_t(k) * kBlock + inside * 64, row + k, 64);
        return;
    }
    const int8_t flip = KERNEL == VNNI ? int8_t(0x80) : int8_t(0);
    int8_t* to = block + size_t(inside / kLanes) * stride * kLanes + inside % kLanes * 4;
    for (int k = 0; k < stride; k += 4)
        for (int i = 0; i < 4; ++i) to[size_t(k) * kLanes + i] = int8_t(row[k + i] ^ flip);
}

// Rounds rows of W (d_out, d_in) to int8, each by its greatest value, and packs them.
inline void pack_rows(const bf16* weight, int d_out, int d_in, int8_t* to, float* scale) {
    const int padded = (d_out + kBlock - 1) / kBlock * kBlock, stride = (d_in + 63) / 64 * 64;
    std::vector<int8_t> row(stride);
    for (int o = 0; o < padded; ++o) {
        std::fill(row.begin(), row.end(), int8_t(0));
        scale[o] = 0.0f;
        if (o < d_out) {
            const bf16* from = weight + size_t(o) * d_in;
            float peak = 0.0f;
            for (int k = 0; k < d_in; ++k) peak = std::max(peak, std::fabs(widen(from[k])));
            scale[o] = peak / 127.0f;
            const float inverse = peak > 0.0f ? 127.0f / peak : 0.0f;
            for (int k = 0; k < d_in; ++k) row[k] = int8_t(std::nearbyint(widen(from[k]) * inverse));
        }
        place(row.data(), o % kBlock, stride, to + size_t(o / kBlock) * kBlock * stride);
    }
}

#if KERNEL == AMX
// out (R, kBlock). Tiles 0..3: sums of 16 outputs by 16 columns. 4: input. 5, 6: weights.
void multiply_int8(const int8_t* weight, const float* scale, const Input& in, float* out,
                   int out_stride) {
    for (int first = 0; first < in.rows; first += kChunk) {
        const int8_t *x = in.columns.data() + size_t(first) * in.stride * 2, *w = weight;
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int k = 0; k < in.stride; k += 64, w += 4096, x += 1024) {
            _tile_loadd(4, x, 64);
            _tile_loadd(5, w, 64);
            _tile_dpbssd(0, 5, 4);
            _tile_loadd(6, w + 1024, 64);
            _tile_dpbssd(1, 6, 4);
            _tile_loadd(5, w + 2048, 64);
            _tile_dpbssd(2, 5, 4);
            _tile_loadd(6, w + 3072, 64);
            _tile_dpbssd(3, 6, 4);
        }
        alignas(64) int32_t sums[kBlock][16];
        _tile_stored(0, sums[0], 64);
        _tile_stored(1, sums[16], 64);
        _tile_stored(2, sums[32], 64);
        _tile_stored(3, sums[48], 64);
        for (int r = 0; r < std::min(kChunk, in.rows - first); ++r) {
            float* to = out + size_t(first + r) * out_stride;
            const float unit = in.unit[first + r];
            for (int o = 0; o < kBlock; ++o) {
                const float total = 128.0f * float(sums[o][r]) + float(sums[o][kChunk + r]);
                to[o] = total * (unit * scale[o]);
            }
        }
    }
}
#else
constexpr int kAhead = 2048;  // bytes of weights to fetch in advance

// out[n] = 16 sums of row first + n, as floats and without the scales.
#if KERNEL == VNNI
constexpr int kAtOnce = 8;
template <int N>
inline void multiply_rows(const int8_t* w, const Input& in, int first, vf* out) {
    __m512i high[N], low[N];
    const int stride = in.stride;
    const int8_t* h = in.high.data() + size_t(first) * stride;
    const int8_t* l = in.low.data() + size_t(first) * stride;
    for (int n = 0; n < N; ++n) high[n] = low[n] = _mm512_setzero_si512();
    for (int k = 0; k < stride; k += 4, w += 64) {
        __builtin_prefetch(w + kAhead);
        const __m512i weight = _mm512_loadu_si512(w);  // unsigned: 128 too much
        for (int n = 0; n < N; ++n) {
            const __m512i upper = _mm512_set1_epi32(load<int32_t>(h + n * stride + k));
            const __m512i lower = _mm512_set1_epi32(load<int32_t>(l + n * stride + k));
            high[n] = _mm512_dpbusd_epi32(high[n], weight, upper);
            low[n] = _mm512_dpbusd_epi32(low[n], weight, lower);
        }
    }
    for (int n = 0; n < N; ++n) {
        const vi upper = (vi)high[n] - 128 * in.high_sum[first + n];
        const vi lower = (vi)low[n] - 128 * in.low_sum[first + n];
        out[n] = 128.0f * __builtin_convertvector(upper, vf) + __builtin_convertvector(lower, vf);
    }
}
#elif KERNEL == AVX2
constexpr int kAtOnce = 2;
template <int N>
inline void multiply_rows(const int8_t* w, const Input& in, int first, vf* out) {
    for (int n = 0; n < N; ++n) out[n] = vf{};
    for (int begin = 0; begin < in.stride; begin += 2048) {  // more could overflow the sums
        __m256i sums[N][4];
        for (auto& of_row : sums)
            for (auto& one : of_row) one = _mm256_setzero_si256();
        for (int k = begin; k < std::min(begin + 2048, in.stride); k += 4, w += 64) {
            __builtin_prefetch(w + kAhead);
            __m256i x[N];
            for (int n = 0; n < N; ++n) {
                const int16_t* from = in.whole.data() + size_t(first + n) * in.stride + k;
                x[n] = _mm256_set1_epi64x(load<int64_t>(from));
            }
            for (int j = 0; j < 4; ++j) {
                const __m256i weight = _mm256_cvtepi8_epi16(load<__m128i>(w + 16 * j));
                for (int n = 0; n < N; ++n)
                    sums[n][j] = _mm256_add_epi32(sums[n][j], _mm256_madd_epi16(weight, x[n]));
            }
        }
        for (int n = 0; n < N; ++n) {
            int32_t pairs[32];
            std::memcpy(pairs, sums[n], sizeof pairs);
            for (int o = 0; o < kLanes; ++o)
                out[n][o] += float(int64_t(pairs[2 * o]) + pairs[2 * o + 1]);
        }
    }
}
#else
constexpr int kAtOnce = 2;
template <int N>
inline void multiply_rows(const int8_t* w, const Input& in, int first, vf* out) {
    for (int n = 0; n < N; ++n) {
        const int16_t* x = in.whole.data() + size_t(first + n) * in.stride;
        float total[kLanes] = {};
        for (int begin = 0; begin < in.stride; begin += 512) {
            int32_t sums[kLanes] = {};
            for (int k = begin; k < std::min(begin + 512, in.stride); k += 4)
                for (int o = 0; o < kLanes; ++o)
                    for (int i = 0; i < 4; ++i)
                        sums[o] += int32_t(w[size_t(k) * kLanes + o * 4 + i]) * x[k + i];
            for (int o = 0; o < kLanes; ++o) total[o] += float(sums[o]);
        }
        out[n] = load_floats(total);
    }
}
#endif

void multiply_int8(const int8_t* weight, const float* scale, const Input& in, float* out,
                   int out_stride) {
    for (int part = 0; part < kBlock; part += kLanes) {
        const int8_t* w = weight + size_t(part) * in.stride;
        const vf of_output = load_floats(scale + part);
        for (int first = 0, count; first < in.rows; first += count) {
            const int left = in.rows - first;
            vf sums[kAtOnce];
            if (kAtOnce >= 8 && left >= 8) multiply_rows<kAtOnce>(w, in, first, sums), count = 8;
            else if (kAtOnce >= 4 && left >= 4) multiply_rows<4>(w, in, first, sums), count = 4;
            else if (left >= 2) multiply_rows<2>(w, in, first, sums), count = 2;
            else multiply_rows<1>(w, in, first, sums), count = 1;
            for (int r = 0; r < count; ++r)
                store_floats(out + size_t(first + r) * out_stride + part,
                             sums[r] * (in.unit[first + r] * of_output));
        }
    }
}
#endif

// ---------------------------------------------------------------- bfloat16

// Sums of `count` <= 16 outputs, whose weights begin at w, with N rows.
template <int N>
inline void products(const bf16* w, int count, const Input& in, int first, float* out,
                     int out_stride) {
    vf sums[N][kLanes] = {};
    for (int o = 0; o < count; ++o) {
        const bf16* from = w + size_t(o) * in.d_in;
        vf total[N] = {};
        for (int k = 0; k < in.d_in; k += kLanes) {
            const vf weight = load_halves(from + k);
            for (int n = 0; n < N; ++n) total[n] += weight * load_floats(in.row(first + n) + k);
        }
        for (int n = 0; n < N; ++n) sums[n][o] = total[n];
    }
    for (int n = 0; n < N; ++n)
        store_floats(out + size_t(first + n) * out_stride, sums_of(sums[n]));
}

inline void multiply_floats(const bf16* w, int count, const Input& in, float* out, int out_stride) {
    int first = 0;
    for (; first + 8 <= in.rows; first += 8) products<8>(w, count, in, first, out, out_stride);
    for (; first + 4 <= in.rows; first += 4) products<4>(w, count, in, first, out, out_stride);
    for (; first < in.rows; ++first) products<1>(w, count, in, first, out, out_stride);
}

#if KERNEL == AMX
// Sixteen outputs by the rows of up to four chunks. Tiles 0..3: sums. 4: weights. 5, 6: input.
inline void multiply_tiles(const bf16* w, const Input& in, float* out, int out_stride) {
    const int chunks = (in.rows + kChunk - 1) / kChunk;
    const size_t of_chunk = size_t(in.stride) * 16, row_bytes = size_t(in.d_in) * sizeof(bf16);
    const bf16* x = in.halves.data();
    const char* ahead = reinterpret_cast<const char*>(w) + 16 * row_bytes;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int k = 0; k < in.d_in; k += 32, x += 512, ahead += 1024) {
        for (int line = 0; line < 1024; line += 64) __builtin_prefetch(ahead + line, 0, 2);
        _tile_loadd(4, w + k, row_bytes);
        _tile_loadd(5, x, 64);
        _tile_dpbf16ps(0, 4, 5);
        if (chunks > 1) {
            _tile_loadd(6, x + of_chunk, 64);
            _tile_dpbf16ps(1, 4, 6);
        }
        if (chunks > 2) {
            _tile_loadd(5, x + 2 * of_chunk, 64);
            _tile_dpbf16ps(2, 4, 5);
        }
        if (chunks > 3) {
            _tile_loadd(6, x + 3 * of_chunk, 64);
            _tile_dpbf16ps(3, 4, 6);
        }
    }
    alignas(64) float sums[4][16][16];  // chunk, output, column
    _tile_stored(0, sums[0], 64);
    _tile_stored(1, sums[1], 64);
    _tile_stored(2, sums[2], 64);
    _tile_stored(3, sums[3], 64);
    for (int r = 0; r < in.rows; ++r) {
        const auto& of_chunk_sums = sums[r / kChunk];
        float* to = out + size_t(r) * out_stride;
        for (int o = 0; o < 16; ++o)
            to[o] = of_chunk_sums[o][r % kChunk] + of_chunk_sums[o][kChunk + r % kChunk];
    }
}
#endif

// `count` <= kBlock outputs; those after them are zero.
inline void multiply_bf16(const bf16* w, int count, const Input& in, float* out, int out_stride) {
    for (int part = 0; part < kBlock; part += kLanes, w += size_t(kLanes) * in.d_in) {
        const int here = std::clamp(count - part, 0, kLanes);
#if KERNEL == AMX
        if (here == kLanes && in.d_in % 32 == 0) {
            multiply_tiles(w, in, out + part, out_stride);
            continue;
        }
#endif
        multiply_floats(w, here, in, out + part, out_stride);
    }
}

// ---------------------------------------------------------------- either

// out (R, kBlock) gets the outputs of a block.
inline void multiply(const Linear& linear, int block, const Input& in, float* out, int out_stride) {
    const int part = part_of(linear, block), local = block - linear.first[part];
    if (in.kind == kInt8) {
        const int8_t* weight = static_cast<const int8_t*>(linear.weight[part]);
        multiply_int8(weight + size_t(local) * kBlock * in.stride, linear.scale + block * kBlock,
                      in, out, out_stride);
    } else {
        const bf16* weight = static_cast<const bf16*>(linear.weight[part]);
        multiply_bf16(weight + size_t(local) * kBlock * in.d_in,
                      std::min(linear.sizes[part] - local * kBlock, kBlock), in, out, out_stride);
    }
    if (!linear.bias) return;
    for (int r = 0; r < in.rows; ++r) {
        float* to = out + size_t(r) * out_stride;
        for (int o = 0; o < kBlock; o += kLanes)
            store_floats(to + o, load_floats(to + o) + load_floats(linear.bias + block * kBlock + o));
    }
}

}  // namespace
