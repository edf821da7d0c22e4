// One decode step of a decoder-only transformer on a CPU: few rows, one token each, one call. Rows
// may also be tokens of a prompt that follow each other in one reply's cache.
//
// Activations are float32, keys and values bfloat16, weights int8 or bfloat16 (linear.h).
// What a row gets does not depend on the other rows nor on the number of threads.

#pragma once

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "attention.h"
#include "linear.h"
#include "model.h"
#include "team.h"

namespace {

constexpr int kHeadItem = 16;  // blocks of the head in one item

// Memory of work that the next step uses again.
struct Workspace {
    Input hidden, attended, gated, last;
    std::vector<float> stream, normed;              // (R, H), (H)
    std::vector<float> qkv, projected, gate_up;     // outputs of linear layers
    std::vector<float> low;                         // (R, parts * r) of the linear layer at work
    std::vector<float> cosine, sine;                // (kinds of rope, R, D / 2)
    std::vector<int> rope_of_layer, segment_of_row, row_in_segment, wanted;
};

// One step. The phases of a layer are its four linear layers and, after the first, attention.
class Step final : public Job {
  public:
    Step(const Model& model, const Batch& batch, Workspace& work)
        : model_(model), batch_(batch), work_(work) {
        const int rows = batch.rows;
        work.hidden.resize(rows, model.hidden, model.kind);
        work.attended.resize(rows, model.heads * model.head_dim, model.kind);
        work.gated.resize(rows, model.intermediate, model.kind);
        work.stream.resize(size_t(rows) * model.hidden);
        work.normed.resize(model.hidden);
        work.qkv.resize(size_t(rows) * model.layer[0].qkv.d_out);
        work.projected.resize(size_t(rows) * model.layer[0].o.d_out);
        work.gate_up.resize(size_t(rows) * model.layer[0].gate_up.d_out);
        work.segment_of_row.clear();
        work.row_in_segment.clear();
        work.wanted.clear();
        for (int s = 0; s < batch.segments; ++s) {
            const Segment& one = batch.segment[s];
            has_runs_ = has_runs_ || one.run;
            for (int r = 0; r < one.rows; ++r) {
                if (r >= one.rows - one.logits) work.wanted.push_back(int(work.row_in_segment.size()));
                work.segment_of_row.push_back(s);
                work.row_in_segment.push_back(r);
            }
        }
        work.last.resize(int(work.wanted.size()), model.hidden, model.kind);
    }

    int next() override {
        phase_ = phase_ == Phase::kStart ? Phase::kQkv : after(phase_);
        switch (phase_) {
            case Phase::kQkv:
                if (layer_ == 0) embed(); else add(layer(-1).mlp_out_norm, layer(-1).down.d_out);
                if (layer_ == 0) fill_rope();
                norm_into(layer().attention_norm);
                return ready(layer().qkv, 0, work_.hidden);
            case Phase::kStore:
            case Phase::kAttention:
                return batch_.rows * model_.kv_heads;
            case Phase::kOut:
                return ready(layer().o, 1, work_.attended);
            case Phase::kGateUp:
                add(layer().attention_out_norm, layer().o.d_out);
                norm_into(layer().mlp_norm);
                return ready(layer().gate_up, 2, work_.hidden);
            case Phase::kDown:
                gate();
                return ready(layer().down, 3, work_.gated);
            case Phase::kHead:
                if (work_.wanted.empty()) return 0;
                add(layer(-1).mlp_out_norm, layer(-1).down.d_out);
                for (size_t i = 0; i < work_.wanted.size(); ++i)
                    rms_norm(work_.stream.data() + size_t(work_.wanted[i]) * model_.hidden,
                             model_.final_norm, work_.last.row(int(i)), model_.hidden);
                work_.last.prepare();
                return (model_.head.d_out / kBlock + kHeadItem - 1) / kHeadItem;
            default:
                return 0;
        }
    }

    void item(int index) override {
        switch (phase_) {
            case Phase::kQkv: return linear(layer().qkv, 0, index, work_.hidden, work_.qkv);
            case Phase::kStore: return store(index);
            case Phase::kAttention:
                if (!has_runs_) store(index);
                return attention(index);
            case Phase::kOut: return linear(layer().o, 1, index, work_.attended, work_.projected);
            case Phase::kGateUp:
                return linear(layer().gate_up, 2, index, work_.hidden, work_.gate_up);
            case Phase::kDown: return linear(layer().down, 3, index, work_.gated, work_.projected);
            case Phase::kHead: return head(index);
            default: return;
        }
    }

