/* XXH3, 64 bits with a seed, of up to LONGEST_HASHED bytes: xxHash's doc/xxhash_spec.md. */

#pragma once
#include <stdint.h>
#include <string.h>

#define LONGEST_HASHED 128

static const uint8_t SECRET[144] = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c,
    0xf7, 0x21, 0xad, 0x1c, 0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb,
    0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f, 0xcb, 0x79, 0xe6, 0x4e,
    0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6,
    0x81, 0x3a, 0x26, 0x4c, 0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb,
    0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3, 0x71, 0x64, 0x48, 0x97,
    0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7,
    0xc7, 0x0b, 0x4f, 0x1d, 0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31,
    0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64, 0xea, 0xc5, 0xac, 0x83,
    0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
};

#define PRIME64_1 0x9E3779B185EBCA87ULL
#define PRIME64_2 0xC2B2AE3D27D4EB4FULL
#define PRIME64_3 0x165667B19E3779F9ULL

static uint32_t read32(const uint8_t *at) { uint32_t v; memcpy(&v, at, 4); return v; }
static uint64_t read64(const uint8_t *at) { uint64_t v; memcpy(&v, at, 8); return v; }
static uint64_t rotate(uint64_t v, int by) { return v << by | v >> (64 - by); }

static uint64_t folded_product(uint64_t a, uint64_t b)
{
    unsigned __int128 product = (unsigned __int128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static uint64_t avalanche64(uint64_t h)
{
    h = (h ^ h >> 33) * PRIME64_2;
    h = (h ^ h >> 29) * PRIME64_3;
    return h ^ h >> 32;
}

static uint64_t avalanche3(uint64_t h)
{
    h = (h ^ h >> 37) * 0x165667919E3779F9ULL;
    return h ^ h >> 32;
}

static uint64_t mix16(const uint8_t *in, const uint8_t *secret, uint64_t seed)
{
    return folded_product(read64(in) ^ (read64(secret) + seed),
                          read64(in + 8) ^ (read64(secret + 8) - seed));
}

static uint64_t xxh3(const uint8_t *in, size_t length, uint64_t seed)
{
    if (length == 0)
        return avalanche64(seed ^ read64(SECRET + 56) ^ read64(SECRET + 64));
    if (length <= 3) {
        uint32_t joined = (uint32_t)in[0] << 16 | (uint32_t)in[length >> 1] << 24 |
                          in[length - 1] | (uint32_t)length << 8;
        return avalanche64(joined ^ ((uint64_t)(read32(SECRET) ^ read32(SECRET + 4)) + seed));
    }
    if (length <= 8) {
        seed ^= (uint64_t)__builtin_bswap32((uint32_t)seed) << 32;
        uint64_t joined = read32(in + length - 4) + ((uint64_t)read32(in) << 32);
        uint64_t h = joined ^ ((read64(SECRET + 8) ^ read64(SECRET + 16)) - seed);
        h ^= rotate(h, 49) ^ rotate(h, 24);
        h *= 0x9FB21C651E98DF25ULL;
        h ^= (h >> 35) + length;
        h *= 0x9FB21C651E98DF25ULL;
        return h ^ h >> 28;
    }
    if (length <= 16) {
        uint64_t low = read64(in) ^ ((read64(SECRET + 24) ^ read64(SECRET + 32)) + seed);
        uint64_t high =
            read64(in + length - 8) ^ ((read64(SECRET + 40) ^ read64(SECRET + 48)) - seed);
        return avalanche3(length + __builtin_bswap64(low) + high + folded_product(low, high));
    }
    uint64_t sum = length * PRIME64_1;
    for (size_t pair = (length - 1) / 32 + 1; pair-- > 0;)
        sum += mix16(in + 16 * pair, SECRET + 32 * pair, seed) +
               mix16(in + length - 16 * (pair + 1), SECRET + 32 * pair + 16, seed);
    return avalanche3(sum);
}
