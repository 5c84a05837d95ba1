/* redisload: what loadgen.c is for the line protocol, for a Redis server.
 *
 *   cc -O2 -o redisload redisload.c
 *   ./redisload -a unix:/path/sock | HOST:PORT  -m get|set  [options]
 *
 * -c CONNS  persistent connections          (default 1)
 * -d DEPTH  requests in flight on each      (default 1 = lock-step)
 * -n TOTAL  requests in all                 (default 100000)
 * -k KEYS   key numbers are taken from 0..KEYS-1: shuffled for get, in order for set
 * -o OFF    added to every key number
 * -x PCT    percent of get requests aimed past the range (misses; default 0)
 * -L NAME   label printed first
 *
 * The keys and their order are those of loadgen.c: "METHOD TASKHASH" holds the unihash.
 * Every reply is checked; a wrong one is counted and fails the run. Prints one JSON line.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "keys.h"

enum { GET, SET } mode = GET;
static const char *mode_names[] = {"get", "set"};

static long total = 100000, sent_n, done_n, wrong;
static uint64_t keys = 1000000, off;
static int pct, depth = 1, conns = 1;
static float *lat;

struct conn {
  int fd;
  char *out; size_t olen, ooff, ocap;
  char in[1 << 17]; size_t ilen;
  long *q; double *qt; int qh, qn;
};

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec * 1e-9;
}

static uint64_t key_of(long n, int *miss) {
  uint64_t r = mix(n ^ 0x5bd1e995);
  *miss = pct && (int)(mix(r) % 100) < pct;
  uint64_t k = (mode == SET) ? (uint64_t)n % keys : r % keys;
  return off + k + (*miss ? 1ULL << 40 : 0);
}

static void put(struct conn *c, const char *s, size_t n) {
  if (c->olen + n > c->ocap) {
    c->ocap = (c->olen + n) * 2;
    c->out = realloc(c->out, c->ocap);
  }
  memcpy(c->out + c->olen, s, n);
  c->olen += n;
}

static void refill(struct conn *c) {
  char b[512], t[65], u[65];
  const int klen = sizeof METHOD + 64; /* the name, a space, 64 digits */
  t[64] = u[64] = 0;
  double ts = 0;
  while (c->qn < depth && sent_n < total) {
    int miss, n = 0;
    uint64_t k = key_of(sent_n, &miss);
    hex(k, TASKHASH, t);
    if (mode == GET) {
      n = sprintf(b, "*2\r\n$3\r\nGET\r\n$%d\r\n" METHOD " %s\r\n", klen, t);
    } else {
      hex(k, UNIHASH, u);
      n = sprintf(b, "*3\r\n$3\r\nSET\r\n$%d\r\n" METHOD " %s\r\n$64\r\n%s\r\n", klen, t, u);
    }
    put(c, b, n);
    if (!ts) ts = now();
    int at = (c->qh + c->qn) % depth;
    c->q[at] = sent_n; c->qt[at] = ts;
    c->qn++; sent_n++;
  }
}

static int flush_out(struct conn *c) {
  while (c->ooff < c->olen) {
    ssize_t r = write(c->fd, c->out + c->ooff, c->olen - c->ooff);
    if (r < 0) { if (errno == EAGAIN) return 1; perror("write"); exit(2); }
    c->ooff += r;
  }
  c->ooff = c->olen = 0;
  return 0;
}

/* The length of the first reply in p..end, or 0 when it is not all there. */
static size_t reply_length(const char *p, const char *end) {
  const char *nl = memchr(p, '\n', end - p);
  if (!nl) return 0;
  size_t n = nl + 1 - p;
  if (*p == '$' && p[1] != '-') n += strtoul(p + 1, NULL, 10) + 2;
  return n <= (size_t)(end - p) ? n : 0;
}

static void check(struct conn *c, const char *r, size_t n, double t1) {
  if (!c->qn) { fprintf(stderr, "unexpected reply: %.*s\n", (int)n, r); exit(2); }
  long id = c->q[c->qh];
  lat[done_n] = (float)(t1 - c->qt[c->qh]);
  c->qh = (c->qh + 1) % depth; c->qn--;
  int miss, ok;
  char u[65];
  uint64_t k = key_of(id, &miss);
  if (mode == SET) ok = n == 5 && !memcmp(r, "+OK\r\n", 5);
  else if (miss) ok = n == 5 && !memcmp(r, "$-1\r\n", 5);
  else { hex(k, UNIHASH, u); ok = n == 71 && !memcmp(r, "$64\r\n", 5) && !memcmp(r + 5, u, 64); }
  if (!ok && !wrong++) fprintf(stderr, "wrong reply to %ld: %.*s\n", id, (int)n, r);
  done_n++;
}

