/* amounts.h - arithmetic on amounts: sums and products stop at FSM_UNLIMITED. */
#ifndef FSM_AMOUNTS_H
#define FSM_AMOUNTS_H

#include "engine.h"

static inline int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static inline int64_t add_amounts(int64_t amount, int64_t other)
{
    int64_t sum;
    return __builtin_add_overflow(amount, other, &sum) ? FSM_UNLIMITED : sum;
}

static inline int64_t multiply(int64_t amount, int64_t factor)
{
    int64_t product;
    return __builtin_mul_overflow(amount, factor, &product) ? FSM_UNLIMITED : product;
}

#endif