  private:
    enum class Phase { kStart, kQkv, kStore, kAttention, kOut, kGateUp, kDown, kHead, kEnd };

    Phase after(Phase phase) {
        if (phase == Phase::kDown) return ++layer_ < model_.layers ? Phase::kQkv : Phase::kHead;
        // What a row sees of a run must be there before it attends.
        if (phase == Phase::kQkv && !has_runs_) return Phase::kAttention;
        return Phase(int(phase) + 1);
    }
    const Layer& layer(int offset = 0) const { return model_.layer[layer_ + offset]; }

    // ------------------------------------------------ by one thread, between phases

    void embed() {
        for (int r = 0; r < batch_.rows; ++r) {
            const bf16* from = model_.embedding + size_t(batch_.token_ids[r]) * model_.hidden;
            float* to = work_.stream.data() + size_t(r) * model_.hidden;
            for (int k = 0; k < model_.hidden; k += kLanes)
                store_floats(to + k, load_halves(from + k) * model_.embedding_scale);
        }
    }

    const Segment& segment(int row) const { return batch_.segment[work_.segment_of_row[row]]; }
    int place(int row) const {  // in the cache
        const Segment& in = segment(row);
        return int(in.length) + (in.run ? work_.row_in_segment[row] : 0);
    }
    int position(int row) const {
        return place(row) - (batch_.pads ? int(batch_.pads[row]) : 0);
    }
    // Where a row and head of keys or values begins in its cache.
    size_t start(int row, int kv) const {
        const Segment& in = segment(row);
        const int of_cache = in.run ? 0 : work_.row_in_segment[row];
        const size_t heads = size_t(of_cache) * model_.kv_heads + kv;
        return heads * size_t(in.capacity[layer_]) * model_.head_dim;
    }

    void fill_rope() {
        const int half = model_.head_dim / 2;
        work_.rope_of_layer.clear();
        std::vector<int> kinds;  // one layer of each
        for (int l = 0; l < model_.layers; ++l) {
            size_t kind = 0;
            const Layer& one = model_.layer[l];
            for (; kind < kinds.size(); ++kind) {
                const Layer& known = model_.layer[kinds[kind]];
                if (known.inverse_frequencies == one.inverse_frequencies &&
                    known.rope_scale == one.rope_scale)
                    break;
            }
            if (kind == kinds.size()) kinds.push_back(l);
            work_.rope_of_layer.push_back(int(kind));
        }
        work_.cosine.resize(kinds.size() * batch_.rows * half);
        work_.sine.resize(work_.cosine.size());
        size_t at = 0;
        for (int l : kinds)
            for (int r = 0; r < batch_.rows; ++r)
                for (int i = 0; i < half; ++i, ++at) {
                    if (r > 0 && position(r) == position(r - 1)) {
                        work_.cosine[at] = work_.cosine[at - half];
                        work_.sine[at] = work_.sine[at - half];
                        continue;
                    }
                    const float angle = float(position(r)) * model_.layer[l].inverse_frequencies[i];
                    work_.cosine[at] = std::cos(angle) * model_.layer[l].rope_scale;
                    work_.sine[at] = std::sin(angle) * model_.layer[l].rope_scale;
                }
    }

    void rms_norm(const float* x, const float* weight, float* to, int size) const {
        vf squares{};
        for (int k = 0; k < size; k += kLanes) squares += load_floats(x + k) * load_floats(x + k);
        const float factor = 1.0f / std::sqrt(sum(squares) / float(size) + model_.epsilon);
        for (int k = 0; k < size; k += kLanes)
            store_floats(to + k, load_floats(x + k) * factor * load_floats(weight + k));
    }

    void norm_into(const float* weight) {
        for (int r = 0; r < batch_.rows; ++r)
            rms_norm(work_.stream.data() + size_t(r) * model_.hidden, weight, work_.hidden.row(r),
                     model_.hidden);
    }

