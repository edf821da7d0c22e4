// Threads that share the items of a job.
//
// A job is a chain of phases, each of some items that any thread may do in any order. The thread
// that ends the last item of a phase prepares the next one. Nobody waits for a thread that does
// nothing: one that the system has put aside is missed only while it holds an item. Threads that
// find nothing to do spin for a moment, then give way, and sleep between jobs.

#pragma once

#include <atomic>
#include <cstdint>
#include <thread>

#include "tiles.h"

namespace {

class Job {
  public:
    virtual ~Job() = default;
    virtual int next() = 0;  // prepare the next phase: its number of items, 0 for none
    virtual void item(int index) = 0;
};

inline void pause() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Lives as long as the process: its threads are never joined, so a process may end at any time.
class Team {
  public:
    // One caller at a time.
    void run(Job& job, int threads) {
        for (; size_ < threads; ++size_)
            std::thread([this, index = size_] { serve(index); }).detach();
        job_.store(&job, std::memory_order_relaxed);
        limit_.store(threads, std::memory_order_relaxed);
        publish(job.next());
        if (threads > 1) {
            started_.fetch_add(1, std::memory_order_release);
            started_.notify_all();
        }
        const TileScope tiles;
        work();
    }

  private:
    static constexpr int kSpins = 2000;  // some 100 microseconds

    static uint32_t count(uint64_t ticket) { return uint32_t(ticket >> 32); }
    static uint32_t index(uint64_t ticket) { return uint32_t(ticket); }
    void publish(int items) { ticket_.store(uint64_t(items) << 32, std::memory_order_release); }

    // Until the job is done. Whoever holds an item may use the job: it cannot end before.
    void work() {
        for (int turns = 0;;) {
            uint64_t ticket = ticket_.load(std::memory_order_acquire);
            if (count(ticket) == 0) return;
            if (index(ticket) >= count(ticket)) {
                if (++turns < kSpins) pause(); else std::this_thread::yield();
                continue;
            }
            ticket = ticket_.fetch_add(1, std::memory_order_acq_rel);
            if (index(ticket) >= count(ticket)) continue;
            turns = 0;
            Job& job = *job_.load(std::memory_order_relaxed);
            job.item(int(index(ticket)));
            if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 == count(ticket)) {
                done_.store(0, std::memory_order_relaxed);
                publish(job.next());
            }
        }
    }

    void serve(int index) {
        for (;;) {
            const uint32_t seen = started_.load(std::memory_order_acquire);
            if (index < limit_.load(std::memory_order_relaxed) &&
                count(ticket_.load(std::memory_order_acquire)) > 0) {
                const TileScope tiles;
                work();
            }
            for (int turns = 0; turns < kSpins; ++turns) {
                if (started_.load(std::memory_order_acquire) != seen) break;
                pause();
            }
            started_.wait(seen, std::memory_order_acquire);
        }
    }

    int size_ = 1;
    std::atomic<int> limit_{1};
    std::atomic<uint32_t> started_{0};
    std::atomic<Job*> job_{nullptr};
    alignas(64) std::atomic<uint64_t> ticket_{0};  // items of the phase, and how many are taken
    alignas(64) std::atomic<uint32_t> done_{0};
};

}  // namespace
