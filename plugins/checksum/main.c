/* Prints the SHA-256 of a payload in hexadecimal digits, as sha256sum does.
 *
 * The payload is any bytes. A header `expect` has the digits that are expected, and the task is rejected when
 * they differ: so a file that arrived damaged becomes a dead letter, and one that did not is done. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Any code but 0 and 75 rejects the task, and the last of stderr says why: EX_DATAERR of sysexits.h. */
enum { REJECT = 65 };

enum { BLOCK = 64, DIGITS = 64 };

typedef struct {
    uint32_t state[8];
    uint64_t length;
    uint8_t block[BLOCK];
} Sha256;

/* The first 32 bits of the fractional parts of the cube roots of the first 64 primes (FIPS 180-4). */
static const uint32_t ROUND[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t turned(uint32_t word, int bits) { return word >> bits | word << (32 - bits); }

static void take_block(Sha256 *sum) {
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++) {
        const uint8_t *byte = sum->block + 4 * i;
        w[i] = (uint32_t)byte[0] << 24 | byte[1] << 16 | byte[2] << 8 | byte[3];
    }
    for (int i = 16; i < 64; i++) {
        uint32_t a = turned(w[i - 15], 7) ^ turned(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t b = turned(w[i - 2], 17) ^ turned(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + a + w[i - 7] + b;
    }
    memcpy(s, sum->state, sizeof s);
    for (int i = 0; i < 64; i++) {
        uint32_t e = turned(s[4], 6) ^ turned(s[4], 11) ^ turned(s[4], 25);
        uint32_t a = turned(s[0], 2) ^ turned(s[0], 13) ^ turned(s[0], 22);
        uint32_t one = s[7] + e + ((s[4] & s[5]) ^ (~s[4] & s[6])) + ROUND[i] + w[i];
        uint32_t two = a + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += one;
        s[0] = one + two;
    }
    for (int i = 0; i < 8; i++) sum->state[i] += s[i];
}

static void take(Sha256 *sum, const uint8_t *bytes, size_t count) {
    for (size_t i = 0; i < count; i++) {
        sum->block[sum->length++ % BLOCK] = bytes[i];
        if (sum->length % BLOCK == 0) take_block(sum);
    }
}

static void finish(Sha256 *sum, char digits[DIGITS + 1]) {
    uint64_t bits = sum->length * 8;
    uint8_t length[8], one = 0x80, zero = 0;
    for (int i = 0; i < 8; i++) length[i] = (uint8_t)(bits >> (56 - 8 * i));
    take(sum, &one, 1);
    while (sum->length % BLOCK != BLOCK - sizeof length) take(sum, &zero, 1);
    take(sum, length, sizeof length);
    for (int i = 0; i < 8; i++) sprintf(digits + 8 * i, "%08x", (unsigned)sum->state[i]);
}

int main(void) {
    Sha256 sum = {.state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                            0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}};
    static uint8_t buffer[1 << 16];
    size_t count;
    while ((count = fread(buffer, 1, sizeof buffer, stdin)) > 0) take(&sum, buffer, count);
    char digits[DIGITS + 1];
    finish(&sum, digits);
    const char *expected = getenv("SCUTWORK_HEADER_EXPECT");
    if (expected && strcasecmp(expected, digits) != 0) {
        fprintf(stderr, "the payload's SHA-256 is %s, and %s was expected\n", digits, expected);
        return REJECT;
    }
    puts(digits);
    return 0;
}