static int dial(const char *a) {
  int fd;
  if (!strncmp(a, "unix:", 5)) {
    struct sockaddr_un s = {.sun_family = AF_UNIX};
    const char *p = a + 5;
    if (!strncmp(p, "//", 2)) p += 2;
    strncpy(s.sun_path, p, sizeof s.sun_path - 1);
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(fd, (void *)&s, sizeof s)) { perror(a); exit(2); }
  } else {
    char h[256]; snprintf(h, sizeof h, "%s", a);
    char *p = strrchr(h, ':');
    struct addrinfo *r, hint = {.ai_socktype = SOCK_STREAM};
    if (!p || (*p++ = 0, getaddrinfo(h, p, &hint, &r))) { fprintf(stderr, "bad address\n"); exit(2); }
    fd = socket(r->ai_family, SOCK_STREAM, 0);
    if (connect(fd, r->ai_addr, r->ai_addrlen)) { perror(a); exit(2); }
    int one = 1; setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  }
  fcntl(fd, F_SETFL, O_NONBLOCK);
  return fd;
}

static int cmpf(const void *a, const void *b) { float x = *(float *)a, y = *(float *)b; return (x > y) - (x < y); }

static void on_readable(struct conn *c) {
  ssize_t r = read(c->fd, c->in + c->ilen, sizeof c->in - c->ilen);
  if (r < 0 && errno == EAGAIN) return;
  if (r <= 0) { fprintf(stderr, "closed by server at %ld\n", done_n); exit(2); }
  c->ilen += r;
  double t1 = now();
  char *p = c->in, *end = c->in + c->ilen;
  for (size_t n; (n = reply_length(p, end)); p += n) check(c, p, n, t1);
  c->ilen = end - p;
  memmove(c->in, p, c->ilen);
  if (c->qn <= depth / 2) refill(c);
}

int main(int argc, char **argv) {
  const char *addr = NULL, *label = "";
  int ch;
  while ((ch = getopt(argc, argv, "a:m:c:d:n:k:o:x:L:")) != -1) switch (ch) {
    case 'a': addr = optarg; break;
    case 'm': for (int i = 0; i < 2; i++) if (!strcmp(optarg, mode_names[i])) mode = i; break;
    case 'c': conns = atoi(optarg); break;
    case 'd': depth = atoi(optarg); break;
    case 'n': total = atol(optarg); break;
    case 'k': keys = atoll(optarg); break;
    case 'o': off = atoll(optarg); break;
    case 'x': pct = atoi(optarg); break;
    case 'L': label = optarg; break;
    default: return 2;
  }
  if (!addr) { fprintf(stderr, "-a ADDR is needed\n"); return 2; }
  lat = malloc(sizeof(float) * total);
  struct conn **cs = calloc(conns, sizeof *cs);
  int ep = epoll_create1(0);
  for (int i = 0; i < conns; i++) {
    struct conn *c = cs[i] = calloc(1, sizeof *c);
    c->fd = dial(addr);
    c->q = calloc(depth, sizeof(long)); c->qt = calloc(depth, sizeof(double));
  }
  double t0 = now();
  for (int i = 0; i < conns; i++) {
    struct conn *c = cs[i];
    refill(c);
    int w = flush_out(c);
    struct epoll_event e = {.events = EPOLLIN | (w ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e);
  }
  struct epoll_event ev[256];
  while (done_n < total) {
    int n = epoll_wait(ep, ev, 256, 120000);
    if (n == 0) { fprintf(stderr, "stalled at %ld of %ld\n", done_n, total); return 2; }
    for (int i = 0; i < n; i++) {
      struct conn *c = ev[i].data.ptr;
      if (ev[i].events & EPOLLIN) on_readable(c);
      int w = flush_out(c);
      struct epoll_event e = {.events = EPOLLIN | (w ? EPOLLOUT : 0), .data.ptr = c};
      epoll_ctl(ep, EPOLL_CTL_MOD, c->fd, &e);
    }
  }
  double el = now() - t0;
  qsort(lat, total, sizeof(float), cmpf);
  printf("{\"label\": \"%s\", \"mode\": \"%s\", \"conns\": %d, \"depth\": %d, \"n\": %ld, \"miss_pct\": %d, \"seconds\": %.3f, \"per_second\": %.0f, "
         "\"p50_us\": %.0f, \"p99_us\": %.0f, \"max_us\": %.0f, \"wrong\": %ld}\n",
         label, mode_names[mode], conns, depth, total, pct, el, total / el, lat[total / 2] * 1e6, lat[(long)(total * .99)] * 1e6, lat[total - 1] * 1e6, wrong);
  return wrong ? 1 : 0;
}
