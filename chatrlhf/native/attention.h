// Attention of few queries, one position each, over keys and values of bfloat16.
//
// Notation: D size of a head; count positions that are seen.

#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "vectors.h"

namespace {

struct Attention {
    int head_dim;
    float scale, softcap;  // 0: no cap
};

inline void fetch(const bf16* from, int count) {
    for (int i = 0; i < count; i += 32) __builtin_prefetch(from + i);
}

template <int N>
void score(const Attention& of, const float* q, const bf16* keys, int count, float* scores) {
    constexpr int kKeys = kLanes / N;
    const int dim = of.head_dim, width = count + kLanes;
    for (int t = 0; t < count; t += kKeys) {
        const bf16* k[kKeys];
        for (int i = 0; i < kKeys; ++i) {
            k[i] = keys + size_t(std::min(t + i, count - 1)) * dim;
            fetch(k[i] + 32 * dim, dim);
        }
        vf sums[kLanes] = {};
        for (int d = 0; d < dim; d += kLanes) {
            vf x[N];
            for (int n = 0; n < N; ++n) x[n] = load_floats(q + n * dim + d);
            for (int i = 0; i < kKeys; ++i) {
                const vf wide = load_halves(k[i] + d);
                for (int n = 0; n < N; ++n) sums[n * kKeys + i] += x[n] * wide;
            }
        }
        vf all = sums_of(sums) * of.scale;
        if (of.softcap > 0.0f) all = softcapped(all, of.softcap);
        float each[kLanes];
        store_floats(each, all);
        for (int n = 0; n < N; ++n)
            std::memcpy(scores + size_t(n) * width + t, each + n * kKeys, kKeys * sizeof(float));
    }
}

// Scores become exponentials; returns 1 / their sum.
inline float softmax(float* scores, int count) {
    for (int t = count; t < count + kLanes; ++t) scores[t] = -1e30f;
    vf peaks = load_floats(scores), total{};
    for (int t = kLanes; t < count; t += kLanes)
        peaks = choose(load_floats(scores + t) > peaks, load_floats(scores + t), peaks);
    float peak = peaks[0];
    for (int i = 1; i < kLanes; ++i) peak = std::max(peak, peaks[i]);
    for (int t = 0; t < count; t += kLanes) {
        const vf weight = exp_of(load_floats(scores + t) - peak);
        total += weight;
        store_floats(scores + t, weight);
    }
    return 1.0f / sum(total);
}

template <int N>
void mix(const Attention& of, const bf16* values, int count, const float* weights,
         const float* inverse, float* out) {
    constexpr int kTile = 32;
    const int dim = of.head_dim, width = count + kLanes;
    std::fill(out, out + N * dim, 0.0f);
    for (int first = 0; first < count; first += kTile) {
        const int last = std::min(first + kTile, count);
        fetch(values + size_t(last) * dim, std::min(kTile, count - last) * dim);
        for (int d = 0; d < dim; d += 4 * kLanes) {
            vf sums[N][4];
            for (int n = 0; n < N; ++n)
                for (int j = 0; j < 4; ++j) sums[n][j] = load_floats(out + n * dim + d + j * kLanes);
            for (int t = first; t < last; ++t) {
                const bf16* v = values + size_t(t) * dim + d;
                vf wide[4];
                for (int j = 0; j < 4; ++j) wide[j] = load_halves(v + j * kLanes);
                for (int n = 0; n < N; ++n) {
                    const float weight = weights[size_t(n) * width + t];
                    for (int j = 0; j < 4; ++j) sums[n][j] += weight * wide[j];
                }
            }
            for (int n = 0; n < N; ++n)
                for (int j = 0; j < 4; ++j) store_floats(out + n * dim + d + j * kLanes, sums[n][j]);
        }
    }
    for (int n = 0; n < N; ++n)
        for (int d = 0; d < dim; d += kLanes)
            store_floats(out + n * dim + d, load_floats(out + n * dim + d) * inverse[n]);
}

// N heads share one reading of keys and values (count, D). scores: (N, count + kLanes).
template <int N>
void attend(const Attention& of, const float* q, const bf16* keys, const bf16* values, int count,
            std::vector<float>& scores, float* out) {
    score<N>(of, q, keys, count, scores.data());
    float inverse[N];
    const int width = count + kLanes;
    for (int n = 0; n < N; ++n) inverse[n] = softmax(scores.data() + size_t(n) * width, count);
    mix<N>(of, values, count, scores.data(), inverse, out);
}

}  // namespace
