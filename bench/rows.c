/* rows: print the first N keys of loadgen.c, each as a line `TASKHASH OUTHASH UNIHASH`.
 *
 *   cc -O2 -o rows rows.c && ./rows N
 */
#include <stdio.h>
#include <stdlib.h>

#include "keys.h"

int main(int argc, char **argv) {
  if (argc != 2) { fprintf(stderr, "usage: rows N\n"); return 2; }
  char line[3 * 65];
  line[64] = line[129] = ' ';
  line[194] = '\n';
  for (uint64_t i = 0, n = strtoull(argv[1], NULL, 10); i < n; i++) {
    hex(i, TASKHASH, line); hex(i, OUTHASH, line + 65); hex(i, UNIHASH, line + 130);
    if (fwrite(line, sizeof line, 1, stdout) != 1) { perror("rows"); return 2; }
  }
  return fflush(stdout) ? 2 : 0;
}