    // stream += norm(projected)
    void add(const float* norm, int stride) {
        for (int r = 0; r < batch_.rows; ++r) {
            const float* from = work_.projected.data() + size_t(r) * stride;
            float* to = work_.stream.data() + size_t(r) * model_.hidden;
            if (norm) {
                rms_norm(from, norm, work_.normed.data(), model_.hidden);
                from = work_.normed.data();
            }
            for (int k = 0; k < model_.hidden; k += kLanes)
                store_floats(to + k, load_floats(to + k) + load_floats(from + k));
        }
    }

    void gate() {
        const Linear& linear = layer().gate_up;
        const int up = linear.first[1] * kBlock;
        for (int r = 0; r < batch_.rows; ++r) {
            const float* from = work_.gate_up.data() + size_t(r) * linear.d_out;
            float* to = work_.gated.row(r);
            for (int k = 0; k < model_.intermediate; k += kLanes)
                store_floats(to + k, activate(load_floats(from + k), model_.activation) *
                                         load_floats(from + up + k));
        }
    }

    // The number of items of a linear layer whose input is there.
    int ready(const Linear& linear, int place, Input& in) {
        in.prepare();
        if (batch_.adapter_of_row) lora_down(linear, place, in);
        return linear.d_out / kBlock;
    }

    const Update& update(int adapter, int place) const {
        return batch_.updates[adapter][layer_ * 4 + place];
    }

    // low = down x
    void lora_down(const Linear& linear, int place, const Input& in) {
        low_width_ = 0;
        for (int a = 0; a < batch_.adapters; ++a)
            low_width_ = std::max(low_width_, linear.parts * update(a, place).rank);
        work_.low.resize(size_t(batch_.rows) * low_width_);
        for (int a = 0; a < batch_.adapters; ++a) {
            const Update& one = update(a, place);
            int rows[kMaxRows], count = 0;
            for (int r = 0; r < batch_.rows; ++r)
                if (batch_.adapter_of_row[r] == a) rows[count++] = r;
            for (int i = 0; i < linear.parts * one.rank; ++i) {
                const bf16* weight = one.down + size_t(i) * in.d_in;
                int done = 0;
                for (; done + 4 <= count; done += 4) dots<4>(weight, in, rows + done, i);
                for (; done < count; ++done) dots<1>(weight, in, rows + done, i);
            }
        }
    }
    template <int N>
    void dots(const bf16* weight, const Input& in, const int* rows, int to) {
        vf sums[N] = {};
        for (int k = 0; k < in.d_in; k += kLanes) {
            const vf v = load_halves(weight + k);
            for (int n = 0; n < N; ++n) sums[n] += v * load_floats(in.row(rows[n]) + k);
        }
        for (int n = 0; n < N; ++n) work_.low[size_t(rows[n]) * low_width_ + to] = sum(sums[n]);
    }

    // ------------------------------------------------ items, by any thread

    void linear(const Linear& linear, int place, int block, const Input& in,
                std::vector<float>& out) const {
        float* to = out.data() + block * kBlock;
        multiply(linear, block, in, to, linear.d_out);
        if (batch_.adapter_of_row) lora_up(linear, place, block, to);
    }

    // out (R, kBlock) += up low
    void lora_up(const Linear& linear, int place, int block, float* out) const {
        thread_local std::vector<float> wide;
        for (int a = 0; a < batch_.adapters; ++a) {
            const Update& one = update(a, place);
            const bf16* up = one.up + size_t(block) * one.rank * kBlock;
            wide.resize(size_t(one.rank) * kBlock);
            for (int k = 0; k < one.rank * kBlock; k += kLanes)
                store_floats(wide.data() + k, load_halves(up + k));
            for (int r = 0; r < batch_.rows; ++r) {
                if (batch_.adapter_of_row[r] != a) continue;
                const float* low = work_.low.data() + size_t(r) * low_width_ +
                                   part_of(linear, block) * one.rank;
                float* to = out + size_t(r) * linear.d_out;
                vf sums[4];
                for (int j = 0; j < 4; ++j) sums[j] = load_floats(to + j * kLanes);
                for (int i = 0; i < one.rank; ++i)
                    for (int j = 0; j < 4; ++j)
                        sums[j] += low[i] * load_floats(wide.data() + i * kBlock + j * kLanes);
                for (int j = 0; j < 4; ++j) store_floats(to + j * kLanes, sums[j]);
            }
        }
    }

