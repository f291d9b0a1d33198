// An arithmetic Asian call by Monte Carlo with antithetic paths and the geometric average as control: the kernel
// finance.monte_carlo_path again, with the same random numbers (Philox 4x32-10, Box and Muller), the same blocks of
// lanes side by side, and the same straight-line log, sin, cos and exp (coefficients of Sun's fdlibm and Taylor's series):
// with the C library's, gcc makes one scalar call of sin and cos, and the loop over the lanes is not vector code.
// Prints the seconds of the best of REPEATS runs, the price and its standard error. One thread.
// Usage: asian PATHS STEPS REPEATS
#define _GNU_SOURCE
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define LANES 256

static const double SPOT = 100, STRIKE = 100, MATURITY = 1, RATE = 0.05, SIGMA = 0.2;

static inline double number(uint64_t bits) {
  double x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

static inline int64_t word(double x) {
  int64_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

// The nearest integer: as floor(x + 0.5), of which gcc makes a function that it has no vector form of.
static inline int64_t nearest(double x) { return word(x + 0x1.8p52) - 0x4338000000000000; }

// exp(x) and exp(-x) at about the cost of one.
static inline void exp_both(double x, double *up, double *down) {
  x = fmin(fmax(x, -700.0), 700.0);
  int64_t n = nearest(x * 1.4426950408889634);
  double k = (double)n;
  double r = (x - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10, s = r * r;
  double even = 1 + s * (0.5 + s * (1.0 / 24 + s * (1.0 / 720 + s * (1.0 / 40320 + s * (1.0 / 3628800 + s / 479001600)))));
  double odd = r * (1 + s * (1.0 / 6 + s * (1.0 / 120 + s * (1.0 / 5040 + s * (1.0 / 362880 + s / 39916800)))));
  *up = (even + odd) * number((uint64_t)(n + 1023) << 52);
  *down = (even - odd) * number((uint64_t)(1023 - n) << 52);
}

static inline double logarithm(double x) {
  int64_t bits = word(x), k = (bits - 0x3FE6A09E667F3BCD) >> 52;
  double f = number(bits - (k << 52)) - 1, s = f / (2 + f), z = s * s, e = (double)k, half = 0.5 * f * f;
  double rest = z * (6.666666666666735130e-01 + z * (3.999999999940941908e-01 + z * (2.857142874366239149e-01 +
                z * (2.222219843214978396e-01 + z * (1.818357216161805012e-01 + z * (1.531383769920937332e-01 +
                z * 1.479819860511658591e-01))))));
  return e * 6.93147180369123816490e-01 - ((half - (s * (half + rest) + e * 1.90821492927058770002e-10)) - f);
}

static inline void cosine_sine(double turns, double *cosine, double *sine) {
  int64_t q = nearest(turns * 4);
  double x = (turns - q * 0.25) * 6.283185307179586, z = x * x;
  double s = x + x * z * (-1.66666666666666324348e-01 + z * (8.33333333332248946124e-03 + z * (-1.98412698298579493134e-04 +
             z * (2.75573137070700676789e-06 + z * (-2.50507602534068634195e-08 + z * 1.58969099521155010221e-10)))));
  double c = 1 - 0.5 * z + z * z * (4.16666666666666019037e-02 + z * (-1.38888888888741095749e-03 +
             z * (2.48015872894767294178e-05 + z * (-2.75573143513906633035e-07 + z * (2.0875723212981748e-09 -
             z * 1.1359647557788195e-11)))));
  double a = q & 1 ? s : c, b = q & 1 ? c : s;
  *cosine = (q + 1) & 2 ? -a : a;
  *sine = q & 2 ? -b : b;
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

static double cdf(double x) { return 0.5 * erfc(-x / sqrt(2.0)); }

static double control(int steps) {
  double n = steps;
  double mean = (RATE - 0.5 * SIGMA * SIGMA) * MATURITY * (n + 1) / (2 * n);
  double deviation = SIGMA * sqrt(MATURITY * (n + 1) * (2 * n + 1) / 6.0) / n;
  double forward = SPOT * exp(mean + 0.5 * deviation * deviation);
  double d1 = log(forward / STRIKE) / deviation + 0.5 * deviation;
  return exp(-RATE * MATURITY) * (forward * cdf(d1) - STRIKE * cdf(d1 - deviation));
}

// Four words for each lane; the counter is (pair, group of steps, 0), the key the seed.
static void draw(uint64_t words[4][LANES], uint64_t base, uint32_t group) {
  for (int lane = 0; lane < LANES; lane++) {
    uint64_t pair = base + lane;
    uint32_t c0 = (uint32_t)pair, c1 = (uint32_t)(pair >> 32), c2 = group, c3 = 0, k0 = 1, k1 = 0;
    for (int round = 0; round < 10; round++) {
      uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
      uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
      c1 = (uint32_t)p1, c3 = (uint32_t)p0, c0 = n0, c2 = n2;
      k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    words[0][lane] = c0, words[1][lane] = c1, words[2][lane] = c2, words[3][lane] = c3;
  }
}

static void simulate(long pairs, int steps, double *price, double *stderr_) {
  static uint64_t words[4][LANES];
  static double w[LANES], total[LANES], plus[LANES], minus[LANES];
  double drift = (RATE - 0.5 * SIGMA * SIGMA) * MATURITY / steps, vol = SIGMA * sqrt(MATURITY / steps);
  double discount = exp(-RATE * MATURITY), known = control(steps), per = 1.0 / steps;
  double geometric = SPOT * exp(drift * (steps + 1) / 2);
  double m[5] = {0};
  double *growth = malloc((steps + 1) * sizeof *growth);
  for (int t = 0; t < steps; t++) growth[t] = exp(drift * (t + 1));
  growth[steps] = 0.0;
  for (long base = 0; base < pairs; base += LANES) {
    for (int lane = 0; lane < LANES; lane++) w[lane] = total[lane] = plus[lane] = minus[lane] = 0.0;
    for (int step = 0; step < steps; step += 2) {
      if (step % 4 == 0) draw(words, base, step / 4);
      const uint64_t *high = words[step % 4], *low = words[step % 4 + 1];
      double g1 = growth[step], g2 = growth[step + 1], live = step + 1 < steps;
      for (int lane = 0; lane < LANES; lane++) {
        uint64_t bits = high[lane] << 32 | low[lane];
        double u = ((double)(int64_t)(bits >> 28) + 0.5) * 0x1p-36;
        double turns = ((double)(int64_t)(bits & 0xFFFFFFF) + 0.5) * 0x1p-28;
        double radius = sqrt(-2.0 * logarithm(u)), cosine, sine, up1, up2, down1, down2;
        cosine_sine(turns, &cosine, &sine);
        double w1 = w[lane] + radius * cosine, w2 = w1 + radius * sine;
        exp_both(vol * w1, &up1, &down1);
        exp_both(vol * w2, &up2, &down2);
        plus[lane] += g1 * up1 + g2 * up2;
        minus[lane] += g1 * down1 + g2 * down2;
        total[lane] += w1 + live * w2;
        w[lane] = w2;
      }
    }
    long lanes = pairs - base < LANES ? pairs - base : LANES;
    for (long lane = 0; lane < lanes; lane++) {
      double up = exp(vol * total[lane] * per);
      double y = fmax(SPOT * plus[lane] * per - STRIKE, 0) + fmax(SPOT * minus[lane] * per - STRIKE, 0);
      double c = fmax(geometric * up - STRIKE, 0) + fmax(geometric / up - STRIKE, 0);
      y = 0.5 * discount * y - known, c = 0.5 * discount * c - known;
      m[0] += y, m[1] += c, m[2] += y * y, m[3] += c * c, m[4] += y * c;
    }
  }
  free(growth);
  for (int i = 0; i < 5; i++) m[i] /= pairs;
  double vy = m[2] - m[0] * m[0], vc = m[3] - m[1] * m[1], cov = m[4] - m[0] * m[1], beta = cov / vc;
  *price = m[0] - beta * m[1] + known;
  *stderr_ = sqrt(fmax(vy - beta * cov, 0) / (pairs - 2));
}

int main(int argc, char **argv) {
  if (argc != 4) return 2;
  long pairs = atol(argv[1]) / 2;
  int steps = atoi(argv[2]), repeats = atoi(argv[3]);
  double best = 1e300, price = 0, error = 0;
  for (int k = 0; k < repeats; k++) {
    double began = now();
    simulate(pairs, steps, &price, &error);
    double took = now() - began;
    if (took < best) best = took;
  }
  printf("%.17g %.17g %.17g\n", best, price, error);
  return 0;
}
