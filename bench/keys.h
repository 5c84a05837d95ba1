/* The keys of loadgen.c: key i has taskhash hex(i,1), outhash hex(i,2), unihash hex(i,3). */
#include <stdint.h>

#define METHOD "oe.sstatesig.OEOuthashBasic"
enum { TASKHASH = 1, OUTHASH, UNIHASH };

static uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

static void hex(uint64_t i, unsigned salt, char *out) {
  static const char d[] = "0123456789abcdef";
  for (int w = 0; w < 4; w++) {
    uint64_t v = mix(i * 1024 + salt * 16 + w);
    for (int b = 0; b < 16; b++) out[w * 16 + b] = d[(v >> (60 - 4 * b)) & 15];
  }
}
