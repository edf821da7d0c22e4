// Vectors of sixteen floats, and elementwise functions of them.
//
// Written with the vector extensions of GCC and clang; a processor with shorter registers uses
// several for one.

#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

using bf16 = uint16_t;
constexpr int kLanes = 16;
typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef uint32_t vu __attribute__((vector_size(64)));
typedef uint16_t vh __attribute__((vector_size(32)));
typedef int16_t vs __attribute__((vector_size(32)));
typedef int8_t vb __attribute__((vector_size(16)));

template <class T>
inline T load(const void* from) {
    T to;
    std::memcpy(&to, from, sizeof to);
    return to;
}
inline vf splat(float value) { return vf{} + value; }
inline vf load_floats(const float* from) { return load<vf>(from); }
inline void store_floats(float* to, vf value) { std::memcpy(to, &value, sizeof value); }
inline vf choose(vi mask, vf yes, vf no) { return (vf)((mask & (vi)yes) | (~mask & (vi)no)); }

inline vf widen(vh half) { return (vf)(__builtin_convertvector(half, vu) << 16); }
inline float widen(bf16 half) {
    const uint32_t bits = uint32_t(half) << 16;
    return load<float>(&bits);
}
inline vf load_halves(const bf16* from) { return widen(load<vh>(from)); }

// To nearest, ties to even; values that are no numbers stay so.
inline vh narrow(vf value) {
    const vu bits = (vu)value;
    const vu rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const vi is_nan = value != value;
    return __builtin_convertvector(((vu)is_nan & 0x7fc0) | (~(vu)is_nan & rounded), vh);
}
inline void store_halves(bf16* to, vf value) {
    const vh half = narrow(value);
    std::memcpy(to, &half, sizeof half);
}

inline float sum(vf v) {
    v += __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
    v += __builtin_shufflevector(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
    v += __builtin_shufflevector(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
    return v[0] + v[1];
}

// Lane i is the sum of v[i], i < 16; changes v.
inline vf sums_of(vf* v) {
    for (int i = 0; i < 8; ++i) {
        const vf a = v[2 * i], b = v[2 * i + 1];
        v[i] = __builtin_shufflevector(a, b, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30) +
               __builtin_shufflevector(a, b, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
    }
    for (int i = 0; i < 4; ++i) {
        const vf a = v[2 * i], b = v[2 * i + 1];
        v[i] = __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
               __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    }
    for (int i = 0; i < 2; ++i) {
        const vf a = v[2 * i], b = v[2 * i + 1];
        v[i] = __builtin_shufflevector(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27) +
               __builtin_shufflevector(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
    }
    const vf a = v[0], b = v[1];
    return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
           __builtin_shufflevector(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
}

// Cephes' expf; relative error below 2e-7. Arguments outside are cut to [-87, 88]; what is no
// number stays so.
inline vf exp_of(vf x) {
    x = choose(x < -87.0f, splat(-87.0f), x);
    x = choose(x > 88.0f, splat(88.0f), x);
    const vf shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: rounds to an integer
    const vf n = shifted - 12582912.0f;
    const vf r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    vf p = splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    return p * (vf)(((vi)shifted - 0x4b400000 + 127) << 23);
}
inline vf sigmoid(vf x) { return 1.0f / (1.0f + exp_of(-x)); }

// cap * tanh(x / cap)
inline vf softcapped(vf x, float cap) { return cap * (2.0f * sigmoid(x * (2.0f / cap)) - 1.0f); }

enum Activation { kGeluTanh = 0, kSilu = 1 };
// gelu's tanh form is x sigmoid(u) with u = 2 sqrt(2 / pi) (x + 0.044715 x^3).
inline vf activate(vf x, int kind) {
    const vf u = kind == kSilu ? x : 1.5957691216f * (x + 0.044715f * x * x * x);
    return x * sigmoid(u);
}

}  // namespace
