// Which instructions multiply small integers and halves, and the state that tiles need.

#pragma once

#include "vectors.h"

#define AMX 3    // tiles of int8 and bfloat16
#define VNNI 2   // AVX-512 with sums of four int8 products
#define AVX2 1   // sums of two int16 products
#define PLAIN 0
#if defined(FORCE_KERNEL)
#define KERNEL FORCE_KERNEL
#elif defined(__AMX_INT8__) && defined(__AMX_BF16__) && defined(__linux__)
#define KERNEL AMX
#elif defined(__AVX512VNNI__) && defined(__AVX512BW__)
#define KERNEL VNNI
#elif defined(__AVX2__)
#define KERNEL AVX2
#else
#define KERNEL PLAIN
#endif

#if KERNEL == AMX
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

#if KERNEL == AMX
// Eight tiles of 16 rows of 64 bytes while it lives; then the thread has what it had before.
class TileScope {
  public:
    TileScope() {
        _tile_storeconfig(before_);
        Config config;
        _tile_loadconfig(&config);
    }
    ~TileScope() {
        if (before_[0]) _tile_loadconfig(before_); else _tile_release();
    }
    TileScope(const TileScope&) = delete;
    TileScope& operator=(const TileScope&) = delete;

  private:
    struct alignas(64) Config {
        uint8_t palette = 1, start_row = 0, reserved[14] = {};
        uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
        uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    };
    alignas(64) uint8_t before_[64];
};

// The system gives tiles to a process that asks; 0 where it does.
inline int request_tiles() { return int(syscall(SYS_arch_prctl, 0x1023, 18)); }
#else
struct TileScope {
    TileScope() {}
    ~TileScope() {}
};
inline int request_tiles() { return 0; }
#endif

}  // namespace
