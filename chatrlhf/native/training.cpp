// Elementwise parts of a training step on a CPU, each in one pass over memory.
//
// Values are bfloat16 outside and float32 inside. Every function works on one thread, on rows that
// do not depend on each other; the caller owns all memory.
//
// Written in vectors by hand, as compilers turn the same loops into code that is five to ten times
// slower.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "vectors.h"

namespace {

inline float largest_of(vf v) {
    float found = v[0];
    for (int i = 1; i < kLanes; ++i) found = v[i] > found ? v[i] : found;
    return found;
}

// `count` values, at most sixteen; what is missing is `filling`.
inline vf load(const bf16* from, int64_t count, float filling = 0.0f) {
    vh half{};
    if (count >= kLanes) {
        std::memcpy(&half, from, sizeof half);
        return widen(half);
    }
    for (int i = 0; i < count; ++i) half[i] = from[i];
    vf value = widen(half);
    for (int i = int(count); i < kLanes; ++i) value[i] = filling;
    return value;
}
inline vf load(const float* from, int64_t count) {
    if (count >= kLanes) return load_floats(from);
    vf value{};
    std::memcpy(&value, from, sizeof(float) * size_t(count));
    return value;
}
inline void store(bf16* to, vf value, int64_t count) {
    const vh half = narrow(value);
    if (count >= kLanes)
        std::memcpy(to, &half, sizeof half);
    else
        for (int i = 0; i < count; ++i) to[i] = half[i];
}

// exp, and 0 below -87, where exp_of cuts.
inline vf exp_or_zero(vf x) { return choose(x < -87.0f, splat(0.0f), exp_of(x)); }

// Value and slope of the activation of a gated MLP.
struct Activated {
    vf value, slope;
};

// gelu's tanh form is x sigmoid(u) with u = 2 sqrt(2 / pi) (x + 0.044715 x^3).
template <bool silu>
inline Activated activate_with_slope(vf x) {
    const vf u = silu ? x : 1.5957691216f * (x + 0.044715f * x * x * x);
    const vf of_x = silu ? splat(1.0f) : 1.5957691216f * (1.0f + 0.134145f * x * x);
    const vf s = sigmoid(u);
    return {x * s, s + x * s * (1.0f - s) * of_x};
}

template <bool silu>
void gate(const bf16* x, const bf16* up, int64_t count, bf16* out) {
    for (int64_t i = 0; i < count; i += kLanes) {
        const int64_t left = count - i;
        store(out + i, activate_with_slope<silu>(load(x + i, left)).value * load(up + i, left), left);
    }
}

template <bool silu>
void gate_backward(const bf16* grad, const bf16* x, const bf16* up, int64_t count, bf16* of_x,
                   bf16* of_up) {
    for (int64_t i = 0; i < count; i += kLanes) {
        const int64_t left = count - i;
        const Activated a = activate_with_slope<silu>(load(x + i, left));
        const vf g = load(grad + i, left);
        const vf of_gate = g * load(up + i, left) * a.slope;
        store(of_up + i, g * a.value, left);
        store(of_x + i, of_gate, left);
    }
}

}  // namespace

