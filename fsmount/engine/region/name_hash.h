/*
 * name_hash.h - the hash of a group's name: SipHash-1-3 with the key of the region.
 *
 * Users choose names. If everybody could compute the hash, a user could choose thousands of names for one bucket, and
 * every lookup there would walk past all of them. The key is random, and no user who makes groups through files can
 * read it.
 *
 * SipHash is by Jean-Philippe Aumasson and Daniel J. Bernstein ("SipHash: a fast short-input PRF", 2012). Python, Rust
 * and Ruby use the same variant, with one round for each word and three at the end, for their tables.
 */
#ifndef FSM_NAME_HASH_H
#define FSM_NAME_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct siphash {
    uint64_t v0, v1, v2, v3;
} siphash;

static inline uint64_t rotated(uint64_t word, unsigned bits)
{
    return word << bits | word >> (64 - bits);
}

static inline void siphash_round(siphash *s)
{
    s->v0 += s->v1;
    s->v1 = rotated(s->v1, 13) ^ s->v0;
    s->v0 = rotated(s->v0, 32);
    s->v2 += s->v3;
    s->v3 = rotated(s->v3, 16) ^ s->v2;
    s->v0 += s->v3;
    s->v3 = rotated(s->v3, 21) ^ s->v0;
    s->v2 += s->v1;
    s->v1 = rotated(s->v1, 17) ^ s->v2;
    s->v2 = rotated(s->v2, 32);
}

static inline void siphash_word(siphash *s, uint64_t word)
{
    s->v3 ^= word;
    siphash_round(s);
    s->v0 ^= word;
}

/* SipHash-1-3 of the parent's number, as 8 bytes, followed by the name. */
static inline uint64_t name_hash(uint64_t key0, uint64_t key1, uint64_t parent, const char *name, size_t length)
{
    siphash s = { key0 ^ UINT64_C(0x736f6d6570736575), key1 ^ UINT64_C(0x646f72616e646f6d),
                  key0 ^ UINT64_C(0x6c7967656e657261), key1 ^ UINT64_C(0x7465646279746573) };
    uint64_t word, last = (uint64_t)(length + sizeof parent) << 56;
    siphash_word(&s, parent);
    size_t at = 0;
    for (; length - at >= sizeof word; at += sizeof word) {
        memcpy(&word, name + at, sizeof word);
        siphash_word(&s, word);
    }
    for (size_t i = at; i < length; i++)
        last |= (uint64_t)(unsigned char)name[i] << (8 * (i - at));
    siphash_word(&s, last);
    s.v2 ^= 0xff;
    for (int i = 0; i < 3; i++)
        siphash_round(&s);
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}

#endif
