// STREAM's triad (J. McCalpin, 1995) as a plain loop, on as many threads as OMP_NUM_THREADS says. Prints the bytes a
// second of the best of REPEATS passes, counted as STREAM does: two arrays read, one written.
// Usage: triad LENGTH REPEATS
#define _GNU_SOURCE
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

static double *array(size_t n) {
  size_t bytes = (n * sizeof(double) + (2 << 20) - 1) & ~(size_t)((2 << 20) - 1);
  double *p = aligned_alloc(2 << 20, bytes);
  if (!p) exit(3);
  madvise(p, bytes, MADV_HUGEPAGE);  // as NumPy does for large arrays
  return p;
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  size_t n = strtoull(argv[1], 0, 10);
  int repeats = atoi(argv[2]);
  double *restrict a = array(n), *restrict b = array(n), *restrict c = array(n);
  double s = 3.0, best = 1e300;
#pragma omp parallel for schedule(static)
  for (size_t i = 0; i < n; i++) a[i] = 0.0, b[i] = 2.0, c[i] = 1.0;
  for (int k = 0; k < repeats; k++) {
    double began = omp_get_wtime();
#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i++) a[i] = b[i] + s * c[i];
    double took = omp_get_wtime() - began;
    if (took < best) best = took;
    if (a[0] != 5.0 || a[n - 1] != 5.0) return 1;
  }
  printf("%.17g\n", 3.0 * sizeof(double) * n / best);
  return 0;
}