extern "C" {

// Adds a block of logits to running statistics of the softmax of each row.
//
// raw (rows, columns); largest, total, weighted (rows): the greatest logit so far, and the sums of
// exp(logit - largest) and of that times (logit - largest). kept (rows, columns) or null gets
// exp(logit - largest), with the largest up to and with this block.
void add_block(const bf16* raw, int64_t rows, int64_t columns, float inverse_temperature,
               float* largest, float* total, float* weighted, bf16* kept) {
    const float least = -std::numeric_limits<float>::infinity();
    for (int64_t r = 0; r < rows; ++r) {
        const bf16* x = raw + r * columns;
        vf peaks = splat(least);
        for (int64_t c = 0; c < columns; c += kLanes) {
            const vf value = load(x + c, columns - c, least);
            peaks = choose(value > peaks, value, peaks);
        }
        const float before = largest[r];
        const float now = std::max(before, largest_of(peaks) * inverse_temperature);
        vf sums{}, moments{};
        for (int64_t c = 0; c < columns; c += kLanes) {
            const int64_t left = columns - c;
            const vf shifted = load(x + c, left) * inverse_temperature - now;
            vf e = exp_or_zero(shifted);
            if (kept) store(kept + r * columns + c, e, left);
            if (left < kLanes)
                for (int i = int(left); i < kLanes; ++i) e[i] = 0.0f;
            sums += e;
            moments += e * shifted;
        }
        const float shrink = std::exp(before - now);
        // In the first block there is nothing to move, and -inf times 0 would be no number.
        const float moved = total[r] > 0.0f ? total[r] * (before - now) : 0.0f;
        weighted[r] = shrink * (weighted[r] + moved) + sum(moments);
        total[r] = shrink * total[r] + sum(sums);
        largest[r] = now;
    }
}

// y = gain x / rms(x) of rows of `size` values; inverse (rows) gets 1 / rms(x). All contiguous.
void rms_norm(const bf16* x, int64_t rows, int64_t size, const float* gain, float epsilon, bf16* y,
              float* inverse) {
    for (int64_t r = 0; r < rows; ++r, x += size, y += size) {
        vf squares{};
        for (int64_t c = 0; c < size; c += kLanes) {
            const vf value = load(x + c, size - c);
            squares += value * value;
        }
        const float scale = 1.0f / std::sqrt(sum(squares) / float(size) + epsilon);
        inverse[r] = scale;
        for (int64_t c = 0; c < size; c += kLanes) {
            const int64_t left = size - c;
            store(y + c, load(x + c, left) * scale * load(gain + c, left), left);
        }
    }
}

// dx = (g dy - n mean(g dy n)) / rms with n = x / rms; all contiguous.
void rms_norm_backward(const bf16* grad, const bf16* x, int64_t rows, int64_t size,
                       const float* gain, const float* inverse, bf16* out) {
    for (int64_t r = 0; r < rows; ++r, grad += size, x += size, out += size) {
        const float scale = inverse[r];
        vf along{};
        for (int64_t c = 0; c < size; c += kLanes) {
            const int64_t left = size - c;
            along += load(grad + c, left) * load(gain + c, left) * load(x + c, left);
        }
        const float mean = sum(along) * scale * scale / float(size);
        for (int64_t c = 0; c < size; c += kLanes) {
            const int64_t left = size - c;
            const vf of_normed = load(grad + c, left) * load(gain + c, left);
            store(out + c, (of_normed - load(x + c, left) * mean) * scale, left);
        }
    }
}

// Rotary position embedding of x (rows, heads, length, size), in memory order whatever its strides.
//
// With halves a, b of a row of x and the halves of cos and sin (rows, length, size) of its position:
//     y = (a cos_a - b sin_a, b cos_b + a sin_b)
// or, backward, the transpose: (a cos_a + b sin_b, b cos_b - a sin_a). Strides are (row, head,
// position) of x and y, and (row, position) of cos and sin; size is even.
void rotate(const bf16* x, const int64_t* sizes, const int64_t* of_x, const bf16* cos,
            const bf16* sin, const int64_t* of_angles, int32_t backward, const int64_t* of_y,
            bf16* y) {
    const int64_t half = sizes[3] / 2;
    for (int64_t r = 0; r < sizes[0]; ++r)
        for (int64_t h = 0; h < sizes[1]; ++h)
            for (int64_t t = 0; t < sizes[2]; ++t) {
                const bf16* from = x + r * of_x[0] + h * of_x[1] + t * of_x[2];
                bf16* to = y + r * of_y[0] + h * of_y[1] + t * of_y[2];
                const int64_t angle = r * of_angles[0] + t * of_angles[1];
                for (int64_t c = 0; c < half; c += kLanes) {
                    const int64_t left = half - c;
                    const vf a = load(from + c, left), b = load(from + half + c, left);
                    const vf sin_a = load(sin + angle + c, left);
                    const vf sin_b = load(sin + angle + half + c, left);
                    const vf of_a = a * load(cos + angle + c, left);
                    const vf of_b = b * load(cos + angle + half + c, left);
                    store(to + c, backward ? of_a + b * sin_b : of_a - b * sin_a, left);
                    store(to + half + c, backward ? of_b - a * sin_a : of_b + a * sin_b, left);
                }
            }
}

// out = activation(x) * up, all (count); silu, else the tanh form of gelu.
void gated(const bf16* x, const bf16* up, int64_t count, int32_t silu, bf16* out) {
    silu ? gate<true>(x, up, count, out) : gate<false>(x, up, count, out);
}

void gated_backward(const bf16* grad, const bf16* x, const bf16* up, int64_t count, int32_t silu,
                    bf16* of_x, bf16* of_up) {
    silu ? gate_backward<true>(grad, x, up, count, of_x, of_up)
         : gate_backward<false>(grad, x, up, count, of_x, of_up);
}

}  // extern "C"
