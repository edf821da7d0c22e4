// Drawing tokens from logits: the rules of engine/sampling.py, one pass or two over a row.
//
// Notation: V vocabulary, x a logit over the temperature, w = exp(x - max x) its weight.
//
// Nothing but sums of blocks is kept of a row: what a draw needs of it is computed again.

#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "team.h"

extern "C" {

// One row: what is asked, and the answer.
struct Draw {
    const float* logits;         // (V)
    double uniform;              // in [0, 1)
    float temperature, top_p;    // 0: the most probable token; 1: all
    int32_t top_k;               // 0: all
    int32_t token;               // answer; -1 where logits are not numbers
    float logprob;               // answer: of the whole distribution, at temperature 1 if that is 0
};

}  // extern "C"

namespace {

constexpr int kBlockLogits = 512;
constexpr float kLeast = -87.0f;  // weights of less are nothing
constexpr double kAll = std::numeric_limits<double>::infinity();
constexpr int kDepths = 3;
constexpr float kDepth[kDepths] = {4.0f, 8.0f, 12.0f};  // where candidates of top-p are looked for

struct Candidate {
    float weight;
    int32_t id;
    // The more probable first, of equals that with the lower id.
    bool operator<(const Candidate& other) const {
        return weight > other.weight || (weight == other.weight && id < other.id);
    }
};

class Drawer {
  public:
    void draw(Draw& row, int vocabulary) {
        logits_ = row.logits, vocabulary_ = vocabulary;
        temperature_ = row.temperature > 0.0f ? row.temperature : 1.0f;
        row.token = -1;
        row.logprob = std::numeric_limits<float>::quiet_NaN();
        if (!find_peaks()) return;
        const bool is_nucleus = row.top_p < 1.0f;
        add_up();
        if (!std::isfinite(total_)) return;
        if (row.temperature <= 0.0f) {
            row.token = most_probable();
        } else if (row.top_k > 0 && row.top_k < vocabulary) {
            collect_best(row.top_k);
            row.token = from_candidates(
                is_nucleus ? row.top_p * mass_of(candidates_) : kAll, row.uniform);
        } else if (is_nucleus) {
            collect_mass(row.top_p * total_);
            row.token = from_candidates(row.top_p * total_, row.uniform);
        } else {
            row.token = from_blocks(row.uniform);
        }
        const double chosen = double(logits_[row.token]) / temperature_ - peak_;
        row.logprob = float(chosen - std::log(total_));
    }

  private:
    int blocks() const { return (vocabulary_ + kBlockLogits - 1) / kBlockLogits; }

    // Sixteen logits over the temperature; those after the last are minus infinity.
    vf scaled(int at) const {
        vf x;
        if (at + kLanes <= vocabulary_) {
            x = load_floats(logits_ + at);
        } else {
            x = splat(-std::numeric_limits<float>::infinity());
            std::memcpy(&x, logits_ + at, size_t(vocabulary_ - at) * sizeof(float));
        }
        return temperature_ == 1.0f ? x : x / temperature_;
    }
    static vf weights(vf below) { return choose(below > kLeast, exp_of(below), vf{}); }

    template <class Use>
    void each(int block, Use use) const {
        const int last = std::min((block + 1) * kBlockLogits, vocabulary_);
        for (int at = block * kBlockLogits; at < last; at += kLanes) use(at, scaled(at));
    }

    // The greatest of every block and of all; false where one is no number or infinite.
    bool find_peaks() {
        peaks_.resize(blocks());
        vi bad{};
        peak_ = -std::numeric_limits<float>::infinity();
        for (int block = 0; block < blocks(); ++block) {
            vf most = splat(-std::numeric_limits<float>::infinity());
            each(block, [&](int, vf x) {
                most = choose(x > most, x, most);
                bad |= x != x;
            });
            float peak = most[0];
            for (int i = 1; i < kLanes; ++i) peak = std::max(peak, most[i]);
            peaks_[block] = peak;
            peak_ = std::max(peak_, peak);
        }
        return !any(bad) && std::isfinite(peak_);
    }

    // Sums of blocks, of all, and of the tokens that are near enough to the most probable one.
    void add_up() {
        sums_.resize(blocks());
        total_ = 0.0;
        for (double& mass : near_) mass = 0.0;
        for (int block = 0; block < blocks(); ++block) {
            vf sum_of{}, near[kDepths] = {};
            each(block, [&](int, vf x) {
                const vf below = x - peak_, w = weights(below);
                sum_of += w;
                for (int i = 0; i < kDepths; ++i)
                    near[i] += choose(below >= -kDepth[i], w, vf{});
            });
            sums_[block] = double(sum(sum_of));
            total_ += sums_[block];
            for (int i = 0; i < kDepths; ++i) near_[i] += double(sum(near[i]));
        }
    }

    int most_probable() const {
        int found = -1;
        for (int block = 0; found < 0; ++block) {
            if (peaks_[block] != peak_) continue;
            each(block, [&](int at, vf x) {
                for (int i = 0; i < kLanes && found < 0; ++i)
                    if (x[i] == peak_) found = at + i;
            });
        }
        return found;
    }

