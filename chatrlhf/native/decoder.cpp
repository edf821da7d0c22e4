// What the program calls: packing of weights, a decode step of a whole model (step.h), draws of tokens (sampling.h).

#include <algorithm>
#include <mutex>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "linear.h"
#include "model.h"
#include "sampling.h"
#include "step.h"
#include "team.h"

namespace {

std::mutex team_mutex;
Team* team = new Team;

}  // namespace

extern "C" {

// 0 where this processor and system can run what the library was compiled for.
int prepare(void) { return request_tiles(); }

// 0 plain, 1 AVX2, 2 AVX-512 VNNI, 3 AMX
int kernel(void) { return KERNEL; }

// Sizes of the structures, so that the caller can compare its own.
void struct_sizes(int64_t* sizes) {
    sizes[0] = sizeof(Linear);
    sizes[1] = sizeof(Update);
    sizes[2] = sizeof(Layer);
    sizes[3] = sizeof(Model);
    sizes[4] = sizeof(Segment);
    sizes[5] = sizeof(Batch);
    sizes[6] = sizeof(Draw);
}

int64_t packed_bytes(int32_t d_out, int32_t d_in) {
    return int64_t((d_out + kBlock - 1) / kBlock) * kBlock * ((d_in + 63) / 64 * 64);
}

// Round rows of W (d_out, d_in) to int8; `scale` has a place for every output of whole blocks.
void pack(const bf16* weight, int32_t d_out, int32_t d_in, int8_t* to, float* scale) {
#if defined(__linux__)
    // Fewer pages are some percent faster to read; the kernel may refuse.
    constexpr uintptr_t kHugePage = uintptr_t(1) << 21;
    if (reinterpret_cast<uintptr_t>(to) % kHugePage == 0)
        madvise(to, size_t(packed_bytes(d_out, d_in)), MADV_HUGEPAGE);
#endif
    pack_rows(weight, d_out, d_in, to, scale);
}

// Draw a token for each of `count` rows of logits.
void draw(Draw* rows, int32_t count, int32_t vocabulary, int32_t threads) {
    const std::lock_guard<std::mutex> lock(team_mutex);
    Drawing job(rows, count, vocabulary);
    team->run(job, std::clamp(threads, 1, std::max(count, 1)));
}

// Append one token a row, or, in runs, several to one. Returns 0, or 1 where there are too many rows.
int step(const Model* model, const Batch* batch) {
    if (batch->rows > kMaxRows) return 1;
    const std::lock_guard<std::mutex> lock(team_mutex);
    static Workspace work;
    Step job(*model, *batch, work);
    team->run(job, std::max(batch->threads, 1));
    return 0;
}

}  // extern "C"