    void head(int index) const {
        const int last = std::min((index + 1) * kHeadItem, model_.head.d_out / kBlock);
        alignas(64) float out[kMaxRows * kBlock];
        for (int block = index * kHeadItem; block < last; ++block) {
            multiply(model_.head, block, work_.last, out, kBlock);
            if (model_.final_softcap > 0.0f)
                for (int i = 0; i < work_.last.rows * kBlock; i += kLanes)
                    store_floats(out + i, softcapped(load_floats(out + i), model_.final_softcap));
            const int count = std::min(kBlock, model_.vocabulary - block * kBlock);
            for (int r = 0; r < work_.last.rows; ++r)
                std::memcpy(batch_.logits + size_t(r) * model_.vocabulary + block * kBlock,
                            out + r * kBlock, size_t(count) * sizeof(float));
        }
    }

    void rotate(float* head, const float* cosine, const float* sine) const {
        const int half = model_.head_dim / 2;
        for (int i = 0; i < half; i += kLanes) {
            const vf a = load_floats(head + i), b = load_floats(head + i + half);
            const vf c = load_floats(cosine + i), s = load_floats(sine + i);
            store_floats(head + i, a * c - b * s);
            store_floats(head + i + half, b * c + a * s);
        }
    }

    // One row and one head of keys: its queries are normed and rotated, the new key and value stored.
    void store(int index) {
        const Layer& of = layer();
        const int row = index / model_.kv_heads, kv = index % model_.kv_heads;
        const int dim = model_.head_dim, group = model_.heads / model_.kv_heads;
        const size_t rope = (size_t(work_.rope_of_layer[layer_]) * batch_.rows + row) * (dim / 2);
        const float *cosine = work_.cosine.data() + rope, *sine = work_.sine.data() + rope;
        float* out = work_.qkv.data() + size_t(row) * of.qkv.d_out;
        float* q = out + size_t(kv) * group * dim;
        float* k = out + of.qkv.first[1] * kBlock + size_t(kv) * dim;
        const float* v = out + of.qkv.first[2] * kBlock + size_t(kv) * dim;
        for (int h = 0; h < group; ++h) {
            if (of.q_norm) rms_norm(q + h * dim, of.q_norm, q + h * dim, dim);
            rotate(q + h * dim, cosine, sine);
        }
        if (of.k_norm) rms_norm(k, of.k_norm, k, dim);
        rotate(k, cosine, sine);
        const size_t at = start(row, kv) + size_t(place(row)) * dim;
        bf16 *key = segment(row).keys[layer_] + at, *value = segment(row).values[layer_] + at;
        for (int d = 0; d < dim; d += kLanes) {
            store_halves(key + d, load_floats(k + d));
            store_halves(value + d, load_floats(v + d));
        }
    }

    // The queries of a row and head of keys attend.
    void attention(int index) {
        thread_local std::vector<float> scores;
        const Layer& of = layer();
        const int row = index / model_.kv_heads, kv = index % model_.kv_heads;
        const int dim = model_.head_dim, group = model_.heads / model_.kv_heads;
        const float* q =
            work_.qkv.data() + size_t(row) * of.qkv.d_out + size_t(kv) * group * dim;
        const int end = place(row) + 1, pad = end - 1 - position(row);
        const int begin = std::max(pad, of.window > 0 ? end - of.window : 0), count = end - begin;
        scores.resize(size_t(4) * (count + kLanes));
        float* to = work_.attended.row(row) + size_t(kv) * group * dim;
        const size_t at = start(row, kv) + size_t(begin) * dim;
        const bf16 *ks = segment(row).keys[layer_] + at, *vs = segment(row).values[layer_] + at;
        const Attention how{dim, model_.attention_scale, model_.attention_softcap};
        int h = 0;
        for (; h + 4 <= group; h += 4)
            attend<4>(how, q + h * dim, ks, vs, count, scores, to + h * dim);
        for (; h + 2 <= group; h += 2)
            attend<2>(how, q + h * dim, ks, vs, count, scores, to + h * dim);
        for (; h < group; ++h) attend<1>(how, q + h * dim, ks, vs, count, scores, to + h * dim);
    }

    const Model& model_;
    const Batch& batch_;
    Workspace& work_;
    Phase phase_ = Phase::kStart;
    int layer_ = 0, low_width_ = 0;
    bool has_runs_ = false;
};

}  // namespace