    // Tokens whose scaled logit is at least `least`, in the order of the vocabulary.
    void collect(float least) {
        candidates_.clear();
        for (int block = 0; block < blocks(); ++block) {
            if (!(peaks_[block] >= least)) continue;
            each(block, [&](int at, vf x) {
                const vi is_in = x >= least;
                if (!any(is_in)) return;
                const vf w = weights(x - peak_);
                for (int i = 0; i < kLanes; ++i)
                    if (is_in[i] && at + i < vocabulary_) candidates_.push_back({w[i], at + i});
            });
        }
    }
    static bool any(vi mask) {
        int32_t bits = 0;
        for (int i = 0; i < kLanes; ++i) bits |= mask[i];
        return bits != 0;
    }

    // The k most probable, and those tied with the last of them.
    void collect_best(int k) {
        float least = -std::numeric_limits<float>::infinity();
        if (k < blocks()) {  // so many values at least are not below the k-th greatest peak
            order_.assign(peaks_.begin(), peaks_.end());
            std::nth_element(order_.begin(), order_.begin() + (k - 1), order_.end(), greater);
            least = order_[k - 1];
        }
        collect(least);
        order_.clear();
        for (const Candidate& one : candidates_) order_.push_back(logits_[one.id]);
        std::nth_element(order_.begin(), order_.begin() + (k - 1), order_.end(), greater);
        const float kth = order_[k - 1];
        std::erase_if(candidates_, [&](const Candidate& one) { return logits_[one.id] < kth; });
    }
    static bool greater(float a, float b) { return a > b; }

    // Few tokens that have this mass.
    void collect_mass(double wanted) {
        for (int i = 0; i < kDepths; ++i)
            if (near_[i] >= wanted) return collect(peak_ - kDepth[i]);
        collect(peak_ + kLeast);
    }

    static double mass_of(const std::vector<Candidate>& some) {
        double mass = 0.0;
        for (const Candidate& one : some) mass += one.weight;
        return mass;
    }

    // A token of the shortest run of candidates, the most probable first, with the mass `wanted`.
    int from_candidates(double wanted, double uniform) {
        const Candidate last = last_within(wanted);
        double kept = 0.0;
        for (const Candidate& one : candidates_)
            if (!(last < one)) kept += one.weight;
        const double target = below(kept * uniform, kept);
        double mass = 0.0;
        int found = candidates_.front().id;
        for (const Candidate& one : candidates_) {
            if (last < one) continue;
            found = one.id;
            mass += one.weight;
            if (mass > target) break;
        }
        return found;
    }

    // The last candidate that has less than `wanted` before it.
    Candidate last_within(double wanted) {
        sorted_.assign(candidates_.begin(), candidates_.end());
        auto begin = sorted_.begin(), end = sorted_.end();
        Candidate last = *begin;
        bool is_any = false;
        double before = 0.0;
        while (begin != end && before < wanted) {
            const Candidate pivot = begin[(end - begin) / 2];
            const auto middle =
                std::partition(begin, end, [&](const Candidate& one) { return one < pivot; });
            double mass = 0.0;
            for (auto one = begin; one != middle; ++one) mass += one->weight;
            if (before + mass >= wanted) {
                end = middle;
                continue;
            }
            before += mass + pivot.weight;
            last = pivot, is_any = true;
            std::iter_swap(middle, std::find_if(middle, end, [&](const Candidate& one) {
                               return one.id == pivot.id;
                           }));
            begin = middle + 1;
        }
        return is_any ? last : *std::min_element(candidates_.begin(), candidates_.end());
    }

    // A token of the whole vocabulary.
    int from_blocks(double uniform) const {
        const double target = below(uniform * total_, total_);
        double before = 0.0;
        int block = 0;
        for (; block + 1 < blocks() && before + sums_[block] <= target; ++block)
            before += sums_[block];
        double mass = 0.0;
        each(block, [&](int, vf x) {
            const vf w = weights(x - peak_);
            for (int i = 0; i < kLanes; ++i) mass += w[i];
        });
        const double inside = below(std::max(target - before, 0.0), mass);
        double so_far = 0.0;
        int found = -1;
        each(block, [&](int at, vf x) {
            if (found >= 0) return;
            const vf w = weights(x - peak_);
            for (int i = 0; i < kLanes && found < 0; ++i)
                if ((so_far += w[i]) > inside) found = at + i;
        });
        return found >= 0 ? found : most_probable();
    }

    // A target under its total where rounding lifted it to it.
    static double below(double target, double total) {
        return std::min(target, std::nextafter(total, 0.0));
    }

    const float* logits_ = nullptr;
    int vocabulary_ = 0;
    float temperature_ = 1.0f, peak_ = 0.0f;
    double total_ = 0.0, near_[kDepths] = {};
    std::vector<float> peaks_, order_;
    std::vector<double> sums_;
    std::vector<Candidate> candidates_, sorted_;
};

// All rows of a call; each by one thread.
class Drawing final : public Job {
  public:
    Drawing(Draw* rows, int count, int vocabulary)
        : rows_(rows), count_(count), vocabulary_(vocabulary) {}
    int next() override { return std::exchange(count_, 0); }
    void item(int index) override {
        thread_local Drawer drawer;
        drawer.draw(rows_[index], vocabulary_);
    }

  private:
    Draw* rows_;
    int count_, vocabulary_;
};

}  // namespace
