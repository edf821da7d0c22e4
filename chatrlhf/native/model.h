// A decoder-only transformer, its adapters and one batch of a step, as the caller lays them out.
//
// Notation: R rows (replies decoded together, of any lengths), H hidden size, D size of a head, V vocabulary,
// T positions in the cache, r LoRA rank. All memory is the caller's.

#pragma once

#include "linear.h"

extern "C" {

// LoRA of one Linear: down (parts * r, d_in); up (d_out / kBlock, r, kBlock), times alpha / r.
struct Update {
    const bf16* down;
    const bf16* up;
    int32_t rank;
};

struct Layer {
    Linear qkv, o, gate_up, down;
    // (H), or null where the model has none; q_norm and k_norm (D)
    const float *attention_norm, *attention_out_norm, *mlp_norm, *mlp_out_norm, *q_norm, *k_norm;
    const float* inverse_frequencies;  // (D / 2)
    float rope_scale;                  // of cosine and sine
    int32_t window;                    // positions that attention sees; 0: all
};

struct Model {
    int32_t kind, layers, hidden, intermediate, heads, kv_heads, head_dim, activation, vocabulary;
    float epsilon, attention_scale, attention_softcap, final_softcap, embedding_scale;
    const bf16* embedding;  // (V, H)
    const float* final_norm;
    const Layer* layer;
    Linear head;
};

// Rows that lie in one cache: consecutive rows of the batch, all of one length. Or, in a run, the
// next positions of one row of the cache, each of which sees those before it.
struct Segment {
    int64_t rows, length;     // length: positions in the cache so far
    int64_t run, logits;      // whether it is a run; of how many of its last rows logits are wanted
    bf16* const* keys;        // (layers) each (rows, kv_heads, capacity, D)
    bf16* const* values;
    const int64_t* capacity;  // (layers)
};

struct Batch {
    int32_t rows, segments, threads, adapters;
    const int64_t* token_ids;       // (R)
    const int64_t* pads;            // (R) positions on the left that hold no token, or null
    const int32_t* adapter_of_row;  // (R), -1 for none; or null where no row has one
    const Update* const* updates;   // (adapters) each (layers * 4)
    const Segment* segment;
    float* logits;                  // (rows whose logits are wanted, V)
};

}  // extern "C"
