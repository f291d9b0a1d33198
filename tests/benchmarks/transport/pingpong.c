// The yardstick for compiled code: 64 bytes there and back between two processes over shared memory, with nothing but
// C11 atomics. Prints the one-way time in seconds. Usage: pingpong ROUNDS CORE_A CORE_B
#define _GNU_SOURCE
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct lane {
  _Alignas(64) _Atomic uint64_t sequence;
  _Alignas(64) unsigned char message[64];
};

static void pin(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  sched_setaffinity(0, sizeof set, &set);
}

static void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static void send(struct lane *lane, const unsigned char *message, uint64_t n) {
  memcpy(lane->message, message, 64);
  atomic_store_explicit(&lane->sequence, n, memory_order_release);
}

static void receive(struct lane *lane, unsigned char *message, uint64_t n) {
  while (atomic_load_explicit(&lane->sequence, memory_order_acquire) != n) relax();
  memcpy(message, lane->message, 64);
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  uint64_t rounds = strtoull(argv[1], NULL, 10), warm_up = rounds / 10 + 1;
  struct lane *lanes = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (lanes == MAP_FAILED) return 1;
  unsigned char message[64] = {0};
  pid_t child = fork();
  if (child == 0) {
    pin(atoi(argv[3]));
    for (uint64_t n = 1; n <= rounds + warm_up; n++) {
      receive(&lanes[0], message, n);
      send(&lanes[1], message, n);
    }
    _exit(0);
  }
  pin(atoi(argv[2]));
  struct timespec a, b;
  for (uint64_t n = 1; n <= rounds + warm_up; n++) {
    if (n == warm_up + 1) clock_gettime(CLOCK_MONOTONIC, &a);
    message[0] = (unsigned char)n;
    send(&lanes[0], message, n);
    receive(&lanes[1], message, n);
    if (message[0] != (unsigned char)n) return 3;
  }
  clock_gettime(CLOCK_MONOTONIC, &b);
  waitpid(child, NULL, 0);
  printf("%.12g\n", ((b.tv_sec - a.tv_sec) + (b.tv_nsec - a.tv_nsec) * 1e-9) / rounds / 2);
  return 0;
}
